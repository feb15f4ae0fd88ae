"""The result of `bench bank` as a table for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.measure.stats import estimate, ratios


def print_result(result: Mapping[str, Any], console: Console) -> None:
    """A line for each setting and batch: ours, and how often as many queries a second as each other one answers."""
    speed, peers = result["bandwidth"], [name for name in result["searchers"] if name != "ours"]
    console.print(
        f"memory of {result['device']}: read {speed['read'] / 1e9:.1f} GB/s, copied {speed['copy'] / 1e9:.1f} GB/s"
    )
    table = Table(title="memory bank; in the columns of the others: our queries/s over theirs", title_justify="left")
    for name in ("rows x dim", "batch", "ms", "queries/s [95 %]", "bandwidth", *(f"/ {peer}" for peer in peers)):
        table.add_column(name, justify="left" if name == "rows x dim" else "right", no_wrap=True)
    table.add_column("updated rows/s", justify="right", no_wrap=True)
    cached = False
    for bank in result["banks"]:
        for batch, part in bank["batches"].items():
            line = [f"{bank['rows']} x {bank['dim']} {bank['dtype']}", batch, *_ours(bank, part)]
            line += [_peer(bank, part["queries_per_second"], name) for name in peers]
            updated = part["updated_rows_per_second"]
            line.append(f"{estimate(updated['ours']).median:.0f}" if "ours" in updated else "WRONG")
            table.add_row(*line)
            cached |= bank["in_cache"]
    console.print(table)
    if cached:
        console.print("* less than twice the largest cache: part of the rows need not come from memory")
    for note in _notes(result):
        console.print(escape(note))


def _ours(bank: Mapping[str, Any], part: Mapping[str, Any]) -> Sequence[str]:
    if "ours" not in part["search_ms"]:
        return "WRONG", "-", "-"
    rate, share = estimate(part["queries_per_second"]["ours"]), estimate(part["share_of_bandwidth"]["ours"])
    star = "*" if bank["in_cache"] else " "
    time = estimate(part["search_ms"]["ours"]).median
    return f"{time:.3f}", f"{rate.median:.0f} [{rate.low:.0f}, {rate.high:.0f}]", f"{100 * share.median:.0f} %{star}"


def _peer(bank: Mapping[str, Any], rates: Mapping[str, Sequence[float]], name: str) -> str:
    if name in bank["wrong"]:
        return "WRONG"
    if name not in rates or "ours" not in rates:
        return "-"
    return f"{estimate(ratios(rates['ours'], rates[name])).median:.2f}"


def _notes(result: Mapping[str, Any]) -> list[str]:
    """Who is wrong or missing, by reason, each said once; what did not fit; the goal."""
    said: dict[str, list[str]] = {}
    for bank in result["banks"]:
        where = f"{bank['rows']} x {bank['dim']} {bank['dtype']}"
        for name, reason in bank["missing"].items():
            said.setdefault(f"{name} is missing: {reason}", []).append(where)
        for name, reason in bank["wrong"].items():
            said.setdefault(f"{name} is WRONG, not timed: {reason}", []).append(where)
        for name, reason in bank["wrong_update"].items():
            said.setdefault(f"{name}'s update is WRONG, not timed: {reason}", []).append(where)
    lines = [f"{text} ({where[0]}{f' and {len(where) - 1} more' if where[1:] else ''})" for text, where in said.items()]
    lines += [f"left out: {entry['setting']}: {entry['reason']}" for entry in result["left_out"]]
    lines += sorted({bank["plan"] for bank in result["banks"]})
    goal = result["goal"]
    if goal:
        shares = ", ".join(f"{name} {'-' if s is None else format(s, '.2f')}" for name, s in goal["shares"].items())
        verdict = "met" if goal["met"] else "MISSED"
        lines.append(f"goal >= {goal['goal']:g} of the bandwidth ({goal['rows']} x {goal['dim']}): {shares}: {verdict}")
    return lines
