"""What a sample asks of the stages of a loader that has no clocks: a torch DataLoader, or any iterator of batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench.verdict.meter import CONSUMER, WORKERS, Reading, busy_part, stage_from
from bench.verdict.model import Observed, Pool, Stage
from dali_pipes.stages import StageTime

LOADER = "loader"
# The two take turns if what they take together is this near to what a sample takes; else they work side by side.
_TURNS = 0.85
# From this share of the time on the calling thread is busy with making batches, not waiting for them.
_BUSY = 0.5


@dataclass(frozen=True)
class Watched:
    """A part of a profile.

    Attributes:
        samples: Samples delivered (or replayed).
        reading: What happened meanwhile.
        calling: Clocks of the calling thread: "fetch" and, where there was one, "step".
        ready: Share of the calls that found a batch ready.
    """

    samples: int
    reading: Reading
    calling: Mapping[str, StageTime]
    ready: float | None = None

    @property
    def rate(self) -> float:
        """Samples a second."""
        return self.samples / self.reading.seconds

    @property
    def cpu(self) -> float:
        """CPU seconds of a sample, children included."""
        return self.reading.cpu / self.samples

    def clock(self, name: str) -> StageTime:
        """One of the clocks; nothing where it did not run."""
        return self.calling.get(name, StageTime())


def observe_workers(whole: Watched, alone: Watched, workers: int, replayed: Watched | None) -> Observed:
    """A torch DataLoader with worker processes.

    Alone, with nobody to wait for, its workers are busy all the time, unless the calling thread is what they wait for.
    So a sample holds one of them for their number by the rate; what of that is not CPU time they are blocked.

    Args:
        whole: With the step.
        alone: Without; the same as `whole` where there is no step.
        workers: Their number.
        replayed: The step alone, if there is one.
    """
    others = alone.reading.others
    main = [spent for (process, thread), spent in alone.reading.children.items() if process == thread]
    cpu = sum(one.cpu for one in main) / alone.samples
    queued = sum(one.queued for one in main) / alone.samples
    helpers = sum(one.cpu for one in alone.reading.children.values()) / alone.samples - cpu
    fetch = alone.clock("fetch")
    calling_binds = fetch.cpu + fetch.queued > 0.8 * alone.reading.seconds
    blocked = 0.0 if calling_binds else max(0.0, workers / alone.rate - cpu - queued)
    stages = [
        Stage("workers", cpu, blocked, WORKERS, helpers=max(0.0, helpers), queued=queued * others),
        busy_part("fetch", whole.clock("fetch"), whole.samples, whole.reading.others),
    ]
    return Observed(
        stages=(*stages, *_step(whole, replayed)),
        pools=(Pool(WORKERS, workers, setting="num_workers"), Pool(CONSUMER, 1)),
        cores=whole.reading.cores_free(workers + 2),
        rate=whole.rate,
        ready=whole.ready,
    )


def observe_calling(whole: Watched, replayed: Watched | None) -> Observed:
    """A torch DataLoader without workers: the calling thread makes each batch, then does the step."""
    loader = stage_from("fetch", whole.clock("fetch"), whole.samples, pool=WORKERS, others=whole.reading.others)
    helpers = _helpers(whole, replayed)
    fetch = Stage("fetch", loader.cpu, loader.blocked, WORKERS, helpers=helpers, queued=loader.queued)
    return Observed(
        stages=(fetch, *_step(whole, replayed)),
        pools=(Pool(WORKERS, 1), Pool(CONSUMER, 1)),
        cores=whole.reading.cores_free(2),
        rate=whole.rate,
        in_flight=1,
        window="num_workers",
        ready=whole.ready,
    )


def observe_unknown(whole: Watched, alone: Watched | None, replayed: Watched | None) -> Observed:
    """Any iterator.

    What it can do it shows alone. Whether it works while the step does, the rate of both together tells (Little's law).
    An iterator that was seen only with its step is taken to work in the calling thread if most of the CPU time is
    spent there.
    """
    step = _step(whole, replayed)
    if alone is not None:
        held, cpu, queued = 1 / alone.rate, alone.cpu, _queued(alone)
    else:
        cpu = max(0.0, whole.cpu - (replayed.cpu if replayed else 0.0))
        queued = _queued(whole)
        held = whole.clock("fetch").wall / whole.samples if _in_calling_thread(whole, cpu) else 1 / whole.rate
    on_thread = min(cpu, held)
    queued = min(queued, held - on_thread)
    others = (alone or whole).reading.others
    loader = Stage(
        "loader",
        on_thread,
        held - on_thread - queued,
        LOADER,
        helpers=cpu - on_thread,
        queued=queued * others,
    )
    in_flight = None
    if step:
        both = held + step[0].held
        together = whole.rate * both
        if together * max(held, step[0].held) < _TURNS * both:
            in_flight = max(1.0, together)
    return Observed(
        stages=(loader, *step),
        pools=(Pool(LOADER, 1), Pool(CONSUMER, 1)),
        cores=whole.reading.cores_free(max(2, len(whole.reading.threads) // 2)),
        rate=whole.rate,
        in_flight=in_flight,
        ready=whole.ready,
    )


def _step(whole: Watched, replayed: Watched | None) -> list[Stage]:
    """The step as a stage; none where there is none."""
    if "step" not in whole.calling:
        return []
    step = stage_from("step", whole.clock("step"), whole.samples, pool=CONSUMER, others=whole.reading.others)
    helpers = max(0.0, replayed.cpu - step.cpu) if replayed else 0.0
    return [Stage("step", step.cpu, step.blocked, CONSUMER, helpers=helpers, queued=step.queued)]


def _helpers(whole: Watched, replayed: Watched | None) -> float:
    """CPU seconds of a sample that are neither the calling thread's nor the step's."""
    step = whole.clock("step").cpu / whole.samples
    if replayed is not None:
        step = max(step, replayed.cpu)
    return max(0.0, whole.cpu - whole.clock("fetch").cpu / whole.samples - step)


def _queued(part: Watched) -> float:
    threads = [*part.reading.threads.values(), *part.reading.children.values()]
    return sum(one.queued for one in threads) / part.samples


def _in_calling_thread(whole: Watched, cpu: float) -> bool:
    fetch = whole.clock("fetch")
    return fetch.cpu > _BUSY * fetch.wall or fetch.cpu > _BUSY * cpu * whole.samples
