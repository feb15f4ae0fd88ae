"""A real training step, fed by whom one likes: by a loader, or again and again with batches that are there already."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from ascnet.config import Config
from ascnet.parallel.distributed import World
from ascnet.retrieval import Loader, LookAhead, PositiveSearch, Stream
from ascnet.training.train_step import TrainStep
from dali_pipes import ClipBatch, ClipRequest, Corpus

# Steps in a run that never ends: schedules hardly move, and batches never run out.
ENDLESS = 10**9


class Trainer:
    """Model, optimiser and memory bank of a configuration; `steps` trains on."""

    def __init__(self, config: Config, corpus: Corpus, device: torch.device) -> None:
        self.config, self.world = config, World(device)
        self._train = TrainStep.fresh(config, corpus, self.world)
        for group in self._train.optimizer.param_groups:
            # What is learnt is of no interest; a rate of 0 would spare some optimisers their work.
            group["lr"] = 1e-6
        self.bank = self._train.bank

    def ahead(self, loader: Loader, stream: Stream | None) -> LookAhead:
        """Where the steps take their batches and positives from."""
        config = self.config
        return LookAhead(
            loader,
            stream,
            self._train.appearance_target,
            PositiveSearch(self.bank, config.retrieval, config.seed, self.world),
            depth=config.retrieval.lookahead,
            total=ENDLESS,
            symmetric=config.symmetric,
            parts=config.optim.accumulate,
            world=self.world,
        )

    def steps(self, ahead: LookAhead, count: int) -> None:
        """Make so many steps, and wait for the device to have done them."""
        for _ in range(count):
            self._train(ahead.next(), ahead, self.config.ema.momentum)
        if self.world.device.type == "cuda":
            torch.cuda.synchronize(self.world.device)


class Held:
    """A loader, and a stream of positives, whose clips lie on the device already."""

    def __init__(self, batches: Sequence[ClipBatch], sampler: Any) -> None:
        """
        Args:
            batches: Handed out again and again.
            sampler: Makes the requests of positives.
        """
        self.sampler = sampler
        self._batches = list(batches)
        self._asked: list[list[ClipRequest]] = []

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[ClipBatch]:
        return itertools.cycle(self._batches)

    def submit(self, requests: list[ClipRequest]) -> None:
        """Ask for positives."""
        self._asked.append(requests)

    def get(self) -> ClipBatch:
        """As many clips as were asked for, of whatever video: their pictures do not change what a step costs."""
        requests = self._asked.pop(0)
        first = self._batches[0]
        return replace(first, clips=first.clips[: len(requests), :1], requests=tuple(requests))

    def state_dict(self) -> dict[str, Any]:
        """Nothing to be kept."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to be taken up."""

    def close(self) -> None:
        """Nothing to be stopped."""
