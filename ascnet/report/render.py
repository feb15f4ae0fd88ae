"""Tables as Markdown, LaTeX, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from ascnet.report.table import Cell, Row, Table

CARD = ("data", "split", "clips", "crop", "protocol", "seeds", "commit", "command")
"""Fields of a protocol card that have a column of their own in CSV."""


def markdown(tables: Sequence[Table]) -> str:
    """Tables for people, the protocol cards below each as numbered lists."""
    parts, number = [], 1
    for table in tables:
        rows = table.numbered(number)
        heads = ["method", "encoder", *table.columns]
        lines = [
            [_named(row, mark), row.encoder, *(_plain(row.cells.get(name)) for name in table.columns)]
            for mark, row in rows
        ]
        lines = [[_md(text) for text in line] for line in [heads, *lines]]
        widths = [max(len(line[at]) for line in lines) for at in range(len(heads))]
        shown = [f"| {' | '.join(text.ljust(w) for text, w in zip(line, widths, strict=True))} |" for line in lines]
        rule = "|".join("-" * (w + 1) + (":" if at > 1 else "-") for at, w in enumerate(widths))
        parts.append("\n".join([f"### {_md(table.title)}", "", shown[0], f"|{rule}|", *shown[1:]]))
        cards = [
            f"- [{mark}] " + "; ".join(f"**{name}**: {_md(card_text(value))}" for name, value in card.items())
            for mark, row in rows
            for card in row.cards
        ]
        if cards:
            spread = "± is the standard deviation over the runs." if _spread(table) else ""
            parts.append("\n".join([*([spread, ""] if spread else []), *cards]))
        number += sum(bool(row.cards) for row in table.rows)
    return "\n\n".join(parts) + "\n"


def latex(tables: Sequence[Table]) -> str:
    """A `table` for each, with booktabs; the protocol cards below in small print."""
    parts, number = ["% needs \\usepackage{booktabs}"], 1
    for table in tables:
        rows = table.numbered(number)
        lines = [
            "\\begin{table}",
            "\\centering",
            f"\\caption{{{_tex(table.title)}}}",
            f"\\begin{{tabular}}{{ll{'r' * len(table.columns)}}}",
            "\\toprule",
            " & ".join(map(_tex, ["Method", "Encoder", *table.columns])) + " \\\\",
            "\\midrule",
        ]
        before = None
        for mark, row in rows:
            if before is not None and before.published != row.published:
                lines.append("\\midrule")
            cells = [_tex(_plain(row.cells.get(name))).replace("±", "$\\pm$") for name in table.columns]
            lines.append(" & ".join([_tex(_named(row, mark)), _tex(row.encoder), *cells]) + " \\\\")
            before = row
        lines += ["\\bottomrule", "\\end{tabular}"]
        for mark, row in rows:
            for card in row.cards:
                told = "; ".join(f"{_tex(name)}: {_tex(card_text(value))}" for name, value in card.items())
                lines += ["", f"{{\\footnotesize [{mark}] {told}}}"]
        parts.append("\n".join([*lines, "\\end{table}"]))
        number += sum(bool(row.cards) for row in table.rows)
    return "\n\n".join(parts) + "\n"


def as_csv(tables: Sequence[Table]) -> str:
    """One line for each score of each row; blank where there is no such value."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["table", "method", "encoder", "measure", "mean", "std", "runs", "published", *CARD])
    for table in tables:
        for row in table.rows:
            for name in table.columns:
                cell = row.cells.get(name)
                if cell is None:
                    continue
                card = _card_of(row, name, table)
                std = "" if cell.std is None else f"{cell.std:.4f}"
                told = [card_text(card[key]) if key in card else "" for key in CARD]
                runs = "" if row.published else cell.runs
                mean = f"{cell.mean:.1f}" if row.published else f"{cell.mean:.4f}"
                writer.writerow(
                    [table.key, row.method, row.encoder, name, mean, std, runs, str(row.published).lower(), *told]
                )
    return text.getvalue()


def as_json(tables: Sequence[Table]) -> str:
    """Everything, for programs."""
    return json.dumps({"tables": [asdict(table) for table in tables]}, indent=2, ensure_ascii=False) + "\n"


FORMATS: dict[str, Callable[[Sequence[Table]], str]]
FORMATS = {"markdown": markdown, "latex": latex, "csv": as_csv, "json": as_json}


def _card_of(row: Row, column: str, table: Table) -> dict[str, Any]:
    """The card of a score: of several in a row, each belongs to one column, in order."""
    if len(row.cards) < 2:
        return row.cards[0] if row.cards else {}
    return row.cards[list(row.cells).index(column)]


def _named(row: Row, mark: int | None) -> str:
    return row.method if mark is None else f"{row.method} [{mark}]"


def _plain(cell: Cell | None) -> str:
    if cell is None:
        return ""
    return f"{cell.mean:.1f}" if cell.std is None else f"{cell.mean:.1f} ± {cell.std:.1f}"


def _spread(table: Table) -> bool:
    return any(cell.std is not None for row in table.rows for cell in row.cells.values())


def card_text(value: Any) -> str:
    """A value of a protocol card in words."""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return str(value)


def _md(text: str) -> str:
    # Names of classes and files may hold anything; none of it is markup.
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", " ".join(text.split())) if re.search(r"[`*|<>\\]", text) else text


_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


def _tex(text: str) -> str:
    return "".join(_TEX.get(letter, letter) for letter in " ".join(text.split()))
