"""Bounds on the rate of a pipeline from what each of its stages asks of each resource.

Operational analysis: Denning & Buzen, "The operational analysis of queueing network models", ACM Computing Surveys
10(3), 1978; asymptotic bounds: Lazowska, Zahorjan, Graham & Sevcik, "Quantitative System Performance", 1984, chapter 5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

CORES = "cores"
"""Name of the resource that all stages share."""
WINDOW = "window"
"""Name of the limit on the batches under way: with too few of them the stages wait for one another."""


@dataclass(frozen=True)
class Stage:
    """What one sample asks of one stage.

    Attributes:
        name: Such as "decode".
        cpu: Seconds of the pool's own threads on a core, a sample.
        blocked: Seconds in which such a thread is held without a core, a sample: storage, a network, a device, helpers.
            Not waiting for a core.
        pool: Name of the pool whose threads run it; "": CPU time that holds none of them up.
        helpers: Seconds on a core of other threads that work for it, a sample.
        queued: Seconds in which such a thread waits for a core that another program has, a sample. Waiting for a core
            that the pipeline itself has is left out: it is the cores' bound that tells of it.
    """

    name: str
    cpu: float
    blocked: float = 0.0
    pool: str = ""
    helpers: float = 0.0
    queued: float = 0.0

    def __post_init__(self) -> None:
        for name in ("cpu", "blocked", "helpers", "queued"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"stage {self.name}: {name}={value} must be a number of seconds, 0 or more")

    @property
    def held(self) -> float:
        """Seconds that a thread of the pool is taken up by a sample, the pipeline's own other threads left aside."""
        return self.cpu + self.blocked + self.queued

    @property
    def on_cores(self) -> float:
        """Seconds on a core, a sample, of whatever thread."""
        return self.cpu + self.helpers

    def less(self, *, cpu: float = 0.0, blocked: float = 0.0) -> Stage:
        """The same with so many seconds a sample taken away (added, where negative); never below 0.

        With the CPU time goes the waiting for cores.
        """
        left = max(0.0, self.cpu - cpu)
        queued = self.queued * left / self.cpu if self.cpu > 0 else self.queued
        return replace(self, cpu=left, queued=queued, blocked=max(0.0, self.blocked - blocked))

    def scaled(self, factor: float) -> Stage:
        """The same with all of its time multiplied; 0 takes it away."""
        return replace(
            self,
            cpu=self.cpu * factor,
            blocked=self.blocked * factor,
            helpers=self.helpers * factor,
            queued=self.queued * factor,
        )


@dataclass(frozen=True)
class Pool:
    """Threads (processes, engines of a device) that take samples one at a time through all of the pool's stages.

    Attributes:
        name: As stages name it.
        threads: How many.
        setting: What the user calls that number; "": it cannot be set.
        device: Whether these are engines of a device, which work while a thread of another pool waits for them.
    """

    name: str
    threads: int
    setting: str = ""
    device: bool = False

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise ValueError(f"pool {self.name}: threads={self.threads} must be at least 1")


@dataclass(frozen=True)
class Observed:
    """A pipeline that was watched at work.

    Attributes:
        stages: What a sample asks of each.
        pools: Every pool that a stage names.
        cores: Cores that the pipeline can have beside other programs; need not be a whole number. See
            :func:`bench.verdict.machine.cores_free`.
        rate: Samples a second, measured.
        in_flight: Batches on the way at a time, the one at the consumer counted; None: enough of them.
        window: What the user calls the setting behind `in_flight`; "": none.
        ready: Share of the calls for a batch that found one ready; None: not known.
    """

    stages: tuple[Stage, ...]
    pools: tuple[Pool, ...]
    cores: float
    rate: float
    in_flight: float | None = None
    window: str = ""
    ready: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.rate) and self.rate > 0 and self.cores > 0):
            raise ValueError(f"rate={self.rate} and cores={self.cores} must be above 0")
        known = {pool.name for pool in self.pools}
        unknown = [stage.name for stage in self.stages if stage.pool and stage.pool not in known]
        if unknown:
            raise ValueError(
                f"no pool for the stages {', '.join(unknown)}; pools: {', '.join(sorted(known)) or 'none'}"
            )

    def stage(self, name: str) -> Stage:
        """The stage of that name."""
        return next(stage for stage in self.stages if stage.name == name)

    def pool(self, name: str) -> Pool:
        """The pool of that name."""
        return next(pool for pool in self.pools if pool.name == name)


@dataclass(frozen=True)
class Change:
    """What would be done differently.

    Attributes:
        name: What the user would call it.
        stages: Stages in place of those of the same names.
        threads: Pool -> number of threads.
        cores: Cores free for the pipeline; None: as observed.
        in_flight: Batches on the way; None: as observed.
    """

    name: str = ""
    stages: Sequence[Stage] = ()
    threads: Mapping[str, int] = field(default_factory=dict)
    cores: float | None = None
    in_flight: float | None = None

    def of(self, observed: Observed) -> Observed:
        """What would then be observed, but for the rate."""
        new = {stage.name: stage for stage in self.stages}
        return replace(
            observed,
            stages=tuple(new.get(stage.name, stage) for stage in observed.stages),
            pools=tuple(replace(pool, threads=self.threads.get(pool.name, pool.threads)) for pool in observed.pools),
            cores=observed.cores if self.cores is None else self.cores,
            in_flight=observed.in_flight if self.in_flight is None else self.in_flight,
        )


def bounds(observed: Observed) -> dict[str, float]:
    """The highest rate that each resource allows, samples a second; only those that are used at all.

    The cores: their number by the CPU time of a sample. A pool: its threads by the time that a sample holds one of
    them. The window: batches on the way by the time that one takes through all pools with nothing else in its way
    (Little's law); with one batch on the way the pools work one after the other.
    """
    found = {}
    on_cores = sum(stage.on_cores for stage in observed.stages)
    if on_cores > 0:
        found[CORES] = observed.cores / on_cores
    through = 0.0
    for pool in observed.pools:
        held = sum(stage.held for stage in stages_of(observed, pool.name))
        if held > 0:
            found[pool.name] = pool.threads / held
            through += 0.0 if pool.device else held / pool.threads
    if observed.in_flight is not None and through > 0:
        found[WINDOW] = observed.in_flight / through
    return found


def stages_of(observed: Observed, resource: str) -> list[Stage]:
    """The stages that use a resource."""
    if resource in (CORES, WINDOW):
        return list(observed.stages)
    return [stage for stage in observed.stages if stage.pool == resource]


def demand(observed: Observed, stage: Stage, resource: str) -> float:
    """Seconds a sample that a stage asks of a resource."""
    if resource == CORES:
        return stage.on_cores
    if resource == WINDOW:
        if not stage.pool or observed.pool(stage.pool).device:
            return 0.0
        return stage.held / observed.pool(stage.pool).threads
    return stage.held if stage.pool == resource else 0.0


def binding(observed: Observed) -> tuple[str, Stage]:
    """The resource with the lowest bound, and the stage that asks most of it.

    Raises:
        ValueError: If no stage takes any time.
    """
    found = bounds(observed)
    if not found:
        raise ValueError("no stage takes any time; nothing can bind")
    resource = min(found, key=lambda name: found[name])
    return resource, max(observed.stages, key=lambda stage: demand(observed, stage, resource))


def predict(observed: Observed, change: Change) -> float:
    """Samples a second after a change: the rate measured, in proportion to the lowest bound.

    So what the bounds leave out (bursts, the time between stages) is taken to cost the same share as before. Infinite
    if nothing that is left takes any time.
    """
    now, then = bounds(observed), bounds(change.of(observed))
    if not now:
        raise ValueError("no stage takes any time; nothing can be predicted")
    return observed.rate * min(then.values(), default=math.inf) / min(now.values())


def without(observed: Observed, name: str) -> Change:
    """The change that one stage takes no time at all."""
    return Change(f"without {name}", stages=(observed.stage(name).scaled(0.0),))
