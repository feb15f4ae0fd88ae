"""Tables of a page, and how numbers are written in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

Kind = Literal["", "ours", "wrong", "missing"]


@dataclass(frozen=True)
class Row:
    """Cells as plain text, and whose they are."""

    cells: Sequence[str]
    kind: Kind = ""


@dataclass(frozen=True)
class Table:
    """A table; all of it plain text.

    Attributes:
        caption: What it shows.
        head: Names of the columns.
        rows: As many cells each.
        words: Columns that are text and not numbers, which stand on the left.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Row]
    words: Sequence[int] = (0,)

    def html(self) -> str:
        """The table in a box of its own, which scrolls sideways where the table is wider than the page."""

        def place(number: int) -> str:
            return "" if number in self.words else ' class="number"'

        head = "".join(f'<th scope="col"{place(n)}>{escape(text)}</th>' for n, text in enumerate(self.head))
        rows = []
        for row in self.rows:
            cells = [f'<th scope="row">{escape(row.cells[0])}</th>']
            cells += [f"<td{place(n)}>{escape(text)}</td>" for n, text in enumerate(row.cells) if n]
            rows.append(f'<tr class="{row.kind}">{"".join(cells)}</tr>' if row.kind else f"<tr>{''.join(cells)}</tr>")
        caption = escape(self.caption)
        # Reachable by the keyboard, or what lies beyond the edge could not be scrolled to without a mouse.
        return (
            f'<div class="scroll" role="region" tabindex="0" aria-label="{caption}"><table><caption>{caption}</caption>'
            f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        )


def short(value: float) -> str:
    """A number with three digits that count, as people write it."""
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    if size >= 100:
        return f"{value:.0f}"
    if size >= 10:
        return f"{value:.1f}"
    if size >= 1:
        return f"{value:.2f}"
    # With the zeros at the end, so that columns line up.
    return f"{value:#.3g}" if size else "0"


def interval(known: Mapping[str, Any] | None, unit: str = "") -> str:
    """A median with its interval; of a single measurement, only the value."""
    if not known or known.get("median") is None:
        return "-"
    median, low, high = (float(known[key]) for key in ("median", "low", "high"))
    if known.get("count") == 1 or low == high:
        return f"{short(median)}{unit}"
    return f"{short(median)}{unit} [{short(low)}, {short(high)}]"


def times(value: float) -> str:
    """A ratio: "1.26x", "12x"."""
    return f"{value:.0f}x" if value >= 20 else f"{value:.1f}x" if value >= 10 else f"{value:.2f}x"
