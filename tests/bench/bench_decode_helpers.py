"""Decoders that are right, and ones that make every mistake there is, for the tests of `bench decode`."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from make_videos import decode_all

from bench.decoders import Decoder, Job
from bench.decoders.base import Part, ThreadedDecoder
from bench.measure.plan import Request, Window, draw
from dali_pipes import Corpus

FRAMES = 4


def job_of(
    corpus: Corpus,
    count: int = 6,
    *,
    speeds: Sequence[float] = (1, 2),
    workers: int = 2,
    window: Window = "independent",
) -> Job:
    rows = [(i, corpus[i]) for i in range(len(corpus))]
    requests = draw(rows, count=count, frames=FRAMES, speeds=speeds, window=window, seed=1)
    return Job(requests, dict(rows), FRAMES, workers, workers, "cpu")


class Slow(ThreadedDecoder):
    """Right by construction: all frames from the first on."""

    notes = "sequential PyAV"
    late = 0

    def read(self, request: Request) -> Any:
        frames = [frame.to_ndarray(format="rgb24") for frame in decode_all(request.path)]
        return np.stack([frames[min(number + self.late, len(frames) - 1)] for number in request.unique])


class Late(Slow):
    """The next frame instead of the one asked for."""

    late = 1


class Grey(Slow):
    """Without colours."""

    def read(self, request: Request) -> Any:
        return super().read(request)[..., :1]


class Together(Slow):
    """Goes on only once as many threads as there are workers are at it."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.all = threading.Barrier(job.workers)

    def read(self, request: Request) -> Any:
        self.all.wait(20)
        return super().read(request)


class Absent(Slow):
    needs = ("no_such_module_anywhere",)


class Broken(Slow):
    """Cannot be opened."""

    def __init__(self, job: Job) -> None:
        raise RuntimeError(f"first line\nno licence in {Path(job.requests[0].path)}")


class InTurns(Decoder):
    """Right in the first epoch, in which frames are compared; later it does what `misbehave` does."""

    notes = "right at first"

    def __init__(self, job: Job) -> None:
        self.right, self.epochs = Slow(job), 0

    def epoch(self, batches: Sequence[Sequence[int]]) -> Iterator[list[list[Part]]]:
        self.epochs += 1
        if self.epochs > 1:
            self.misbehave()
        return self.right.epoch(batches)

    def misbehave(self) -> None: ...

    def close(self) -> None:
        self.right.close()


class Crashes(InTurns):
    def misbehave(self) -> None:
        if self.epochs > 2:
            print("heap corrupted in /some/folder/libfoo.so", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGSEGV)


class Hangs(InTurns):
    def misbehave(self) -> None:
        time.sleep(1000)


class Stops(InTurns):
    def misbehave(self) -> None:
        raise ValueError("out of surfaces")


class Hungry(InTurns):
    """Takes 300 MiB in its second epoch alone."""

    def misbehave(self) -> None:
        if self.epochs == 2:
            np.ones(300 << 20, np.uint8)
