"""From a decoded frame to an RGB picture of one size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

if TYPE_CHECKING:
    import av


def working_size(width: int, height: int, short_side: int | None) -> tuple[int, int]:
    """Width and height after scaling the shorter side down to ``short_side``; never up.

    >>> working_size(340, 256, 128), working_size(64, 48, 128)
    ((170, 128), (64, 48))
    """
    shorter = min(width, height)
    if short_side is None or short_side >= shorter:
        return width, height
    scale = short_side / shorter
    return max(round(width * scale), 1), max(round(height * scale), 1)


class Picture:
    """Converts decoded frames to RGB of one size. Keeps its converter: a new one for each frame costs 1 ms a frame."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.converter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame, out: NDArray[np.uint8], at: int) -> None:
        """Writes the frame to ``out[at]``."""
        # Averaging over the area does not alias when shrinking, and is the quickest of FFmpeg's scalers here.
        same = frame.width == self.width and frame.height == self.height
        interpolation = Interpolation.BILINEAR if same else Interpolation.AREA
        rgb = self.converter.reformat(
            frame, width=self.width, height=self.height, format="rgb24", interpolation=interpolation, threads=1
        )
        out[at] = rgb.to_ndarray()
