"""From a decoded frame to an RGB picture of one size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

if TYPE_CHECKING:
    import av


def working_size(width: int, height: int, short_side: int | None) -> tuple[int, int]:
    """Width and height after scaling the shorter side down to ``short_side``; never up. The longer side is even.

    >>> working_size(340, 256, 128), working_size(64, 48, 128), working_size(340, 256, 112)
    ((170, 128), (64, 48), (148, 112))
    """
    shorter = min(width, height)
    if short_side is None or short_side >= shorter:
        return width, height
    if width == height:
        return short_side, short_side
    # Colours have half the resolution: in an odd number of columns they would not lie where the brightness does.
    longer = max(2 * round(max(width, height) * short_side / shorter / 2), short_side)
    return (longer, short_side) if width >= height else (short_side, longer)


def square_in(width: int, height: int) -> tuple[int, int, int]:
    """Left, top and side of the largest centred square of a picture, on whole pixels.

    >>> square_in(148, 112), square_in(112, 199)
    ((18, 0, 112), (0, 43, 112))
    """
    side = min(width, height)
    return (width - side) // 2, (height - side) // 2, side


def result_shape(frames: int, width: int, height: int, square: bool) -> tuple[int, int, int, int]:
    """Shape of so many pictures, or of their centred squares."""
    side = min(width, height)
    return (frames, side, side, 3) if square else (frames, height, width, 3)


# Formats that are scaled before they become RGB: half as many numbers, and both steps have quick code of their own.
_SCALED_FIRST = ("yuv420p", "yuvj420p")


class Picture:
    """Converts decoded frames to RGB of one size. Keeps its converters: a new one for each frame costs 1 ms a frame.

    Args:
        width, height: To scale frames to, pixels.
        square: Keep the centred square alone.
    """

    def __init__(self, width: int, height: int, *, square: bool = False) -> None:
        self.width, self.height = width, height
        left, top, side = square_in(width, height)
        self._rows = slice(top, top + side) if square else slice(None)
        self._bytes = slice(3 * left, 3 * (left + side)) if square else slice(3 * width)
        self.scaler, self.converter = VideoReformatter(), VideoReformatter()

    def __call__(self, frame: av.VideoFrame, out: NDArray[np.uint8], at: int) -> None:
        """Writes the frame to ``out[at]``."""
        # Averaging over the area does not alias when shrinking, and is the quickest of FFmpeg's scalers here.
        same = frame.width == self.width and frame.height == self.height
        if not same and frame.format.name in _SCALED_FIRST and not self._odd(frame):
            frame = self.scaler.reformat(
                frame, width=self.width, height=self.height, interpolation=Interpolation.AREA, threads=1
            )
            same = True
        interpolation = Interpolation.BILINEAR if same else Interpolation.AREA
        rgb = self.converter.reformat(
            frame, width=self.width, height=self.height, format="rgb24", interpolation=interpolation, threads=1
        )
        plane = rgb.planes[0]
        # Each row is padded for FFmpeg's own use; `to_ndarray` would drop that by one more copy.
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(self.height, plane.line_size)
        out[at].reshape(out.shape[1], -1)[:] = rows[self._rows, self._bytes]

    def _odd(self, frame: av.VideoFrame) -> bool:
        """Whether scaling would move colours against brightness."""
        return bool((frame.width | frame.height | self.width | self.height) & 1)
