"""The result of `bench step` as a table and a verdict for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from bench.step.turn import Turn

# Title, the monitor's name, and how it is shown.
LOADS = (
    ("CPU", "host/cpu_load", "{:.0%}"),
    ("CPUs of it", "host/process_cpus", "{:.1f}"),
    ("GPU", "gpu/sm_load", "{:.0%}"),
    ("decoder", "gpu/decoder_load", "{:.0%}"),
)


def print_result(result: Mapping[str, Any], rounds: Sequence[Mapping[str, Turn]], console: Console) -> None:
    """A line for each mode, what was wrong, the parts of the traced steps, and the verdict."""
    figures = result["figures"]
    table = Table(title=f"training step on {result['device']} in {result['precision']}", title_justify="left")
    loads = [load for load in LOADS if any(load[1] in turn.loads for turns in rounds for turn in turns.values())]
    table.add_column("", no_wrap=True)
    titles = ("steps/s [95 %]", "clips/s", "lost to data [95 %]", "waiting", "CPU s/step")
    for title in (*titles, *(load[0] for load in loads)):
        table.add_column(title, justify="right", no_wrap=True)
    for name in rounds[0]:
        rate, lost, waiting = (figures.get(f"{name} {what}") for what in ("steps/s", "lost to data", "waiting"))
        table.add_row(
            name,
            f"{rate['median']:.2f} [{rate['low']:.2f}, {rate['high']:.2f}]",
            f"{figures[f'{name} clips/s']['median']:.1f}",
            f"{lost['median']:.1%} [{lost['low']:.1%}, {lost['high']:.1%}]" if lost else "-",
            f"{waiting['median']:.0%}" if waiting else "-",
            f"{figures[f'{name} CPU s/step']['median']:.2f}",
            *(_load([turns[name] for turns in rounds], key, shown) for _, key, shown in loads),
        )
    for name, reason in result["wrong"].items():
        table.add_row(name, f"WRONG, not timed: {escape(reason)}")
    console.print(table)
    if "trace" in result:
        parts = result["trace"]["ms_per_step"]
        told = ", ".join(f"{name} {value:.1f}" for name, value in parts.items())
        console.print(f"traced, ms a step ({result['trace']['mode']}; the loader's threads added up): {told}")
    console.print(escape(result["verdict"]["words"]))
    if result["disturbed"]:
        console.print(result["disturbed"])
    if "goal" in result:
        goal = result["goal"]
        share = result["verdict"]["share"]
        console.print(f"goal >= {goal['goal']:g}: {share:.2f}: {'met' if goal['met'] else 'MISSED'}")


def _load(turns: Sequence[Turn], key: str, shown: str) -> str:
    """Mean over the rounds."""
    known = [turn.loads[key] for turn in turns if key in turn.loads]
    return shown.format(sum(known) / len(known)) if known else "-"
