"""The whole loader, the training step, and both together: the upper rungs of `python -m bench stages`."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from ascnet.build import open_clips
from ascnet.config import Config
from ascnet.retrieval import Loader, LookAhead
from bench.measure.processes import cpu_seconds
from bench.stages.rung import Batches, Pass, Rung, Work
from bench.stages.trainer import Held, Trainer
from bench.verdict import Meter, Observed, Reading, observe
from bench.verdict.meter import stream_of
from dali_pipes import ClipBatch, Corpus, SpeedLoader
from dali_pipes.stages import StageTime, StageTimes, stage

# Batches that a step is timed over in a round: training is slow on a CPU, and its steps are all alike.
STEPS = {"cpu": 3, "cuda": 24}
# Batches made before, which the step alone is fed with.
HELD = 2


@dataclass(frozen=True, kw_only=True)
class FullPass(Pass):
    """A pass of the whole loader, with what its clocks counted meanwhile.

    Attributes:
        reading: Of the meter.
        observed: What a sample asked of each stage.
        waited: Seconds in which the caller waited for batches.
        starved: Seconds in which the graph waited for samples.
        idle: Seconds in which the graph had nothing to do.
        begun, ended: When, by `time.perf_counter`.
    """

    reading: Reading
    observed: Observed
    waited: float
    starved: float
    idle: float
    begun: float
    ended: float


class Watch:
    """Watches a loader from its making to `done`; the device is waited for at both ends."""

    def __init__(self, loader: SpeedLoader, device: torch.device, calling: StageTimes | None = None) -> None:
        """
        Args:
            loader: At work, its first batches delivered.
            device: That it delivers to.
            calling: Clocks of the calling thread, "fetch" and "step"; None: it does nothing but take batches.
        """
        self._loader, self._device, self._calling = loader, device, calling
        self._meter = Meter(loader)
        settle(device)
        self._earlier = {} if calling is None else calling.snapshot()
        self._stats = _waits(loader)
        self._meter.start()
        self._begun = time.perf_counter()

    def done(self, samples: int) -> FullPass:
        """What so many samples took."""
        settle(self._device)
        ended = time.perf_counter()
        reading = self._meter.stop()
        calling = None
        if self._calling is not None:
            calling = {n: spent - self._earlier.get(n, StageTime()) for n, spent in self._calling.snapshot().items()}
        waited, starved, idle = (now - then for now, then in zip(_waits(self._loader), self._stats, strict=True))
        return FullPass(
            samples=samples,
            seconds=ended - self._begun,
            cpu=reading.cpu,
            reading=reading,
            observed=observe(reading, self._loader, samples=samples, calling=calling),
            waited=waited,
            starved=starved,
            idle=idle,
            begun=self._begun,
            ended=ended,
        )


class FullLoader(Rung):
    """SpeedLoader as training uses it, nobody behind it."""

    name, about = "loader", "SpeedLoader: all of it together, without a training step"

    def __init__(self, work: Work, config: Config) -> None:
        super().__init__(work)
        self.loader = open_loader(config, work.corpus, work.device)
        self.lead = lead(config)

    def run(self, batches: Batches) -> Pass:
        stream = endless(self.loader, batches, self.lead)
        for _ in range(self.lead):
            next(stream)
        watch = Watch(self.loader, self.work.device)
        for _ in batches:
            next(stream)
        done = watch.done(sum(map(len, batches)))
        empty(self.loader)
        return done

    def close(self) -> None:
        self.loader.close()


class Training:
    """What the two rungs with a training step share: the model, and clips that lie on the device."""

    def __init__(self, work: Work, config: Config) -> None:
        self.work, self.config = work, config

    @cached_property
    def trainer(self) -> Trainer:
        """Made when it is first needed."""
        return Trainer(self.config, self.work.corpus, self.work.device)

    @cached_property
    def held(self) -> Held:
        """Clips for the step alone, and in both rungs for the positives."""
        with open_loader(self.config, self.work.corpus, self.work.device) as loader:
            return Held(list(itertools.islice(loader, HELD)), loader.sampler)

    def ahead(self, loader: Loader) -> LookAhead:
        """Where steps take their batches from. Positives, where there are any, are on the device already: in training
        they come from a stream of their own, with threads of its own."""
        return self.trainer.ahead(loader, self.held if self.config.gamma else None)


class StepAlone(Rung):
    """The training step on batches that lie on the device."""

    name, about = "step", "the training step, on batches that are on the device already"

    def __init__(self, work: Work, training: Training) -> None:
        super().__init__(work)
        self._training = training
        self._ahead: LookAhead | None = None

    def run(self, batches: Batches) -> Pass:
        trainer = self._training.trainer
        if self._ahead is None:
            self._ahead = self._training.ahead(self._training.held)
            trainer.steps(self._ahead, 1)
        count = min(len(batches), STEPS[self.work.device.type])
        cpu, begun = cpu_seconds(), time.perf_counter()
        trainer.steps(self._ahead, count)
        seconds = time.perf_counter() - begun
        return Pass(count * self.work.batch_size, seconds, cpu_seconds() - cpu)

    def close(self) -> None:
        self._ahead = None


class LoaderAndStep(Rung):
    """The training step on what the loader brings."""

    name, about = "loader + step", "the training step on what the loader brings"

    def __init__(self, work: Work, training: Training) -> None:
        super().__init__(work)
        self._training = training
        self.loader = open_loader(training.config, work.corpus, work.device)
        self.lead = lead(training.config)

    def run(self, batches: Batches) -> Pass:
        trainer, calling = self._training.trainer, StageTimes()
        chosen = batches[: STEPS[self.work.device.type]]
        ahead = self._training.ahead(_Fetched(self.loader, chosen, self.lead))
        trainer.steps(ahead, self.lead)
        watch = Watch(self.loader, self.work.device, calling)
        with calling.follow("step"):
            trainer.steps(ahead, len(chosen))
        done = watch.done(sum(map(len, chosen)))
        empty(self.loader)
        return done

    def close(self) -> None:
        self.loader.close()


class _Fetched:
    """The loader from some batches on, over the ends of epochs; waiting for it has a clock of its own."""

    def __init__(self, loader: SpeedLoader, batches: Batches, lead: int) -> None:
        self._loader, self._batches, self._lead = loader, batches, lead
        self.sampler = loader.sampler
        self.state_dict, self.load_state_dict, self.close = loader.state_dict, loader.load_state_dict, loader.close

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[ClipBatch]:
        stream = endless(self._loader, self._batches, self._lead)
        while True:
            with stage("fetch"):
                batch = next(stream)
            yield batch


def open_loader(config: Config, corpus: Corpus, device: torch.device) -> SpeedLoader:
    """The loader of a configuration, without a stream of positives."""
    loader, _ = open_clips(replace(config, gamma=0.0), corpus, device)
    assert isinstance(loader, SpeedLoader)
    return loader


def lead(config: Config) -> int:
    """Batches before the clock starts: as many as are on the way at a time, so that both ends see as much of them."""
    return config.data.prefetch + 1


def endless(loader: SpeedLoader, batches: Batches, lead: int) -> Iterator[ClipBatch]:
    """So many batches of the epoch before, then those given, then what follows, without an end."""
    epoch, size = batches[0][0].key.epoch, loader.batch_size * loader.world_size
    place = max(0, len(loader) - lead) * size
    loader.load_state_dict({**loader.state_dict(), "epoch": epoch - 1, "position": place})
    while True:
        yield from loader


def empty(loader: SpeedLoader) -> None:
    """Wait for what is on the way and drop it: else its workers would be busy while the next rung is timed."""
    stream_of(loader).discard()


def settle(device: torch.device) -> None:
    """Wait for the device to have done all that it was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _waits(loader: SpeedLoader) -> tuple[float, float, float]:
    return loader.stats.waited, loader.stats.starved, loader.stats.idle
