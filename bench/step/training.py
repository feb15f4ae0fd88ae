"""A real training, put together as `ascnet.pretrain` does, that is driven step by step."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ascnet import ema, optim
from ascnet.build import open_clips, run_length
from ascnet.parallel.distributed import World
from ascnet.retrieval import DIRECTIONS, LookAhead, PositiveSearch, Rows
from ascnet.training.train_step import TrainStep
from bench.step.replay import KeepingLoader, KeepingStream, ReplayLoader, ReplayStream

if TYPE_CHECKING:
    from ascnet.bank.shards import Bank
    from ascnet.config import Config
    from ascnet.retrieval import Loader, Stream
    from dali_pipes import Corpus

# Steps of a look-ahead that never ends.
ENDLESS = 1 << 60


class Training:
    """Model, optimiser, bank and look-ahead of one run; every call makes a step.

    Attributes:
        clips: Clips that have gone through a step so far, positives included.
        device: Where it computes.
        loss: Of the last step; on the device.
    """

    def __init__(
        self, config: Config, corpus: Corpus, loader: Loader, stream: Stream | None, device: torch.device, depth: int
    ) -> None:
        """
        Args:
            config: All settings but the look-ahead.
            corpus: The videos.
            loader: Gives pairs; left to the caller to close, like the stream.
            stream: Gives positives; None leaves them out.
            device: Where to compute.
            depth: Look-ahead, steps.
        """
        self.clips, self.device, self.loss = 0, device, torch.zeros(())
        self._config, self._step = config, 0
        world = World(device)
        # Every training of a comparison begins with the same weights.
        self._train = TrainStep.fresh(config, corpus, world)
        bank, videos = self._train.bank, usable(loader)
        fill(bank, videos, config.seed)
        self._peak = optim.peak_rate(config.optim, config.data.batch_size)
        self._total = run_length(config, len(loader))
        self._warmup = round(config.optim.warmup_epochs * len(loader))
        self._ahead = LookAhead(
            loader,
            stream,
            self._train.appearance_target,
            AnyVideo(bank, config, world, videos),
            depth=depth,
            total=ENDLESS,
            symmetric=config.symmetric,
            parts=config.optim.accumulate,
            world=world,
        )

    @property
    def waited(self) -> float:
        """Seconds spent waiting for clips so far."""
        return self._ahead.waited

    def __call__(self) -> None:
        """One step."""
        item = self._ahead.next()
        config, at = self._config, min(self._step, self._total)
        rate = optim.rate_at(
            at, self._total, self._warmup, self._peak, config.optim.final_lr_ratio, config.optim.warmup_start
        )
        for group in self._train.optimizer.param_groups:
            group["lr"] = rate
        outcome = self._train(
            item, self._ahead, ema.momentum_at(at, self._total, config.ema.momentum, config.ema.final)
        )
        self._step += 1
        self.loss = outcome.values["loss"]
        self.clips += 2 * len(item.videos) + sum(int((rows >= 0).sum()) for rows in item.chosen)


class Supply:
    """The loader and the stream of positives with nobody behind them: what they give when they have all to themselves.

    Attributes:
        clips: Clips delivered so far.
        device: Where they are delivered.
    """

    def __init__(
        self, config: Config, corpus: Corpus, loader: Loader, stream: Stream | None, device: torch.device, depth: int
    ) -> None:
        """The arguments of `Training`."""
        self.clips, self.device = 0, device
        self._directions = len(DIRECTIONS) if config.symmetric else 1
        world = World(device)
        nothing = torch.zeros(config.data.batch_size, 1)
        self._ahead = LookAhead(
            loader,
            stream,
            lambda clips: nothing,
            AnyVideo(None, config, world, usable(loader)),
            depth=depth,
            total=ENDLESS,
            symmetric=config.symmetric,
            world=world,
        )

    @property
    def waited(self) -> float:
        """Seconds spent waiting for clips so far."""
        return self._ahead.waited

    def __call__(self) -> None:
        """Takes the clips of one step."""
        item = self._ahead.next()
        for direction in range(self._directions):
            self._ahead.collect(item, direction)
        self.clips += 2 * len(item.videos) + sum(int((rows >= 0).sum()) for rows in item.chosen)


class AnyVideo(PositiveSearch):
    """The search of the bank as in training, and random videos in place of what it finds.

    A network without training shows nearly the same to all samples, so that one video would be chosen for most of them,
    and be decoded from memory. Trained ones choose different ones.
    """

    def __init__(self, bank: Bank | None, config: Config, world: World, videos: Rows) -> None:
        """
        Args:
            bank: Searched each time; None: not at all.
            config: The settings.
            world: This process.
            videos: Rows to choose from.
        """
        if bank is not None:
            super().__init__(bank, config.retrieval, config.seed, world)
        self._searched, self._videos, self._key = bank is not None, videos, config.seed

    def __call__(self, a_j: Tensor, videos: Sequence[int], epoch: int, positions: Sequence[int], role: int) -> Rows:
        """Videos (B,), by epoch and position alone: the same for every training of the same batches."""
        if self._searched:
            super().__call__(a_j, videos, epoch, positions, role)
        chosen = np.full(len(videos), -1, np.int64)
        for place, (video, position) in enumerate(zip(videos, positions, strict=True)):
            draws = np.random.default_rng([self._key, epoch, position, role])
            pick = self._videos[draws.integers(len(self._videos))]
            # One more is as random as this one, and another video wherever there are two.
            chosen[place] = pick if pick != video else self._videos[draws.integers(len(self._videos))]
        return chosen


class Opener:
    """Opens loaders of one configuration, keeps the first batches, and closes all in the end."""

    def __init__(self, config: Config, corpus: Corpus, device: torch.device, keep: int, stack: ExitStack) -> None:
        self._config, self._corpus, self._device, self._keep, self._stack = config, corpus, device, keep, stack
        self._first: KeepingLoader | None = None
        self._positives: KeepingStream | None = None

    def open(self) -> tuple[Loader, Stream | None]:
        """A loader and a stream of their own; the first time, ones that keep batches for `replay`."""
        loader, stream = open_clips(self._config, self._corpus, self._device)
        self._stack.callback(loader.close)
        if stream is not None:
            self._stack.callback(stream.close)
        if self._first is not None:
            return loader, stream
        self._first = KeepingLoader(loader, self._keep)
        if stream is None:
            return self._first, None
        self._positives = KeepingStream(stream, self._keep * (len(DIRECTIONS) if self._config.symmetric else 1))
        return self._first, self._positives

    def replay(self) -> tuple[Loader, Stream | None]:
        """What was kept, again and again; the first training must have made at least one step."""
        assert self._first is not None
        positives = None if self._positives is None else ReplayStream(self._positives.kept)
        return ReplayLoader(self._first.kept, self._first), positives


def usable(loader: Loader) -> Rows:
    """Rows of the videos that a loader draws from."""
    return np.asarray(loader.sampler.videos, np.int64)  # type: ignore[attr-defined]


def fill(bank: Bank, videos: Rows, seed: int) -> None:
    """Random features for these videos: as after a first epoch, every sample finds a positive."""
    draws = torch.Generator().manual_seed(seed)
    for start in range(0, len(videos), 1 << 16):
        rows = torch.as_tensor(videos[start : start + (1 << 16)])
        features = torch.randn(len(rows), bank.features.shape[1], generator=draws)
        bank.update(rows, F.normalize(features, dim=1))
