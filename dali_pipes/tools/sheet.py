"""Clips laid out in pictures: a contact sheet of all frames, and moving clips side by side. Knows nothing of videos."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

GAP = 2
# Height of the strip with the label above each row of pictures.
STRIP = 14
_BACKGROUND, _INK = (24, 24, 24), (230, 230, 230)


def cell(row: int, column: int, size: int) -> tuple[slice, slice]:
    """Rows and columns of pixels that one picture takes in a grid."""
    top = row * (STRIP + size + GAP) + STRIP
    left = column * (size + GAP)
    return slice(top, top + size), slice(left, left + size)


def grid(pictures: NDArray[np.uint8], labels: Sequence[str]) -> NDArray[np.uint8]:
    """Pictures in rows, a label above each row.

    Args:
        pictures: (rows, columns, S, S, 3) uint8 RGB.
        labels: One a row; cut where they are wider than the row.

    Returns:
        (H, W, 3) uint8 RGB; both sides are even, as video encoders want them.
    """
    rows, columns, size = pictures.shape[:3]
    height = rows * (STRIP + size + GAP)
    width = columns * (size + GAP)
    image = Image.new("RGB", (width + width % 2, height + height % 2), _BACKGROUND)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=10)
    for row, label in enumerate(labels):
        # The font that every installation has knows few letters; others would raise or show as boxes.
        text = label.encode("ascii", "replace").decode()
        draw.text((2, row * (STRIP + size + GAP) + 1), text, fill=_INK, font=font)
    canvas = np.array(image)
    for row in range(rows):
        for column in range(columns):
            canvas[cell(row, column, size)] = pictures[row, column]
    return canvas


def contact_sheet(clips: NDArray[np.uint8], labels: Sequence[str]) -> NDArray[np.uint8]:
    """One row a clip, its frames from left to right.

    Args:
        clips: (N, T, S, S, 3) uint8 RGB.
        labels: One a clip.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    return grid(clips, labels)


def side_by_side(clips: NDArray[np.uint8], labels: Sequence[str]) -> list[NDArray[np.uint8]]:
    """One row a video, its clips beside each other; as many pictures as a clip has frames.

    Args:
        clips: (B, V, T, S, S, 3) uint8 RGB.
        labels: One a video.

    Returns:
        T pictures, (H, W, 3) uint8 RGB.
    """
    return [grid(np.ascontiguousarray(clips[:, :, t]), labels) for t in range(clips.shape[2])]
