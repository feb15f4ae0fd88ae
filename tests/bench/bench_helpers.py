"""A candidate that decodes with PyAV, and can be told to make mistakes, for the tests of bench."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np
import torch

from bench.measure.plan import Request, draw
from bench.measure.reference import shrink
from bench.peers.base import Candidate, Setting
from bench.peers.recipes import normalise

SIZE, FRAMES = 32, 4


def setting(**changes: object) -> Setting:
    usual = {"frames": FRAMES, "size": SIZE, "batch_size": 2, "workers": 1, "dtype": torch.float32,
             "device": torch.device("cpu"), "corpus": None}  # fmt: skip
    return Setting(**(usual | changes))  # type: ignore[arg-type]


class Row:
    """The columns of a corpus that a plan needs."""

    constant, rotation, width, height = True, 0, 64, 48

    def __init__(self, path: Path, frames: int) -> None:
        self.uri, self.frames = str(path), frames


def requests_of(path: Path, frames: int, count: int = 4) -> list[Request]:
    return draw([(0, Row(path, frames))], count=count, frames=FRAMES, speeds=(1, 2), window="independent", seed=0)


class Sequential(Candidate):
    """Right by construction; `late` delivers the frame that many frames later, `way` chooses the resize."""

    kind = "best"
    notes = "sequential PyAV"
    late = 0
    way = 0

    def __init__(self, requests: Sequence[Request], setting: Setting) -> None:
        self.requests, self.setting, self.closed = list(requests), setting, False
        self.asked: list[list[list[int]]] = []

    def epoch(self, batches: Sequence[Sequence[int]]) -> Iterator[torch.Tensor]:
        self.asked.append([list(batch) for batch in batches])
        for batch in batches:
            samples = torch.stack([self.sample(self.requests[number]) for number in batch])
            yield normalise(samples, self.setting.dtype, self.setting.device)

    def sample(self, request: Request) -> torch.Tensor:
        with av.open(request.path) as container:
            frames = [shrink(f.to_ndarray(format="rgb24"), SIZE)[self.way] for f in container.decode(video=0)]
        views = [[frames[min(max(n + self.late, 0), len(frames) - 1)] for n in numbers] for numbers in request.numbers]
        return torch.from_numpy(np.array(views))

    def close(self) -> None:
        self.closed = True
