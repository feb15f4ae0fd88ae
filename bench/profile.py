"""`from bench import profile_loader`: what limits anybody's iterator of batches, and what it costs."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bench.measure.figures import figure
from bench.verdict.foreign import Watched, observe_calling, observe_unknown, observe_workers
from bench.verdict.judge import Verdict, judge
from bench.verdict.meter import observe
from bench.verdict.model import Change, Observed
from bench.verdict.runner import Feed, Replay, Runner
from dali_pipes import ClipStream, SpeedLoader
from dali_pipes.errors import DataError

_BLOCKS = 10


@dataclass(frozen=True)
class Profile:
    """What was measured of a loader, and the verdict on it.

    Attributes:
        kind: What it was taken for.
        batches, samples, seconds: With the step (alone, if there is none), warm-up left out.
        rates: Samples a second over each tenth of that time.
        waiting: Share of it spent waiting for batches.
        ready: Share of the calls that found a batch ready.
        headroom: Samples a second of the step with one batch replayed: its pace if data were free. None: no step.
        alone: Samples a second of the loader without the step; None where the iterator can be gone through but once.
        cpu: CPU seconds a sample, this process and its children.
        read: Bytes read a sample, from files and sockets; None where it cannot be told.
        gpu: Load of the GPU: name -> mean, p95, max; empty without one.
        observed: What the verdict rests on.
        verdict: What binds, and what would change it.
    """

    kind: str
    batches: int
    samples: int
    seconds: float
    rates: tuple[float, ...]
    waiting: float
    ready: float | None
    headroom: float | None
    alone: float | None
    cpu: float
    read: float | None
    gpu: dict[str, dict[str, float]]
    observed: Observed
    verdict: Verdict

    @property
    def rate(self) -> float:
        """Samples a second."""
        return self.samples / self.seconds

    @property
    def lost(self) -> float | None:
        """Share of the step's own pace that is lost to data; None without a step."""
        return None if self.headroom is None else max(0.0, 1 - self.rate / self.headroom)

    def as_dict(self) -> dict[str, Any]:
        """As JSON, with `figures` as every result of bench has them."""
        figures = {
            "rate samples/s": figure(self.rates, "samples/s", "higher"),
            "waiting for batches": figure(self.waiting, "share", "lower"),
            "CPU s/sample": figure(self.cpu, "s", "lower"),
        }
        if self.headroom is not None and self.lost is not None:
            figures["step alone samples/s"] = figure(self.headroom, "samples/s", "higher")
            figures["lost to data"] = figure(self.lost, "share", "lower")
        if self.alone is not None:
            figures["loader alone samples/s"] = figure(self.alone, "samples/s", "higher")
        plain = {
            f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in ("observed", "verdict")
        }
        return {
            **plain,
            "rates": list(self.rates),
            "rate": self.rate,
            "lost": self.lost,
            "observed": dataclasses.asdict(self.observed),
            "verdict": self.verdict.as_dict(),
            "figures": figures,
        }

    def __str__(self) -> str:
        lines = [
            f"{self.rate:.4g} samples/s over {self.batches} batches in {self.seconds:.3g} s ({self.kind})",
            f"waiting for batches: {self.waiting:.0%} of the time",
            f"CPU: {1000 * self.cpu:.3g} ms a sample"
            + ("" if self.read is None else f"; read: {self.read / 1e6:.3g} MB a sample"),
        ]
        if self.headroom is not None and self.lost is not None:
            lines.append(
                f"step alone, one batch replayed: {self.headroom:.4g} samples/s; lost to data: {self.lost:.0%}"
            )
        if self.alone is not None:
            lines.append(f"loader alone: {self.alone:.4g} samples/s")
        for name, load in self.gpu.items():
            lines.append(f"{name}: mean {load['mean']:.3g}, 95 % of the time below {load['p95']:.3g}")
        return "\n".join([*lines, "", *self.verdict.sentences])


def profile_loader(
    loader: Iterable[Any],
    *,
    step: Callable[[Any], object] | None = None,
    batches: int = 50,
    warmup: int = 5,
    samples_of: Callable[[Any], int] | None = None,
    device: str | torch.device | None = None,
    source: ClipStream | SpeedLoader | None = None,
    alternatives: Sequence[Change] = (),
) -> Profile:
    """Times an iterator of batches, alone and with a training step, and says what limits it.

    With a step it goes through three parts: the step with the loader; the step over one batch again and again; and the
    loader alone. Each takes `warmup` and `batches` batches; the first and the last take them from the loader. An epoch
    that ends is followed by the next one. What can be gone through but once (a generator, an iterator) is used for the
    first part alone; if it ends early, what it gave counts.

    Args:
        loader: A SpeedLoader, a torch DataLoader, `stream.map(...)`, or whatever yields batches.
        step: What is done with a batch, such as a training step. It is really called, also with the replayed batch.
        batches: Batches timed in each part.
        warmup: Batches before them.
        samples_of: Samples of a batch; None: the first dimension of the first tensor or array found in it.
        device: The GPU that the step uses; each step is waited for. None: the device of the first tensor in the batch.
        source: The stream behind a generator made by `ClipStream.map`, for its clocks.
        alternatives: Changes to predict, see :class:`bench.verdict.Change`.

    Raises:
        DataError: If `batches` or `warmup` is out of range, there are too few batches, or no samples can be counted.

    Example:
        >>> print(profile_loader(loader, step=train_step, batches=50))   # doctest: +SKIP
    """
    if batches < 1 or warmup < 0:
        raise DataError(f"batches={batches}, warmup={warmup}: there must be 1 batch or more and no negative warm-up")
    if source is None and isinstance(loader, SpeedLoader):
        source = loader
    feed = Feed(loader)
    # What it gives is not lost to a training that goes on with the same loader.
    place = loader.state_dict() if isinstance(loader, SpeedLoader) else None
    try:
        run = Runner(step, batches, warmup, samples_of, device)
        whole, stamps, begun = run.over(feed, source)
        replayed = alone = None
        if step is not None:
            feed.leave()
            replayed = run.over(Replay(run.last), None)[0]
            if not feed.once:
                alone = run.without_step().over(feed, None)[0]
        load = run.load(begun, begun + whole.reading.seconds)
    finally:
        feed.leave()
        run.close()
        if place is not None and isinstance(loader, SpeedLoader):
            loader.load_state_dict(place)
    kind, observed = _observed(loader, source, whole, replayed, alone)
    return Profile(
        kind=kind,
        batches=len(stamps) - 1,
        samples=whole.samples,
        seconds=whole.reading.seconds,
        rates=_rates(stamps),
        waiting=whole.clock("fetch").wall / whole.reading.seconds,
        ready=observed.ready,
        headroom=None if replayed is None else replayed.rate,
        alone=whole.rate if step is None else None if alone is None else alone.rate,
        cpu=whole.cpu,
        read=None if whole.reading.read is None else whole.reading.read / whole.samples,
        gpu=load,
        observed=observed,
        verdict=judge(observed, alternatives),
    )


def _observed(
    loader: Iterable[Any],
    source: ClipStream | SpeedLoader | None,
    whole: Watched,
    replayed: Watched | None,
    alone: Watched | None,
) -> tuple[str, Observed]:
    """What it was taken for, and what the verdict rests on."""
    if source is not None:
        return "dali_pipes", observe(whole.reading, source, samples=whole.samples, calling=whole.calling)
    if isinstance(loader, torch.utils.data.DataLoader):
        if loader.num_workers:
            kind = f"torch DataLoader, {loader.num_workers} workers"
            return kind, observe_workers(whole, alone or whole, loader.num_workers, replayed)
        return "torch DataLoader without workers", observe_calling(whole, replayed)
    with_step = "step" in whole.calling
    return "an iterator", observe_unknown(whole, alone if with_step else whole, replayed)


def _rates(stamps: Sequence[tuple[float, int]]) -> tuple[float, ...]:
    """Samples a second over consecutive runs of batches."""
    edges = np.unique(np.linspace(0, len(stamps) - 1, min(_BLOCKS, len(stamps) - 1) + 1).round().astype(int))
    pairs = [(stamps[a], stamps[b]) for a, b in itertools.pairwise(edges)]
    return tuple((b[1] - a[1]) / max(b[0] - a[0], 1e-9) for a, b in pairs)
