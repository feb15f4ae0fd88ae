"""Tables of scores: what every format is rendered from."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any


@dataclass(frozen=True)
class Cell:
    """A score, percent.

    Attributes:
        mean: Over the runs.
        std: Sample standard deviation; None for a single run or a published number.
        runs: How many.
    """

    mean: float
    std: float | None = None
    runs: int = 1

    @classmethod
    def of(cls, values: list[float]) -> Cell:
        """Mean and sample standard deviation of some runs."""
        return cls(fmean(values), stdev(values) if len(values) > 1 else None, len(values))


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        method: What was trained, and how.
        encoder: Its architecture.
        cells: Scores by column; a column that is not here stays blank.
        published: Whether others published it.
        cards: The protocol card of each own score: `data`, `split`, `clips`, `crop`, `seeds`, `commit`, `command`, ...
    """

    method: str
    encoder: str
    cells: dict[str, Cell]
    published: bool = False
    cards: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Table:
    """Rows that may be compared with each other.

    Attributes:
        key: A short name for programs.
        title: What was scored.
        columns: Names of the scores, in their order.
        rows: Published ones first.
    """

    key: str
    title: str
    columns: tuple[str, ...]
    rows: list[Row] = field(default_factory=list)

    def numbered(self, start: int = 1) -> list[tuple[int | None, Row]]:
        """The rows with the numbers of their cards; None for a row that has none."""
        numbers = []
        for row in self.rows:
            numbers.append((start if row.cards else None, row))
            start += bool(row.cards)
        return numbers


def published_row(method: str, encoder: str, values: dict[str, float]) -> Row:
    """A row that others published."""
    return Row(method, encoder, {name: Cell(value) for name, value in values.items()}, published=True)
