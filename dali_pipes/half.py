"""Clips as float16, made on the CPU: by one thread, and into memory that was used before."""

from __future__ import annotations

import weakref
from collections import deque
from math import prod

import numpy as np
import torch

# Elements that torch converts without help from other threads; it asks for help from 32768 on. A multiple of 64 bytes.
_PIECE = 32768 - 64
# Batches whose memory waits to be used again: as many as are on the way in most loops.
_KEPT = 4


class Halver:
    """Turns float32 tensors into float16 ones.

    A tensor's memory is used again once nobody holds the tensor, or any view of it. New memory for every batch would
    have the kernel clear as many pages, which takes as long as the conversion.
    """

    def __init__(self) -> None:
        # Put back by whichever thread drops a tensor last.
        self._free: deque[np.ndarray] = deque(maxlen=_KEPT)

    def __call__(self, clips: torch.Tensor) -> torch.Tensor:
        """A float32 tensor as a contiguous float16 one, converted in this thread alone.

        All at once would be shared among OpenMP threads, which then spin for a while on the cores that decode; torch
        leaves pieces as small as these to the thread that asks.
        """
        half = self._memory(prod(clips.shape))
        for target, piece in zip(half.split(_PIECE), clips.reshape(-1).split(_PIECE), strict=True):
            target.copy_(piece)
        return half.view(clips.shape)

    def _memory(self, size: int) -> torch.Tensor:
        memory: np.ndarray | None = None
        while self._free and (memory is None or memory.size != size):
            memory = self._free.pop()
        if memory is None or memory.size != size:
            memory = np.empty(size, np.float16)
        # The tensor keeps this view, and the view alone goes with it.
        held = memory[:]
        weakref.finalize(held, self._free.append, memory).atexit = False
        return torch.from_numpy(held)
