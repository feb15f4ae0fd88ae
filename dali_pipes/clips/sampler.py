"""(seed, epoch, position) -> ClipRequest, a pure function. Sharding and resume follow from it.

An epoch is a permutation of the videos (several one after another with ``clips_per_video``). Behind ``n`` positions
that are done, rank ``r`` of ``W`` takes positions ``n + r * B`` to ``n + (r + 1) * B - 1``: the order does not depend
on the number of ranks, and every rank makes the same number of steps.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import permutations
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from dali_pipes.clips.random import Purpose, generator, passing_generator
from dali_pipes.clips.request import ClipRequest, Key, View
from dali_pipes.clips.speed import (
    FASTEST,
    MOST_JITTER,
    SHORT,
    SLOWEST,
    Short,
    Timing,
    adjacent_fit,
    adjacent_starts,
    check_speed,
    last_adjacent_start,
    last_start,
    span,
    stride,
)
from dali_pipes.errors import DataError

if TYPE_CHECKING:
    from dali_pipes.corpus import Corpus

Window = Literal["independent", "shared", "adjacent"]
SpeedOrder = Literal["given", "random"]
Speeds = Sequence[float | Sequence[float]]  # of each view: one, or several to draw one from


class ClipSampler:
    """Chooses videos, speeds and first frames.

    Args:
        corpus: The videos.
        frames: Frames per clip, T.
        speeds: Playback speed of each view, 0.25 to 16; several in place of one: each request draws one of them.
        seed: Seed of all draws.
        split: Take only videos of this split; None: all.
        window: ``independent``: each view starts anywhere. ``shared``: all views start at the same frame, so that one
            window of the fastest view's span is decoded for all. ``adjacent``: each view begins with the frame after
            the last of the view before. ``adjacent(n)`` says besides that there are ``n`` views; a single speed is
            that of all of them.
        short: What to do with a video that is shorter than a clip: ``loop`` begins again at its first frame, ``pad``
            repeats its last one, ``skip`` leaves the video out. Clips of such a video start at frame 0.
        fps: Reference frame rate for 1x; None: each video's own.
        speed_order: ``given``: view v has ``speeds[v]``. ``random``: the speeds are shuffled for every request (with
            two speeds, a coin flip).
        clips_per_video: Visits of each video in an epoch.
        shuffle: Whether the order changes with seed and epoch; False: corpus order.
        reverse: Probability that a view is shown backwards.
        jitter: Largest move of each frame within its window, in distances between two frames of the clip, 0 to 0.5.

    Raises:
        DataError: If an argument is out of range or no video is left.
    """

    def __init__(
        self,
        corpus: Corpus,
        *,
        frames: int,
        speeds: Speeds = (1, 2),
        seed: int = 0,
        split: str | None = None,
        window: Window | str = "independent",
        short: Short = "loop",
        fps: float | None = None,
        speed_order: SpeedOrder = "given",
        clips_per_video: int = 1,
        shuffle: bool = True,
        reverse: float = 0.0,
        jitter: float = 0.0,
    ) -> None:
        self.window, speeds = _window(window, speeds)
        _check("short", short, SHORT)
        _check("speed_order", speed_order, get_args(SpeedOrder))
        if frames < 1:
            raise DataError(f"frames={frames} must be at least 1")
        self.speeds = _speeds(speeds)
        if not 0 <= reverse <= 1:
            raise DataError(f"reverse={reverse} must be a probability, 0 to 1")
        if not 0 <= jitter <= MOST_JITTER:
            raise DataError(f"jitter={jitter} must lie in 0..{MOST_JITTER}, in distances between two frames of a clip")
        if clips_per_video < 1:
            raise DataError(f"clips_per_video={clips_per_video} must be at least 1")
        if seed < 0:
            raise DataError(f"seed={seed} must not be negative")
        if fps is not None and not fps > 0:
            raise DataError(f"fps={fps} must be a positive frame rate, or None for each video's own")
        self.corpus = corpus
        self.frames = frames
        self.seed = seed
        self.split = split
        self.short = short
        self.fps = fps
        self.speed_order = speed_order
        self.clips_per_video = clips_per_video
        self.shuffle = shuffle
        self.reverse = float(reverse)
        self.jitter = float(jitter)
        self._choices = [s if isinstance(s, tuple) else (s,) for s in self.speeds]
        self._given = None if any(isinstance(s, tuple) for s in self.speeds) else tuple(s for (s,) in self._choices)
        fastest = [max(choice) for choice in self._choices]
        videos = corpus.select(split)
        if short == "skip" and len(videos):
            videos = self._long_enough(videos, fastest)
        if not len(videos):
            raise DataError(_nothing_left(corpus, short, frames, fastest, self.window))
        self.videos: NDArray[np.int64] = videos
        self._orders: OrderedDict[tuple[int, int], NDArray[np.int64]] = OrderedDict()

    @property
    def speed_classes(self) -> tuple[float, ...]:
        """The distinct speeds, slowest first; `ClipBatch.speed_labels` counts in them."""
        return tuple(sorted({speed for choice in self._choices for speed in choice}))

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

    def requests(self, epoch: int, start: int, count: int) -> Iterator[ClipRequest]:
        """The requests at ``count`` positions of an epoch from ``start`` on, one after another."""
        return (self.request(epoch, position) for position in range(start, start + count))

    def request(self, epoch: int, position: int) -> ClipRequest:
        """The request at a position of an epoch."""
        key = Key(self.seed, epoch, position)
        speeds = self._given
        if speeds is None:
            draws = passing_generator(key, Purpose.SPEED)
            speeds = tuple(c[int(draws.integers(len(c)))] if len(c) > 1 else c[0] for c in self._choices)
        reverse: Sequence[bool] = ()
        if self.reverse:
            reverse = (passing_generator(key, Purpose.REVERSE).random(len(speeds)) < self.reverse).tolist()
        return self._draw(self.video(epoch, position), key, speeds, reverse, shuffle=self.speed_order == "random")

    def single(
        self, video: int, speed: float, *, epoch: int, position: int, role: int = 1, reverse: bool = False
    ) -> ClipRequest:
        """One clip of a given video at a given speed, for the place of another request.

        This is how a retrieved positive is asked for: Algorithm 1, step 9, samples a clip of the video found. Its
        draws are those of (seed, epoch, position, role) and of nothing else.
        """
        return self._draw(video, Key(self.seed, epoch, position, role), (float(speed),), (reverse,))

    def _draw(
        self, video: int, key: Key, speeds: tuple[float, ...], reverse: Sequence[bool], *, shuffle: bool = False
    ) -> ClipRequest:
        return draw_request(
            self.corpus,
            video,
            key,
            speeds,
            self.frames,
            self.fps,
            self.window,
            shuffle=shuffle,
            reverse=reverse,
            jitter=self.jitter,
        )

    def _long_enough(self, videos: NDArray[np.int64], fastest: Sequence[float]) -> NDArray[np.int64]:
        """Those of the videos in which every request finds its windows."""
        rate = 1.0 if self.fps is None else self.corpus.rate[videos] / self.fps
        if self.window != "adjacent":
            fastest = [max(fastest)]
        needed = sum(np.floor((self.frames - 1) * (s * rate) + 0.5).astype(np.int64) + 1 for s in fastest)
        fits = self.corpus.frames[videos] >= needed
        if self.window == "adjacent":
            orders = set(permutations(fastest)) if self.speed_order == "random" else {tuple(fastest)}
            for place in np.flatnonzero(~self.corpus.constant[videos]):
                timing = timing_of(self.corpus, int(videos[place]))
                fits[place] = all(
                    adjacent_fit(timing, 0, self.frames, [stride(s, timing.rate, self.fps) for s in order])
                    for order in orders
                )
        return videos[fits]


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
    reverse: Sequence[bool] = (),
    jitter: float = 0.0,
) -> ClipRequest:
    """A request for random clips of one video; the draws are a function of the key (and attempt) alone.

    Args:
        corpus: The videos.
        video: Row number.
        key: Names the draws.
        speeds: Playback speed of each view.
        frames: Frames per clip, T.
        fps: Reference rate for 1x, or None.
        window: Where the views' windows lie to each other.
        shuffle: Whether the speeds come in a random order.
        attempt: Tells the draws of one key apart.
        reverse: Whether each view is shown backwards; empty: none.
        jitter: Of all views.
    """
    timing = timing_of(corpus, video)
    draws = passing_generator(key, Purpose.START, attempt=attempt)
    if shuffle:
        speeds = [speeds[i] for i in draws.permutation(len(speeds))]
    steps = [stride(s, timing.rate, fps) for s in speeds]
    if window == "adjacent":
        first = int(draws.integers(last_adjacent_start(timing, frames, steps) + 1))
        starts = adjacent_starts(timing, first, frames, steps)
    elif window == "shared":
        last = min(last_start(timing, frames, step) for step in steps)
        starts = [int(draws.integers(last + 1))] * len(steps)
    else:
        starts = [int(draws.integers(last_start(timing, frames, step) + 1)) for step in steps]
    if not (reverse or jitter):
        return ClipRequest(video, tuple([View(s, at) for s, at in zip(speeds, starts, strict=True)]), key)
    backwards = reverse or [False] * len(steps)
    views = [View(s, at, None, b, jitter) for s, at, b in zip(speeds, starts, backwards, strict=True)]
    return ClipRequest(video, tuple(views), key)


def replacement(
    request: ClipRequest,
    attempt: int,
    corpus: Corpus,
    videos: NDArray[np.int64],
    frames: int,
    fps: float | None,
    window: Window = "independent",
) -> ClipRequest:
    """The request that takes the place of one that could not be decoded: another video, at the same speeds.

    Which one is a function of the request's key and the attempt (1, 2, ...), so it is the same in every run and on
    every rank.

    Raises:
        DataError: If there is no other video.
    """
    others = videos[videos != request.video]
    if not len(others):
        raise DataError(f"{corpus[request.video].uri} cannot be decoded, and there is no other video to take its place")
    draws = passing_generator(request.key, Purpose.REPLACE, attempt=attempt)
    video = int(others[draws.integers(len(others))])
    speeds = [view.speed for view in request.views]
    drawn = draw_request(corpus, video, request.key, speeds, frames, fps, window, attempt=attempt)
    views = zip(request.views, drawn.views, strict=True)
    same = (View(new.speed, new.start, None, old.reverse, old.jitter) for old, new in views)
    return ClipRequest(video, tuple(same), request.key)


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
    speed = check_speed(speed)
    timing = timing_of(corpus, video)
    room = last_start(timing, frames, stride(speed, timing.rate, fps))
    starts = np.linspace(0, room, clips) if clips > 1 else np.array([room / 2])
    return ClipRequest(video, tuple(View(speed, int(s)) for s in np.floor(starts + 0.5)))


def _check(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise DataError(f"{name}={value!r} must be one of {', '.join(allowed)}")


def parse_window(window: str) -> tuple[Window, int | None]:
    """``adjacent(n)`` -> ``adjacent`` and n; other windows as they are, and None.

    Raises:
        DataError: There is no such window.
    """
    counted = re.fullmatch(r"adjacent\(([1-9]\d*)\)", window) if isinstance(window, str) else None
    if counted is not None:
        return "adjacent", int(counted[1])
    _check("window", window, (*get_args(Window), "adjacent(n)"))
    return cast(Window, window), None


def _window(window: str, speeds: Speeds) -> tuple[Window, Speeds]:
    """As `parse_window`, with the speeds of all n views in place of n."""
    kind, count = parse_window(window)
    if count is None:
        return kind, speeds
    if not isinstance(speeds, Sequence):
        speeds = (speeds,) if isinstance(speeds, Real) else tuple(speeds)
    if len(speeds) == 1:
        speeds = [*speeds] * count
    if len(speeds) != count:
        raise DataError(f"window={window!r} asks for {count} views and speeds has {len(speeds)}; give {count}, or one")
    return kind, speeds


def _speeds(speeds: Speeds) -> tuple[float | tuple[float, ...], ...]:
    """As given, in floats; a choice of one is that one."""
    if isinstance(speeds, Real):
        raise DataError(f"speeds={speeds!r} must be a list with one for each view, such as (1, 2)")
    views: list[Sequence[Any]] = [s if isinstance(s, Sequence) else (s,) for s in speeds]
    if not views or any(isinstance(view, str) or not len(view) for view in views):
        raise DataError(f"speeds={tuple(speeds)} must be one or more numbers or sets of numbers, such as (1, (2, 4))")
    for speed in (speed for view in views for speed in view):
        if not (isinstance(speed, Real) and SLOWEST <= float(speed) <= FASTEST):
            raise DataError(f"speeds={tuple(speeds)}: {speed!r} must be a number in {SLOWEST:g}..{FASTEST:g}")
    return tuple(tuple(map(float, view)) if len(view) > 1 else float(view[0]) for view in views)


def _nothing_left(corpus: Corpus, short: str, frames: int, speeds: Sequence[float], window: Window) -> str:
    if short == "skip" and window == "adjacent":
        needed = sum(span(frames, speed) for speed in speeds)
        return f"no video has the {needed} frames of {len(speeds)} adjacent clips of {frames}; use short='loop'"
    if short == "skip":
        needed = span(frames, max(speeds))
        return f"no video has the {needed} frames that {frames} frames at {max(speeds):g}x span; use short='loop'"
    return f"no usable video among the corpus's {len(corpus)}; see its column 'error'"
