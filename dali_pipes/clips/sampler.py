"""(seed, epoch, position) -> ClipRequest, a pure function. Sharding and resume follow from it.

An epoch is a permutation of the videos (several one after another with ``clips_per_video``). Rank ``r`` of ``W`` takes,
at step ``n``, positions ``(n * W + r) * B`` to ``(n * W + r + 1) * B - 1``: the order does not depend on the number of
ranks, and every rank makes the same number of steps.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from dali_pipes.clips.random import Purpose, generator
from dali_pipes.clips.request import ClipRequest, Key, View
from dali_pipes.clips.speed import SHORT, Short, Timing, last_start, span, stride
from dali_pipes.errors import DataError

if TYPE_CHECKING:
    from dali_pipes.corpus import Corpus

Window = Literal["independent", "shared"]
SpeedOrder = Literal["given", "random"]


class ClipSampler:
    """Chooses videos, speeds and first frames.

    Args:
        corpus: The videos.
        frames: Frames per clip, T.
        speeds: Playback speed of each view.
        seed: Seed of all draws.
        split: Take only videos of this split; None: all.
        window: ``independent``: each view starts anywhere. ``shared``: all views start at the same frame, so that one
            window of the fastest view's span is decoded for all.
        short: What to do with a video that is shorter than a clip: ``loop`` begins again at its first frame, ``pad``
            repeats its last one, ``skip`` leaves the video out. Clips of such a video start at frame 0.
        fps: Reference frame rate for 1x; None: each video's own.
        speed_order: ``given``: view v has ``speeds[v]``. ``random``: the speeds are shuffled for every request (with
            two speeds, a coin flip).
        clips_per_video: Visits of each video in an epoch.
        shuffle: Whether the order changes with seed and epoch; False: corpus order.

    Raises:
        DataError: If an argument is out of range or no video is left.
    """

    def __init__(
        self,
        corpus: Corpus,
        *,
        frames: int,
        speeds: Sequence[float] = (1, 2),
        seed: int = 0,
        split: str | None = None,
        window: Window = "independent",
        short: Short = "loop",
        fps: float | None = None,
        speed_order: SpeedOrder = "given",
        clips_per_video: int = 1,
        shuffle: bool = True,
    ) -> None:
        _check("window", window, get_args(Window))
        _check("short", short, SHORT)
        _check("speed_order", speed_order, get_args(SpeedOrder))
        if frames < 1:
            raise DataError(f"frames={frames} must be at least 1")
        if not speeds or any(not 0 < s < np.inf for s in speeds):
            raise DataError(f"speeds={tuple(speeds)} must be one or more positive numbers, for example (1, 2)")
        if clips_per_video < 1:
            raise DataError(f"clips_per_video={clips_per_video} must be at least 1")
        if seed < 0:
            raise DataError(f"seed={seed} must not be negative")
        if fps is not None and not fps > 0:
            raise DataError(f"fps={fps} must be a positive frame rate, or None for each video's own")
        self.corpus = corpus
        self.frames = frames
        self.speeds = tuple(float(s) for s in speeds)
        self.seed = seed
        self.split = split
        self.window = window
        self.short = short
        self.fps = fps
        self.speed_order = speed_order
        self.clips_per_video = clips_per_video
        self.shuffle = shuffle
        videos = corpus.select(split)
        if short == "skip" and len(videos):
            steps = max(self.speeds) if fps is None else max(self.speeds) * corpus.rate[videos] / fps
            needed = np.floor((frames - 1) * steps + 0.5).astype(np.int64) + 1
            videos = videos[corpus.frames[videos] >= needed]
        if not len(videos):
            raise DataError(_nothing_left(corpus, short, frames, self.speeds))
        self.videos: NDArray[np.int64] = videos
        self._orders: OrderedDict[tuple[int, int], NDArray[np.int64]] = OrderedDict()

    def __len__(self) -> int:
        """Positions in an epoch, over all ranks."""
        return len(self.videos) * self.clips_per_video

    def video(self, epoch: int, position: int) -> int:
        """The row number of the video at a position of an epoch."""
        if not 0 <= position < len(self):
            raise IndexError(f"position {position} is outside the epoch's 0..{len(self) - 1}")
        visit, place = divmod(position, len(self.videos))
        if not self.shuffle:
            return int(self.videos[place])
        order = self._orders.get((epoch, visit))
        if order is None:
            draws = generator(Key(self.seed, epoch, visit), Purpose.ORDER)
            order = self._orders[epoch, visit] = draws.permutation(len(self.videos))
            if len(self._orders) > 2:  # the one in use and, around a boundary, its neighbour
                self._orders.popitem(last=False)
        return int(self.videos[order[place]])

    def request(self, epoch: int, position: int) -> ClipRequest:
        """The request at a position of an epoch."""
        return self._draw(self.video(epoch, position), Key(self.seed, epoch, position), self.speeds)

    def single(self, video: int, speed: float, *, epoch: int, position: int, role: int = 1) -> ClipRequest:
        """One clip of a given video at a given speed, for the place of another request.

        This is how a retrieved positive is asked for: Algorithm 1, step 9, samples a clip of the video found. Its
        draws are those of (seed, epoch, position, role) and of nothing else.
        """
        return self._draw(video, Key(self.seed, epoch, position, role), (float(speed),))

    def _draw(self, video: int, key: Key, speeds: tuple[float, ...]) -> ClipRequest:
        return draw_request(
            self.corpus, video, key, speeds, self.frames, self.fps, self.window, shuffle=self.speed_order == "random"
        )


def timing_of(corpus: Corpus, video: int) -> Timing:
    """The clock of a row; reads the time stamps only where the rate is not constant."""
    stamps = None if corpus.constant[video] else corpus[video].timestamps
    return Timing(int(corpus.frames[video]), float(corpus.rate[video]), stamps)


def draw_request(
    corpus: Corpus,
    video: int,
    key: Key,
    speeds: Sequence[float],
    frames: int,
    fps: float | None,
    window: Window = "independent",
    *,
    shuffle: bool = False,
    attempt: int = 0,
) -> ClipRequest:
    """A request for random clips of one video; the draws are a function of the key (and attempt) alone."""
    draws = generator(key, Purpose.START, attempt=attempt)
    if shuffle:
        speeds = [speeds[i] for i in draws.permutation(len(speeds))]
    timing = timing_of(corpus, video)
    ends = [last_start(timing, frames, stride(s, timing.rate, fps)) for s in speeds]
    if window == "shared":
        starts = [int(draws.integers(min(ends) + 1))] * len(ends)
    else:
        starts = [int(draws.integers(end + 1)) for end in ends]
    return ClipRequest(video, tuple(View(s, at) for s, at in zip(speeds, starts, strict=True)), key)


def replacement(
    request: ClipRequest,
    attempt: int,
    corpus: Corpus,
    videos: NDArray[np.int64],
    frames: int,
    fps: float | None,
    window: Window = "independent",
) -> ClipRequest:
    """The request that takes the place of one that could not be decoded: the same speeds of another video.

    Which one is a function of the request's key and the attempt (1, 2, ...), so it is the same in every run and on
    every rank.

    Raises:
        DataError: If there is no other video.
    """
    others = videos[videos != request.video]
    if not len(others):
        raise DataError(f"{corpus[request.video].uri} cannot be decoded, and there is no other video to take its place")
    draws = generator(request.key, Purpose.REPLACE, attempt=attempt)
    video = int(others[draws.integers(len(others))])
    speeds = [view.speed for view in request.views]
    return draw_request(corpus, video, request.key, speeds, frames, fps, window, attempt=attempt)


def even_requests(
    corpus: Corpus, video: int, *, frames: int, clips: int = 10, speed: float = 1.0, fps: float | None = None
) -> ClipRequest:
    """Evenly spaced clips of one video, for evaluation.

    First frames are spread evenly from 0 to the last one at which the clip still ends within the video, both included;
    one clip is centred (the protocol of RSPNet, AAAI 2021).

    Returns:
        One request with ``clips`` views.
    """
    if clips < 1:
        raise DataError(f"clips={clips} must be at least 1")
    timing = timing_of(corpus, video)
    room = last_start(timing, frames, stride(speed, timing.rate, fps))
    starts = np.linspace(0, room, clips) if clips > 1 else np.array([room / 2])
    return ClipRequest(video, tuple(View(float(speed), int(s)) for s in np.floor(starts + 0.5)))


def _check(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise DataError(f"{name}={value!r} must be one of {', '.join(allowed)}")


def _nothing_left(corpus: Corpus, short: str, frames: int, speeds: Sequence[float]) -> str:
    if short == "skip":
        needed = span(frames, max(speeds))
        return f"no video has the {needed} frames that {frames} frames at {max(speeds):g}x span; use short='loop'"
    return f"no usable video among the corpus's {len(corpus)}; see its column 'error'"
