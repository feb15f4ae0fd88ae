"""Short looping pictures for a page: frames of videos, as animated WebP in data addresses."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dali_pipes import Corpus, VideoError, read_frames

SECONDS = 2.4
"""Of a video that a looping clip shows at most, from its middle."""


@dataclass(frozen=True)
class Level:
    """How much room pictures may take.

    Attributes:
        edge: Height and width of a looping clip, pixels.
        frames: Its frames.
        quality: Of WebP, 0 to 100.
        thumb: Edge of a thumbnail in the map, pixels; 0: no thumbnails.
    """

    edge: int
    frames: int
    quality: int
    thumb: int


LEVELS = (
    Level(112, 12, 60, 64),
    Level(88, 10, 45, 48),
    Level(64, 8, 35, 36),
    Level(48, 6, 25, 24),
    Level(40, 4, 15, 0),
)
"""From good to small: a page that is too large is made again with the next."""


@dataclass(frozen=True)
class Moving:
    """Square frames (N, H, W, 3) uint8, shown for so many seconds altogether."""

    frames: NDArray[np.uint8]
    seconds: float

    def address(self, level: Level) -> str:
        """As a data address of an animated WebP."""
        at = np.unique(np.linspace(0, len(self.frames) - 1, min(level.frames, len(self.frames))).round().astype(int))
        pictures = [_scaled(self.frames[place], level.edge) for place in at]
        delay = max(40, round(1000 * self.seconds / len(pictures)))
        return _webp(pictures, level.quality, delay)

    def thumb(self, level: Level) -> str:
        """The middle frame, as a data address; "" where the level has no thumbnails."""
        return _webp([_scaled(self.frames[len(self.frames) // 2], level.thumb)], 50) if level.thumb else ""


def of_video(corpus: Corpus, row: int, *, frames: int = LEVELS[0].frames, edge: int = LEVELS[0].edge) -> Moving | None:
    """The middle of a video at its own speed; None where it cannot be decoded.

    Args:
        corpus: The videos.
        row: Which.
        frames: How many; 1 for a still picture.
        edge: Height and width of the centred square, pixels.
    """
    count, rate = int(corpus.frames[row]), float(corpus.rate[row])
    shown = min(count, max(1, round(SECONDS * rate))) if rate > 0 else count
    first = (count - shown) // 2
    numbers = np.unique(np.linspace(first, first + shown - 1, min(frames, shown)).round().astype(int))
    if frames == 1:
        numbers = np.array([count // 2])
    try:
        found = read_frames(corpus, row, numbers, short_side=edge)
    except (VideoError, OSError):
        return None
    return Moving(np.stack([square(frame) for frame in found]), shown / rate if rate > 0 else SECONDS)


def square(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The largest centred square of a frame (H, W, 3)."""
    height, width = frame.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return frame[top : top + side, left : left + side]


def _scaled(frame: NDArray[np.uint8], edge: int) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(frame)).resize((edge, edge), Image.Resampling.BICUBIC)


def _webp(pictures: Sequence[Image.Image], quality: int, delay: int = 0) -> str:
    buffer = io.BytesIO()
    if len(pictures) == 1:
        pictures[0].save(buffer, "WEBP", quality=quality, method=4)
    else:
        pictures[0].save(
            buffer, "WEBP", save_all=True, append_images=pictures[1:], duration=delay, loop=0, quality=quality, method=4
        )
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
