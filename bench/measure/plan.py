"""The list of clips that every candidate has to deliver, and in which order."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from dali_pipes.errors import DataError

if TYPE_CHECKING:
    from dali_pipes import Video

Window = Literal["independent", "shared"]
WINDOWS: tuple[Window, ...] = ("independent", "shared")


@dataclass(frozen=True)
class Request:
    """One sample: several clips of one video. Plain data, so that it reaches worker processes of any kind.

    Attributes:
        video: Row number in the corpus.
        path: The video's file.
        width: Width of the upright picture, pixels.
        height: Height of the upright picture, pixels.
        speeds: Playback speed of each view.
        starts: First frame of each view.
        numbers: Frame numbers of each view, in order of presentation from 0.
    """

    video: int
    path: str
    width: int
    height: int
    speeds: tuple[float, ...]
    starts: tuple[int, ...]
    numbers: tuple[tuple[int, ...], ...]

    @property
    def unique(self) -> list[int]:
        """All frame numbers of all views, sorted, each once."""
        return sorted({number for view in self.numbers for number in view})


def frame_numbers(start: int, frames: int, speed: float) -> tuple[int, ...]:
    """Frame numbers of a clip in a video of constant rate: `start + k * speed`, halves rounded up.

    Stated here on its own, not taken from the loader under test: a mistake there must not be repeated here.
    """
    return tuple(start + int(np.floor(k * speed + 0.5)) for k in range(frames))


def draw(
    rows: Iterable[tuple[int, Video]],
    *,
    count: int,
    frames: int,
    speeds: Sequence[float],
    window: Window,
    seed: int,
) -> list[Request]:
    """Draw requests: the videos in turn, in random order, first frames uniform.

    Args:
        rows: Row number and row of each usable video.
        count: Number of requests.
        frames: Frames of each clip, T.
        speeds: Playback speed of each view.
        window: "independent": each view starts anywhere. "shared": all views start at the same frame.
        seed: Seed of the draws.

    Raises:
        DataError: If no video of constant rate is long enough.
    """
    spans = [frame_numbers(0, frames, speed)[-1] + 1 for speed in speeds]
    fitting = [(index, row) for index, row in rows if row.constant and row.frames >= max(spans)]
    if not fitting:
        raise DataError(f"no video of constant frame rate has the {max(spans)} frames that a clip spans")
    random = np.random.default_rng([seed, WINDOWS.index(window)])
    order: list[int] = []
    while len(order) < count:
        order.extend(random.permutation(len(fitting)).tolist())
    requests = []
    for place in order[:count]:
        index, row = fitting[place]
        if window == "shared":
            starts = [int(random.integers(row.frames - max(spans) + 1))] * len(spans)
        else:
            starts = [int(random.integers(row.frames - span + 1)) for span in spans]
        turned = row.rotation % 180 == 90
        requests.append(
            Request(
                video=index,
                path=row.uri,
                width=row.height if turned else row.width,
                height=row.width if turned else row.height,
                speeds=tuple(float(speed) for speed in speeds),
                starts=tuple(starts),
                numbers=tuple(frame_numbers(at, frames, speed) for at, speed in zip(starts, speeds, strict=True)),
            )
        )
    return requests


def in_batches(order: Sequence[int], size: int) -> list[list[int]]:
    """Request numbers in batches of `size`; a last, smaller one is kept."""
    return [list(order[at : at + size]) for at in range(0, len(order), size)]


def digest(requests: Sequence[Request]) -> str:
    """Short hash of a plan without its paths: equal digests on two machines mean the same frames were asked for."""
    plain = [{key: value for key, value in asdict(request).items() if key != "path"} for request in requests]
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()[:16]
