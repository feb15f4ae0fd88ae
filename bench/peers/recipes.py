"""The two ways from decoded frames to normalised clips, shared by the peers so that only their decoders differ.

Usual: float conversion, resize, crop and normalisation of full-size frames with torch, a view at a time, in the worker;
float32 clips travel to the main process. Best: frames leave the decoder small or are resized by OpenCV, uint8 clips
travel, and a whole batch is normalised at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from bench.measure.check import MEAN, STD
from bench.measure.plan import Request


def usual_clip(frames: torch.Tensor, size: int) -> torch.Tensor:
    """Full-size frames -> one normalised clip: short side to `size`, centre crop, scale, normalise.

    Args:
        frames: ``(T, H, W, 3)`` uint8.
        size: Side of the result, pixels.

    Returns:
        ``(3, T, size, size)`` float32.
    """
    clip = frames.permute(0, 3, 1, 2).float() / 255
    height, width = clip.shape[-2:]
    scale = size / min(height, width)
    shape = (max(size, round(height * scale)), max(size, round(width * scale)))
    clip = functional.interpolate(clip, size=shape, mode="bilinear", align_corners=False)
    top, left = (shape[0] - size) // 2, (shape[1] - size) // 2
    clip = clip[..., top : top + size, left : left + size]
    clip = (clip - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    return clip.permute(1, 0, 2, 3).contiguous()


def small_shape(request: Request, size: int) -> tuple[int, int]:
    """Width and height of the whole picture with its short side at `size`."""
    scale = size / min(request.width, request.height)
    return max(size, round(request.width * scale)), max(size, round(request.height * scale))


def gather(unique: NDArray[np.uint8], request: Request) -> torch.Tensor:
    """Unique frames ``(N, H, W, 3)``, in order of their numbers -> views ``(V, T, H, W, 3)``."""
    places = np.searchsorted(request.unique, np.asarray(request.numbers))
    return torch.from_numpy(unique[places])


def normalise(batch: torch.Tensor, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """``(B, V, T, H, W, 3)`` uint8 -> ``(B, V, 3, T, H, W)`` normalised, on the device."""
    clips = batch.to(device, non_blocking=True).permute(0, 1, 5, 2, 3, 4)
    clips = clips.to(torch.float32, memory_format=torch.contiguous_format)
    clips.sub_(_column(MEAN, device)).div_(_column(STD, device))
    return clips.to(dtype)


def _column(values: Sequence[float], device: torch.device) -> torch.Tensor:
    return torch.tensor([255 * value for value in values], device=device).view(3, 1, 1, 1)
