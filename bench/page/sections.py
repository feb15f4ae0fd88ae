"""Which drawing belongs to which benchmark."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bench.page import generic, peers, pipeline, runs, settings
from bench.page.content import Part, Ratio
from bench.page.read import Result, Unreadable

# What a file may do that has not the shape its benchmark gives. It is listed then, with what is wrong.
MALFORMED = (KeyError, TypeError, ValueError, AttributeError, IndexError, ZeroDivisionError, OverflowError)


def part_of(result: Result) -> Part | Unreadable:
    """Charts and tables of a result; why there are none where it has an odd shape."""
    try:
        if isinstance(result.data.get("windows"), Mapping) and result.benchmark in peers.SAMPLES:
            return peers.drawn(result)
        return DRAWN.get(result.benchmark, generic.drawn)(result)
    except MALFORMED as error:
        said = f"{type(error).__name__}: {error}".splitlines()[0][:160]
        return Unreadable(f"{result.name}.json", f"has not the shape of a result of `{result.benchmark}`: {said}")


def ratios_of(result: Result) -> list[Ratio]:
    """Ours over the peers in a result; [] where it compares with none."""
    try:
        if isinstance(result.data.get("windows"), Mapping) and result.benchmark in peers.SAMPLES:
            return peers.ratios(result)
        return generic.ratios(result)
    except MALFORMED:
        return []  # said by part_of


DRAWN: Mapping[str, Callable[[Result], Part]] = {
    "bank": settings.bank,
    "cache": runs.cache,
    "size": runs.size,
    "stages": pipeline.stages,
    "step": pipeline.step,
    "sweep": settings.sweep,
}
