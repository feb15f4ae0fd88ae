"""The verdict in plain sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from bench.verdict.model import CORES, WINDOW, Change, Observed, Pool, Stage, bounds, demand, predict, stages_of

if TYPE_CHECKING:
    from bench.verdict.judge import Verdict

CALLED = {
    "plan": "planning the frames",
    "read": "reading from storage",
    "cut": "cutting packets",
    "decode": "decoding",
    "graph": "the graph (speed, crops, colours; decoding where DALI decodes)",
    "augment": "augmentation",
    "copy": "copying to torch or the device",
    "step": "the training step",
    "fetch": "making batches in the calling thread",
    "workers": "the loader's workers",
    "loader": "the loader",
    "other": "everything else in the process",
}
# A prediction that differs by less from what is measured anyway is not worth a sentence.
WORTH = 1.05
# Below this share of the lowest bound the clocks do not tell all.
EXPLAINED = 0.75
MOST_THREADS = 256


def sentences(observed: Observed, verdict: Verdict) -> Iterator[str]:
    """What binds, what it costs, what would bind next, and which setting changes it by how much."""
    yield _binds(observed, verdict)
    yield from _next(observed, verdict)
    yield from _settings(observed, verdict)
    if observed.ready is not None:
        yield f"A batch was ready at {observed.ready:.0%} of the calls for one."
    if verdict.explained < EXPLAINED:
        yield from _unexplained(observed, verdict)
    for name, rate in verdict.alternatives.items():
        yield f"{name}: {rate:.3g} samples/s, {_times(rate, observed.rate)}."


def called(stage: str) -> str:
    """What a stage does, in words."""
    return CALLED.get(stage, stage)


def _binds(observed: Observed, verdict: Verdict) -> str:
    stage = observed.stage(verdict.stage)
    much = f"{observed.rate:.3g} samples/s"
    if verdict.resource == CORES:
        whole = sum(one.on_cores for one in observed.stages)
        return (
            f"The cores bind at {much}: {observed.cores:.1f} can be had and a sample takes {_ms(whole)} of CPU time, "
            f"most of it {called(stage.name)} ({_ms(stage.on_cores)})."
        )
    if verdict.resource == WINDOW:
        few = f"{observed.in_flight:.3g}" if observed.in_flight is not None else "few"
        return (
            f"Too few batches on the way bind at {much}: with {few} the stages wait for one another; the longest is "
            f"{called(stage.name)} ({_ms(demand(observed, stage, WINDOW))} a sample)."
        )
    if stage.name == "step":
        return f"The data are not the limit: the training step is, at {much} ({_ms(stage.held)} a sample{_why(stage)})."
    pool = observed.pool(verdict.resource)
    held = sum(one.held for one in stages_of(observed, pool.name))
    most = f"{called(stage.name)} takes {_ms(stage.held)} of the {_ms(held)}" if held > stage.held else "all of it"
    return (
        f"{called(stage.name).capitalize()} binds at {much}: a sample holds {_one_of(pool)} for {_ms(held)}; "
        f"{most}{_why(stage)}."
    )


def _next(observed: Observed, verdict: Verdict) -> Iterator[str]:
    if verdict.without is None or verdict.loss is None:
        yield f"Nothing besides {called(verdict.stage)} takes any time that was measured."
        return
    then = f"{called(verdict.next_stage)} would bind next{_on(observed, verdict.next_resource)}"
    lost = "" if verdict.stage == "step" else f", so {verdict.loss:.0%} of the rate is lost to it"
    yield f"If {called(verdict.stage)} took no time: {verdict.without:.3g} samples/s{lost}; {then}."


def _settings(observed: Observed, verdict: Verdict) -> Iterator[str]:
    if verdict.resource == CORES:
        yield from _tell(observed, Change("Twice the cores", cores=2 * observed.cores))
    elif verdict.resource == WINDOW and observed.window and observed.in_flight is not None:
        yield from _tell(observed, Change(f"{observed.window} higher by one", in_flight=observed.in_flight + 1))
    for pool in observed.pools:
        if not pool.setting:
            continue
        if pool.name == verdict.resource:
            number = _enough(observed, pool)
            name = f"{pool.setting}={number} instead of {pool.threads}"
            yield from _tell(observed, Change(name, threads={pool.name: number}))
        else:
            yield from _spare(observed, verdict, pool)


def _enough(observed: Observed, pool: Pool) -> int:
    """The fewest threads that lift the rate nearly as far as threads can."""
    most = predict(observed, Change(threads={pool.name: MOST_THREADS}))
    numbers = range(pool.threads, MOST_THREADS)
    return next((n for n in numbers if predict(observed, Change(threads={pool.name: n})) >= 0.97 * most), MOST_THREADS)


def _spare(observed: Observed, verdict: Verdict, pool: Pool) -> Iterator[str]:
    """More threads do not help a pool that does not bind; perhaps fewer would do."""
    if pool.name not in verdict.bounds:
        return
    limit = verdict.bounds[verdict.resource]
    # A fifth more than is needed, since samples differ.
    fewest = max(1, math.ceil(1.2 * limit * pool.threads / verdict.bounds[pool.name]))
    change = Change(threads={pool.name: fewest})
    if fewest < pool.threads and min(bounds(change.of(observed)).values()) >= 0.99 * limit:
        yield f"More {pool.setting} than {pool.threads} would not help; {fewest} would do."
    elif verdict.resource == CORES:
        yield f"More {pool.setting} than {pool.threads} would not help: there are no cores for them."


def _tell(observed: Observed, change: Change) -> Iterator[str]:
    rate = predict(observed, change)
    if math.isfinite(rate) and rate >= WORTH * observed.rate:
        yield f"{change.name}: {rate:.3g} samples/s, {_times(rate, observed.rate)}."


def _unexplained(observed: Observed, verdict: Verdict) -> Iterator[str]:
    text = f"Only {verdict.explained:.0%} of what the clocks allow is reached: what the rest waits for no clock tells"
    if observed.window and observed.ready is not None and observed.ready < 0.9:
        yield f"{text}, such as samples that take unequally long; a higher {observed.window} evens them out."
    else:
        yield f"{text}."


def _why(stage: Stage) -> str:
    """What a thread does in a stage, where it is mostly one thing."""
    if stage.held <= 0:
        return ""
    if stage.helpers > 0.3 * stage.held:
        return ", other threads of it computing"
    if stage.blocked > 0.7 * stage.held:
        return ", waiting and not computing"
    if stage.queued > 0.3 * stage.held:
        return ", much of it waiting for cores that other programs have"
    return ", computing" if stage.cpu > 0.7 * stage.held else ""


def _one_of(pool: Pool) -> str:
    return f"one of the {pool.threads} {pool.name}" if pool.threads > 1 else f"the one thread of '{pool.name}'"


def _on(observed: Observed, resource: str) -> str:
    if resource == CORES:
        return f", on the {observed.cores:.1f} cores"
    return ", for too few batches on the way" if resource == WINDOW else ""


def _times(rate: float, now: float) -> str:
    return f"{rate / now:.2f} times as many"


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms"
