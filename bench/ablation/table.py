"""The table of an ablation: mean and standard deviation over seeds, on the screen and in Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from dali_pipes.writing import replacing

# What is shown, and under which heading; the JSON has all of it.
COLUMNS = {
    "R@1": "R@1",
    "R@5": "R@5",
    "R@1 centred": "R@1 centred",
    "R@5 centred": "R@5 centred",
    "speed": "speed, 1x or 2x",
}


def summarise(cells: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Mean, standard deviation and number of seeds of every score, by method in the order of their first cell."""
    methods = list(dict.fromkeys(cell["method"] for cell in cells))
    summary = {}
    for method in methods:
        own = [cell["scores"] for cell in cells if cell["method"] == method]
        summary[method] = {name: spread([scores[name] for scores in own]) for name in own[0]}
    return summary


def spread(values: Sequence[float]) -> dict[str, float]:
    """Mean, standard deviation (n - 1; not a number for a single value) and number of values."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    return {"mean": float(np.mean(values)), "std": deviation, "n": len(values)}


def rows(result: Mapping[str, Any]) -> list[list[str]]:
    """The table's cells as text: chance first, then a row for each method."""
    chance = ["chance", *(f"{result['chance'][name]:.1f}" for name in COLUMNS)]
    return [chance, *([name, *(_cell(scores[k]) for k in COLUMNS)] for name, scores in result["summary"].items())]


def show(result: Mapping[str, Any], console: Console) -> None:
    """Print the table."""
    table = Table(title=_title(result), title_justify="left")
    for number, heading in enumerate(["method", *COLUMNS.values()]):
        table.add_column(heading, justify="right" if number else "left", no_wrap=not number)
    for cells in rows(result):
        table.add_row(*cells)
    console.print(table)


def write_markdown(path: Path, result: Mapping[str, Any]) -> None:
    """Write the table and where it comes from, whole or not at all."""
    lines = [
        f"{_title(result)}, percent, mean ± standard deviation over seeds. `{result['command']}`",
        "",
        f"| {' | '.join(['method', *COLUMNS.values()])} |",
        "|---|" + "---|" * len(COLUMNS),
        *(f"| {' | '.join(cells)} |" for cells in rows(result)),
    ]
    if "speed_task" in result:
        lines += ["", *_speed_task(result["speed_task"])]
    with replacing(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _speed_task(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[str]:
    """The loss of the speed task by its positives, as lines of Markdown."""
    names = list(next(iter(found.values()), {}))
    heads = ["speed probe of the motion feature" if name == "motion" else f"speed loss: {name}" for name in names]
    lines = [f"| {' | '.join(['method', *heads])} |", "|---|" + "---|" * len(heads)]
    for method, scores in found.items():
        cells = [_cell(scores[name], 1 if name == "motion" else 3) for name in names]
        lines.append(f"| {' | '.join([method, *cells])} |")
    return lines


def _title(result: Mapping[str, Any]) -> str:
    seeds = len({cell["seed"] for cell in result["cells"]})
    return f"{result['corpus']['videos']} videos, {result['corpus']['classes']} classes, {seeds} seeds"


def _cell(score: Mapping[str, float], digits: int = 1) -> str:
    if score["n"] < 2 or math.isnan(score["std"]):
        return f"{score['mean']:.{digits}f}"
    return f"{score['mean']:.{digits}f} ± {score['std']:.{digits}f}"
