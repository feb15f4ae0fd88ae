"""Playback speed -> frame numbers.

A clip at playback speed ``s`` shows the video ``s`` times as fast: its frames lie ``s`` native frame periods apart.
Where the frame rate is constant this is a stride; where it is not, the clip follows the time stamps and takes the
nearest frame, so that speed is true in time and not only in frame numbers::

    native   0 1 2 3 4 5 6 7 8 9 ...
    1x       x x x x x x x x            4 frames at 1x span 4 native frames
    2x       x . x . x . x .            4 frames at 2x span 7
    1.5x     x . x x . x . x            positions 0, 1.5, 3, 4.5, rounded half up: 0, 2, 3, 5
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Real
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dali_pipes.errors import DataError

Short = Literal["loop", "skip", "pad"]
SHORT: tuple[Short, ...] = ("loop", "skip", "pad")
SLOWEST, FASTEST = 0.25, 16.0
MOST_JITTER = 0.5  # with more, two neighbours could change places


@dataclass(frozen=True)
class Timing:
    """What a clip needs to know of a video's clock.

    Attributes:
        frames: Number of frames.
        rate: Mean frame rate in frames per second.
        timestamps: Time stamps of all frames in ticks, sorted, for a video of variable rate; None for a constant rate.
    """

    frames: int
    rate: float
    timestamps: NDArray[np.int64] | None = None


def check_speed(speed: float) -> float:
    """The speed as a float.

    Raises:
        DataError: If it is no number, or outside 0.25..16.
    """
    if not (isinstance(speed, Real) and SLOWEST <= float(speed) <= FASTEST):
        raise DataError(f"speed={speed!r} must be a number in {SLOWEST:g}..{FASTEST:g}")
    return float(speed)


def stride(speed: float, rate: float, fps: float | None) -> float:
    """Distance between two frames of a clip, in native frames.

    Args:
        speed: Playback speed; 2.0 shows the video twice as fast.
        rate: The video's own mean frame rate, frames per second.
        fps: Reference rate that counts as 1x, or None for the video's own rate.
    """
    return speed if fps is None else speed * rate / fps


def span(frames: int, step: float) -> int:
    """Number of native frames from a clip's first frame to its last, both included.

    >>> span(16, 1.0), span(16, 2.0), span(4, 1.5)
    (16, 31, 6)
    """
    return math.floor((frames - 1) * step + 0.5) + 1


def last_start(timing: Timing, frames: int, step: float) -> int:
    """Number of the last frame at which a clip can start and still end within the video; 0 if there is none.

    Args:
        timing: The video's clock.
        frames: Frames in the clip, T.
        step: Distance between two frames of the clip, in native frames.
    """
    return max(_last_fitting(timing, frames, step), 0)


def _last_fitting(timing: Timing, frames: int, step: float) -> int:
    """As `last_start`, but negative where there is none."""
    stamps = timing.timestamps
    if stamps is None:
        return timing.frames - span(frames, step)
    if len(stamps) < 2:
        return 0 if frames == 1 else -1
    period = (stamps[-1] - stamps[0]) / (len(stamps) - 1)
    return int(np.searchsorted(stamps, stamps[-1] - (frames - 1) * step * period, side="right")) - 1


def adjacent_starts(timing: Timing, start: int, frames: int, steps: Sequence[float]) -> list[int]:
    """First frames of windows that follow one another: each begins with the frame after the last of the one before.

    Past the video's end they go on at frame 0.

    Args:
        timing: The video's clock.
        start: Number of the first window's first frame.
        frames: Frames in each clip, T.
        steps: Distance between two frames of each clip, in native frames.
    """
    starts = [start]
    for step in steps[:-1]:
        if timing.timestamps is None:
            after = starts[-1] + span(frames, step)
        else:
            after = int(_nearest_in_time(timing.timestamps, starts[-1], frames, step, "loop", None)[-1]) + 1
        starts.append(after % timing.frames)
    return starts


def last_adjacent_start(timing: Timing, frames: int, steps: Sequence[float]) -> int:
    """The last frame at which windows that follow one another can start and still end within the video; 0 if none."""
    if timing.timestamps is None:
        return max(timing.frames - sum(span(frames, step) for step in steps), 0)
    # A later start moves every window later, so what fits is an interval from 0 on: halve it.
    fits, over = 0, timing.frames
    while over - fits > 1:
        middle = (fits + over) // 2
        if adjacent_fit(timing, middle, frames, steps):
            fits = middle
        else:
            over = middle
    return fits


def adjacent_fit(timing: Timing, start: int, frames: int, steps: Sequence[float]) -> bool:
    """Whether windows that follow one another from ``start`` on all end within the video."""
    if timing.timestamps is None:
        return start + sum(span(frames, step) for step in steps) <= timing.frames
    starts = adjacent_starts(timing, start, frames, steps)
    rising = all(a < b for a, b in pairwise(starts))
    return rising and all(at <= _last_fitting(timing, frames, step) for at, step in zip(starts, steps, strict=True))


def frame_indices(
    timing: Timing,
    start: int,
    frames: int,
    speed: float,
    *,
    fps: float | None = None,
    short: Short = "loop",
    offsets: NDArray[np.float64] | None = None,
) -> NDArray[np.int64]:
    """Frame numbers of one clip.

    Args:
        timing: The video's clock.
        start: Number of the clip's first frame.
        frames: Number of frames in the clip, T.
        speed: Playback speed, 0.25 to 16.
        fps: Reference rate for 1x in frames per second; None: the video's own rate.
        short: What happens past the last frame: ``loop`` begins again at frame 0, ``pad`` repeats the last frame,
            ``skip`` must not happen (the sampler leaves such videos out) and is an error here.
        offsets: ``(T,)`` moves of the frames, in distances between two frames of the clip, each in [-0.5, 0.5]; no
            frame leaves the clip's window. None: evenly spaced.

    Returns:
        ``(T,)`` int64 frame numbers in ``[0, timing.frames)``.

    Raises:
        ValueError: If an argument is out of range, or the clip does not fit and ``short`` is ``skip``.
    """
    if not 0 <= start < timing.frames:
        raise ValueError(f"start={start} is outside the video's frames 0..{timing.frames - 1}")
    step = stride(check_speed(speed), timing.rate, fps)
    if timing.timestamps is None:
        # Plain numbers: numpy takes several times as long for so few where pictures fill the processor's caches.
        places = range(frames) if offsets is None else _places(frames, offsets).tolist()
        numbers = [start + math.floor(place * step + 0.5) for place in places]
        over = timing.frames
        if numbers and numbers[-1] >= over:
            _refuse(short, numbers[-1], over)
            numbers = [number % over if short == "loop" else min(number, over - 1) for number in numbers]
        return np.array(numbers, np.int64)
    return _nearest_in_time(timing.timestamps, start, frames, step, short, offsets)


def _places(frames: int, offsets: NDArray[np.float64] | None) -> NDArray[np.float64] | NDArray[np.int64]:
    """Places of a clip's frames, ``(T,)``, in distances between two of them."""
    even = np.arange(frames)
    if offsets is None:
        return even
    if offsets.shape != (frames,) or not (np.abs(offsets) <= MOST_JITTER).all():
        raise ValueError(f"offsets must be {frames} numbers in -{MOST_JITTER}..{MOST_JITTER}")
    return np.clip(even + offsets, 0, frames - 1)


def _nearest_in_time(
    stamps: NDArray[np.int64],
    start: int,
    frames: int,
    step: float,
    short: Short,
    offsets: NDArray[np.float64] | None,
) -> NDArray[np.int64]:
    """Frame numbers by time: the frame whose time stamp lies nearest (the earlier one in a tie)."""
    if len(stamps) == 1:
        if frames > 1:
            _refuse(short, frames - 1, 1)
        return np.zeros(frames, np.int64)
    period = (stamps[-1] - stamps[0]) / (len(stamps) - 1)  # ticks; the mean, since no single one is the video's
    wanted = (stamps[start] - stamps[0]) + _places(frames, offsets) * step * period
    relative = stamps - stamps[0]
    length = relative[-1] + period  # the last frame is shown for one mean period
    if wanted[-1] >= length:
        _refuse(short, start + span(frames, step) - 1, len(stamps))
        wanted = wanted % length if short == "loop" else np.minimum(wanted, relative[-1])
    right = np.clip(np.searchsorted(relative, wanted), 1, len(relative) - 1)
    left = right - 1
    return np.where(wanted - relative[left] <= relative[right] - wanted, left, right).astype(np.int64)


def _refuse(short: Short, last: int, frames: int) -> None:
    if short == "skip":
        raise ValueError(f"the clip ends at frame {last} but the video has {frames} frames; start earlier or use loop")
