"""What a result has on the page: sentences, charts, tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.page.tables import Table


@dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes:
        title: Plain text above it.
        alt: The same in words, for who does not see it.
        spec: Vega-Lite, without a width, with names of colours (see `bench.page.charts.PALETTES`).
        small: Whether several fit beside each other.
    """

    title: str
    alt: str
    spec: Mapping[str, Any]
    small: bool = False


@dataclass
class Part:
    """Content of one section, shown in this order."""

    sentences: list[str] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Ratio:
    """Ours over a peer, in one setting.

    Attributes:
        benchmark: The command.
        corpus: What was measured on, as people call it.
        window: Setting within the result; "" where there is one.
        peer: Candidate.
        value: Median, low, high; None where it was not timed.
        reason: Why not: wrong frames, or missing.
    """

    benchmark: str
    corpus: str
    window: str
    peer: str
    value: Mapping[str, Any] | None
    reason: str = ""


def listed(values: Sequence[str]) -> str:
    """Words one after another: "a, b and c"."""
    return values[0] if len(values) == 1 else f"{', '.join(values[:-1])} and {values[-1]}" if values else ""
