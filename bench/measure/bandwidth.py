"""Bytes a second that the memory of a device gives: what a search that has to read its rows is held against."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from bench.measure.stats import estimate
from dali_pipes.tools.machine import memory

MIB = 2**20
# A buffer has to be larger than the caches, or they are measured. Some hosts tell of caches beyond all reason.
SMALLEST, LARGEST = 256 * MIB, 1024 * MIB
LARGEST_GPU = 4096 * MIB
TURNS = 9


@dataclass(frozen=True)
class Bandwidth:
    """Measured rates of a device's memory, bytes a second.

    Attributes:
        read: Of adding up a buffer: it is read once.
        copy: Of copying one half of it to the other: what is read and what is written count.
        buffer: Bytes of the buffer.
        cache: Bytes of the largest cache; 0 where it is not known.
    """

    read: float
    copy: float
    buffer: int
    cache: int

    @property
    def best(self) -> float:
        """The higher one: nothing can read faster for long."""
        return max(self.read, self.copy)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"best": self.best}


def measure(device: torch.device, *, turns: int = TURNS) -> Bandwidth:
    """Medians over some turns, with as many threads as torch has.

    Args:
        device: Whose memory.
        turns: Times that each kernel runs, after two that do not count.
    """
    cache = cache_bytes(device)
    most = LARGEST if device.type == "cpu" else LARGEST_GPU
    size = min(most, max(SMALLEST, 2 * cache), free_bytes(device) // 4)
    # Two halves of whole numbers of 4 bytes.
    buffer = torch.ones(max(2, size // 8 * 2), dtype=torch.float32, device=device)
    source, target = buffer.chunk(2)
    read = _seconds(buffer.sum, device, turns)
    copy = _seconds(lambda: target.copy_(source), device, turns)
    size = buffer.numel() * buffer.element_size()
    return Bandwidth(read=size / read, copy=size / copy, buffer=size, cache=cache)


def free_bytes(device: torch.device) -> int:
    """Memory of a device that nobody uses; of the host's, what its control group grants."""
    if device.type == "cuda":
        # What torch keeps for later is free to us.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + kept)
    return memory()[1]


def cache_bytes(device: torch.device) -> int:
    """The largest cache between a device and its memory; 0 where it is not known."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).L2_cache_size)
    largest = 0
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        with suppress(OSError, ValueError):
            largest = max(largest, int(path.read_text().strip().removesuffix("K")) * 1024)
    return largest


def seconds_of(function: Callable[[], object], device: torch.device, times: int = 1) -> float:
    """Wall time of calling it so many times, until the device has done all of it; seconds a call."""
    wait(device)
    begun = time.perf_counter()
    for _ in range(times):
        function()
    wait(device)
    return (time.perf_counter() - begun) / times


def wait(device: torch.device) -> None:
    """Until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _seconds(function: Callable[[], object], device: torch.device, turns: int) -> float:
    for _ in range(2):
        function()
    return estimate([seconds_of(function, device) for _ in range(turns)]).median
