"""One's own results as rows: runs that differ in the seed or the split averaged, data sets never mixed."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from ascnet.report.published import HMDB51, RECOGNITION, RETRIEVAL, UCF101
from ascnet.report.results import Result
from ascnet.report.table import Cell, Row, Table, published_row

KS = ("R@1", "R@5", "R@10", "R@20", "R@50")
TASKS = {
    "finetune": "Action recognition, fine-tuned",
    "linear": "Action recognition, linear on frozen features",
}
_ORDER = ("chance", "colour, no learning", "motion, no learning", "untrained", "random start", "pretrained")


def tables(results: Sequence[Result]) -> list[Table]:
    """The two published tables with the results that belong there, and one table more for each other data set."""
    groups: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        groups["\n".join([result.task, result.data, result.corpus, result.part, result.same])].append(result)
    rest = list(groups.values())
    official = (UCF101, HMDB51)
    recognised = [g for g in rest if g[0].task == "finetune" and g[0].data in official]
    retrieved = [g for g in rest if g[0].task == "retrieval" and (g[0].data, g[0].part) == (UCF101, "")]
    found = [
        Table(
            "recognition",
            "Action recognition, fine-tuned, top-1 (%)",
            official,
            [published_row(*row) for row in RECOGNITION] + _joined(recognised),
        ),
        Table(
            "retrieval",
            "Nearest-neighbour retrieval on UCF101 (%)",
            KS,
            [published_row(*row) for row in RETRIEVAL] + _ordered(map(_row, retrieved)),
        ),
    ]
    linear = [g for g in rest if g[0].task == "linear" and g[0].data in official]
    if linear:
        found.append(Table("linear", f"{TASKS['linear']}, top-1 (%)", official, _joined(linear)))
    others: dict[tuple[str, str, str, str], list[list[Result]]] = defaultdict(list)
    for group in rest:
        if not any(group is one for one in [*recognised, *retrieved, *linear]):
            others[group[0].task, group[0].data, group[0].part, group[0].corpus].append(group)
    for (task, data, part, corpus), alike in sorted(others.items()):
        if sum(other[:3] == (task, data, part) for other in others) > 1:
            data = f"{data} ({corpus})"  # several corpora of one name
        tail = f", {part}" if part else ""
        title = (
            f"Nearest-neighbour retrieval on {data}{tail} (%)" if task == "retrieval" else f"{TASKS[task]}, {data} (%)"
        )
        columns = tuple(dict.fromkeys(name for group in alike for result in group for name in result.values))
        key = re.sub(r"[^a-z0-9]+", "-", f"{task} {data} {part}".lower()).strip("-")
        found.append(Table(key, title, columns, _ordered(map(_row, alike))))
    return found


def _row(group: list[Result]) -> Row:
    columns = dict.fromkeys(name for result in group for name in result.values)
    cells = {name: Cell.of([result.values[name] for result in group if name in result.values]) for name in columns}
    return Row(_method(group), group[0].encoder, cells, cards=(_card(group),))


def _joined(groups: list[list[Result]]) -> list[Row]:
    """One row for results of the same pretraining on several data sets, where it is clear which belong together."""
    lines: dict[str, list[list[Result]]] = defaultdict(list)
    for group in groups:
        lines[group[0].line].append(group)
    rows = []
    for alike in lines.values():
        named = [group[0].data for group in alike]
        parts = [alike] if len(set(named)) == len(named) else [[group] for group in alike]
        for part in parts:
            cells = {group[0].data: Cell.of([result.values["top-1"] for result in group]) for group in part}
            runs = [result for group in part for result in group]
            rows.append(Row(_method(runs), part[0][0].encoder, cells, cards=tuple(_card(group) for group in part)))
    return _ordered(rows)


def _method(group: Sequence[Result]) -> str:
    names = sorted({result.run for result in group if result.run})
    if not names:
        return f"ours: {group[0].method}"
    # runs/weizmann-seed0, runs/weizmann-seed1: the run is weizmann.
    bare = {re.sub(r"[-_.]*(seed)?[-_.]*\d*$", "", name) for name in names} if len(names) > 1 else set(names)
    return f"ours: {group[0].method}, {' + '.join(sorted(bare - {''}) or names)}"


def _card(group: Sequence[Result]) -> dict[str, Any]:
    """The cards of several runs as one: what they share once, what differs as a list."""
    card: dict[str, Any] = {}
    for name in dict.fromkeys(key for result in group for key in result.card):
        values: list[Any] = list(
            dict.fromkeys(result.card.get(name) for result in group if result.card.get(name) is not None)
        )
        if name == "seeds":
            card |= {name: sorted(values)} if values else {}
        elif values:
            card[name] = values[0] if len(values) == 1 else values
        elif name in ("commit", "command"):
            card[name] = "not recorded"
    card["runs"] = len(group)
    return card


def _ordered(rows: Iterable[Row]) -> list[Row]:
    def place(row: Row) -> tuple[int, str]:
        words = row.method.removeprefix("ours: ")
        return next((at for at, name in enumerate(_ORDER) if words.startswith(name)), len(_ORDER)), row.method

    return sorted(rows, key=place)
