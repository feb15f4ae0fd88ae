"""Tables of scores as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ascnet.report.render import card_text
from ascnet.report.table import Cell, Table


def html(tables: Sequence[Table]) -> str:
    """The tables, each own row's protocol card below it, folded up."""
    parts = []
    for table in tables:
        heads = "".join(f'<th class="number" scope="col">{escape(name)}</th>' for name in table.columns)
        lines, cards = [], []
        for mark, row in table.numbered():
            cells = "".join(f'<td class="number">{_cell(row.cells.get(name))}</td>' for name in table.columns)
            tail = "" if mark is None else f" [{mark}]"
            kind = "published" if row.published else "own"
            lines.append(
                f'<tr class="{kind}"><th scope="row">{escape(row.method)}{tail}</th><td>{escape(row.encoder)}</td>'
                f"{cells}</tr>"
            )
            for card in row.cards:
                told = "".join(f"<dt>{escape(k)}</dt><dd>{escape(card_text(v))}</dd>" for k, v in card.items())
                cards.append(f"<h4>[{mark}] {escape(row.method)}</h4><dl>{told}</dl>")
        parts.append(
            f'<h3>{escape(table.title)}</h3><div class="scroll" tabindex="0" role="region" '
            f'aria-label="{escape(table.title)}"><table><thead><tr><th scope="col">method</th>'
            f'<th scope="col">encoder</th>{heads}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
            + (f"<details><summary>Protocol cards</summary>{''.join(cards)}</details>" if cards else "")
        )
    return "".join(parts)


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return ""
    return f"{cell.mean:.1f}" if cell.std is None else f"{cell.mean:.1f} ± {cell.std:.1f}"
