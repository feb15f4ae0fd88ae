"""The truth that candidates are compared with: a full sequential decode, then a resize in each of the common ways."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import av
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from bench.measure.plan import Request

# Path -> frame number -> (ways of resizing, size, size, 3) uint8 RGB.
Frames = dict[str, dict[int, NDArray[np.uint8]]]

# Cut the centre square first or last, with or without a filter as wide as the reduction, and where the middle lies on
# half a pixel, to either side of it. Half a pixel of shift between two of them looks like one frame of a slow pan, so
# frame numbers are checked against the way a candidate resizes.
RESIZES: dict[str, tuple[bool, bool, int]] = {
    "square, antialiased": (True, True, 0),
    "square, plain": (True, False, 0),
    "whole, antialiased": (False, True, 0),
    "whole, plain": (False, False, 0),
    "whole, antialiased, middle rounded up": (False, True, 1),
}


def centre_square(picture: NDArray[np.uint8], up: int = 0) -> NDArray[np.uint8]:
    """The square of the short side in the middle of ``(..., H, W, C)`` pictures; ``up=1``: half a pixel goes up."""
    height, width = picture.shape[-3:-1]
    side = min(height, width)
    top, left = (height - side + up) // 2, (width - side + up) // 2
    return picture[..., top : top + side, left : left + side, :]


def shrink(
    picture: NDArray[np.uint8], size: int, ways: Sequence[tuple[bool, bool, int]] = tuple(RESIZES.values())
) -> NDArray[np.uint8]:
    """Centre square of a picture at the wanted size, once for each way of resizing.

    Args:
        picture: ``(H, W, 3)`` uint8.
        size: Side of the result, pixels.
        ways: Values of `RESIZES`.

    Returns:
        ``(ways, size, size, 3)`` uint8.
    """
    return np.stack([_shrink(picture, size, *way) for way in ways])


def _shrink(picture: NDArray[np.uint8], size: int, square: bool, smooth: bool, up: int) -> NDArray[np.uint8]:
    if square:
        picture = centre_square(picture)
    height, width = picture.shape[:2]
    scale = size / min(height, width)
    shape = (max(size, round(height * scale)), max(size, round(width * scale)))
    planes = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float()
    small = functional.interpolate(planes, size=shape, mode="bilinear", antialias=smooth, align_corners=False)
    return centre_square(small[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy(), up)


def frames_around(
    requests: Sequence[Request],
    size: int,
    *,
    reach: int,
    ways: Sequence[tuple[bool, bool, int]] = tuple(RESIZES.values()),
) -> Frames:
    """Every requested frame and its neighbours, from decoding each video from its first frame on.

    Args:
        requests: What is asked for.
        size: Side of the frames, pixels.
        reach: Neighbours on each side.
        ways: Values of `RESIZES`: how each is shrunk.
    """
    wanted: dict[str, set[int]] = {}
    for request in requests:
        near = {number + offset for number in request.unique for offset in range(-reach, reach + 1)}
        wanted.setdefault(request.path, set()).update(near)
    return {path: dict(_decode(path, numbers, size, ways)) for path, numbers in wanted.items()}


def _decode(
    path: str, numbers: set[int], size: int, ways: Sequence[tuple[bool, bool, int]]
) -> Iterable[tuple[int, NDArray[np.uint8]]]:
    last = max(numbers)
    # HMDB-51 has titles that are not UTF-8.
    with av.open(path, metadata_errors="ignore") as container:
        container.streams.video[0].thread_type = "NONE"
        for number, frame in enumerate(container.decode(video=0)):
            if number in numbers:
                picture = frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
                if frame.rotation:
                    picture = np.rot90(picture, k=round(frame.rotation / 90))
                yield number, shrink(picture, size, ways)
            if number >= last:
                return
