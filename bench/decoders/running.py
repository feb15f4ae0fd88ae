"""What lives in a decoder's own process: opens it, has it deliver pictures to compare, and times its rounds."""

from __future__ import annotations

import re
import resource
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.decoders.base import Decoder, Job
from bench.measure.reference import RESIZES, shrink
from bench.measure.rounds import Figure, time_epoch

# Decoders deliver whole frames, so all of them are shrunk here in the same way.
WAY = "square, antialiased"
MIB = 2**20


@dataclass(frozen=True)
class Turn(Figure):
    """One decoder in one round; a sample is a clip: the frames of one request.

    Attributes:
        frames_per_second: Unique frames delivered per second.
        memory_mib: Largest resident memory of its process, above what the process had before the decoder was imported.
        decoder_load: Load of the GPU's video decoder while it ran, 0 to 1; None where it cannot be read.
    """

    frames_per_second: float
    memory_mib: float
    decoder_load: float | None = None


class Runner:
    """Runs one decoder, in this process.

    Args:
        kind: The decoder.
        job: What it is told.
    """

    def __init__(self, kind: type[Decoder], job: Job) -> None:
        self.kind, self.job = kind, job
        self.device = torch.device(job.device if kind.where == "cuda" else "cpu")
        torch.set_num_threads(1)
        self.decoder: Decoder | None = None
        reset_peak_memory()
        self.before = peak_memory()

    def open(self) -> str | None:
        """Import and open the decoder.

        Returns:
            Why it cannot run here, or None.
        """
        reason = self.kind.missing(self.job)
        if reason is None:
            self.decoder = self.kind(self.job)
        return reason

    def deliver(self, numbers: Sequence[int], size: int) -> list[tuple[list[int], NDArray[np.uint8]]]:
        """Have requests decoded.

        Args:
            numbers: Of the requests in the job.
            size: Side of the pictures returned, pixels.

        Returns:
            For each request, frame numbers and ``(N, size, size, 3)`` pictures: the centre square, shrunk.

        Raises:
            ValueError: If frames are missing, or have another shape or type than asked for.
        """
        assert self.decoder is not None
        step = self.job.batch_size
        batches = [list(numbers[at : at + step]) for at in range(0, len(numbers), step)]
        small = []
        for batch, samples in zip(batches, self.decoder.epoch(batches), strict=True):
            for number, parts in zip(batch, samples, strict=True):
                small.append(self._shrunk(number, [(list(which), on_host(frames)) for which, frames in parts], size))
        return small

    def turn(self, batches: Sequence[Sequence[int]], lead: int) -> Turn:
        """Time one round, as `bench.measure.rounds.time_epoch` does."""
        assert self.decoder is not None
        reset_peak_memory()
        figure = time_epoch(self.decoder, batches, lead=lead, device=self.device)
        frames = sum(len(self.job.requests[number].unique) for batch in batches for number in batch)
        memory = max(0.0, peak_memory() - self.before) / MIB
        return Turn(**vars(figure), frames_per_second=frames / figure.seconds, memory_mib=memory)

    def _shrunk(
        self, number: int, parts: list[tuple[list[int], NDArray[Any]]], size: int
    ) -> tuple[list[int], NDArray[np.uint8]]:
        request = self.job.requests[number]
        name = Path(request.path).name
        for which, frames in parts:
            expected = (len(which), request.height, request.width, 3)
            if frames.shape != expected or frames.dtype != np.uint8:
                raise ValueError(f"{frames.dtype} {frames.shape} instead of uint8 {expected} of {name}")
        which = [frame for part, _ in parts for frame in part]
        if sorted(set(which)) != request.unique:
            raise ValueError(f"{len(set(which))} frames instead of {len(request.unique)} of {name}")
        return which, np.stack([shrink(picture, size, [RESIZES[WAY]])[0] for _, frames in parts for picture in frames])


def on_host(frames: Any) -> NDArray[Any]:
    """An array of whatever library, on CPU or GPU, as NumPy has it."""
    if isinstance(frames, np.ndarray):
        return frames
    tensor = frames if isinstance(frames, torch.Tensor) else torch.from_dlpack(frames)
    return tensor.cpu().numpy()


def reset_peak_memory() -> None:
    """Make Linux forget the peak so far (proc_pid_clear_refs(5)); where it may not, the peak stays."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> float:
    """Largest resident memory of this process since the last reset, bytes."""
    with suppress(OSError):
        found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
        if found:
            return int(found[1]) * 1024.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
