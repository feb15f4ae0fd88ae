"""Time candidates in turns, in the steady state of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import torch

from bench.measure.figures import figure
from bench.measure.plan import in_batches
from bench.measure.processes import cpu_seconds
from bench.measure.stats import estimate, ratios

if TYPE_CHECKING:
    from bench.peers.base import Setting


class Streams(Protocol):
    """Whatever delivers batches of requests, one after the other."""

    def epoch(self, batches: Sequence[Sequence[int]]) -> Iterator[Any]: ...


Contender = TypeVar("Contender")


@dataclass(frozen=True)
class Figure:
    """One candidate in one round.

    Attributes:
        samples: Samples (pairs of clips) delivered while the clock ran.
        seconds: Wall time.
        samples_per_second: Their ratio.
        cpu_seconds_per_sample: CPU time of this process and its children, per sample.
    """

    samples: int
    seconds: float
    samples_per_second: float
    cpu_seconds_per_sample: float


@dataclass(frozen=True)
class Round:
    """All candidates over the same requests in the same order, one after another.

    Attributes:
        order: Who came first.
        figures: Candidate -> what it did.
    """

    order: list[str]
    figures: dict[str, Figure]

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def measure(
    candidates: Mapping[str, Contender],
    requests: Sequence[int],
    *,
    rounds: int,
    warmup: int,
    batch_size: int,
    lead: int,
    seed: int | Sequence[int],
    device: torch.device,
    told: Callable[[str, int, Figure], None] = lambda name, number, figure: None,
    timer: Callable[..., Figure] | None = None,
) -> list[Round]:
    """Interleaved rounds: in each, all candidates run in a new random order over one new order of the requests.

    A slow spell of the machine so meets all candidates, and ratios within a round are free of it.

    Args:
        candidates: Name -> opened candidate.
        requests: Numbers of the requests in the plan.
        rounds: Rounds that count.
        warmup: Rounds before them, measured and dropped.
        batch_size: Samples of a batch.
        lead: Batches delivered before the clock starts, and as many again after it stops.
        seed: Seed of both orders.
        device: Waited for before the clock is read.
        told: Called after each measurement with the name, the round (negative: warm-up) and the figure.
        timer: Runs and times one candidate, called as `time_epoch` is, which it is by default.
    """
    timed: Callable[..., Figure] = timer or time_epoch
    random = np.random.default_rng(seed)
    done = []
    for number in range(-warmup, rounds):
        batches = in_batches([requests[place] for place in random.permutation(len(requests))], batch_size)
        order = [list(candidates)[place] for place in random.permutation(len(candidates))]
        figures = {}
        for name in order:
            figures[name] = timed(candidates[name], batches, lead=lead, device=device)
            told(name, number, figures[name])
        if number >= 0:
            done.append(Round(order, {name: figures[name] for name in candidates}))
    return done


def lead(setting: Setting) -> int:
    """Batches in which a candidate reaches its steady state: all workers busy, all that is prepared ahead under way."""
    return max(setting.workers, setting.prefetch)


def time_epoch(candidate: Streams, batches: Sequence[Sequence[int]], *, lead: int, device: torch.device) -> Figure:
    """Time one epoch in the candidate's steady state.

    The clock runs from the delivery of batch `lead` to the delivery of batch `lead + len(batches)`; the epoch is
    preceded by its own last batches and followed by its first ones. So all workers are busy, and about as much work is
    under way, at both ends: neither the filling nor the emptying of a pipeline is counted for or against anyone.
    """
    ends = [batches[place % len(batches)] for place in range(lead)]
    whole = [*ends, *batches, *ends]
    stream = iter(candidate.epoch(whole))
    for _ in range(lead):
        next(stream)
    _wait(device)
    cpu, began = cpu_seconds(), time.perf_counter()
    for _ in batches:
        next(stream)
    _wait(device)
    seconds, spent = time.perf_counter() - began, cpu_seconds() - cpu
    # Emptied before the next candidate starts, or its workers would still be busy on the same cores.
    for _ in stream:
        pass
    samples = sum(len(batch) for batch in batches)
    return Figure(samples, seconds, samples / seconds, spent / samples)


def summarise(rounds: Sequence[Round], first: str = "ours") -> dict[str, dict[str, Any]]:
    """Medians with 95 % intervals, and the ratio of `first` to each other candidate, pair by pair within rounds.

    Returns:
        Candidate -> `samples_per_second`, `cpu_seconds_per_sample` and, for the others where `first` took part,
        `ratio_of_ours` (of samples per second; above 1: ours is quicker).
    """
    if not rounds:
        return {}
    summary: dict[str, dict[str, Any]] = {}
    rates = {name: [turn.figures[name].samples_per_second for turn in rounds] for name in rounds[0].figures}
    for name, rate in rates.items():
        spent = [turn.figures[name].cpu_seconds_per_sample for turn in rounds]
        summary[name] = {
            "samples_per_second": estimate(rate).as_dict(),
            "cpu_seconds_per_sample": estimate(spent).as_dict(),
        }
        if first in rates and name != first:
            summary[name]["ratio_of_ours"] = estimate(ratios(rates[first], rate)).as_dict()
    return summary


def figures(rounds: Sequence[Round], where: str, first: str = "ours") -> dict[str, dict[str, Any]]:
    """The same as figures of a result, each with its rounds' values, so that two results can be compared.

    Args:
        rounds: Of some candidates over the same requests.
        where: What was measured, for example "independent"; ends the names.
        first: The candidate whose ratio to each other one is given.
    """
    found: dict[str, dict[str, Any]] = {}
    if not rounds:
        return found
    rates = {name: [turn.figures[name].samples_per_second for turn in rounds] for name in rounds[0].figures}
    for name, rate in rates.items():
        spent = [turn.figures[name].cpu_seconds_per_sample for turn in rounds]
        found[f"{name} pairs/s ({where})"] = figure(rate, "pairs/s", "higher")
        found[f"{name} CPU s/pair ({where})"] = figure(spent, "s/pair", "lower")
        if first in rates and name != first:
            found[f"{first} / {name} ({where})"] = figure(ratios(rates[first], rate), "x", "higher")
    return found


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
