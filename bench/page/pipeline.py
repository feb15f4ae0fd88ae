"""What binds: the ladder of stages with its verdict, and the training step with and without data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.page import generic
from bench.page.charts import Bar, bars, lollipops, stacked
from bench.page.content import Chart, Part
from bench.page.facts import plain
from bench.page.read import Result
from bench.page.tables import Kind, Row, Table, interval, short, times

# Rungs that have the rest of the loader in them.
WHOLE = ("loader", "loader + step")


def stages(result: Result) -> Part:
    """The verdict, the ladder, and the time of each pool's stages.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: It has another shape.
    """
    data = result.data
    part = Part(sentences=[str(one) for one in data["verdict"]["sentences"]])
    part.charts.append(_ladder(data["ladder"]))
    part.tables.append(_rungs(data["ladder"]))
    for name, known in data["stages"].items():
        part.charts += _pools(str(name), known["rows"])
        part.tables.append(_times(str(name), known["rows"]))
        waits = ", ".join(f"{key.replace('_', ' ')} {plain(value)}" for key, value in known["waits"].items())
        part.notes.append(f"{name}: {waits}.")
        if known.get("loads"):
            part.tables.append(_loads(str(name), known["loads"]))
    if data.get("tried"):
        part.charts.append(_tried(data["tried"]))
        rows = [Row([str(one["name"]), interval(one["times"], "x"), str(one["how"])]) for one in data["tried"]]
        part.tables.append(Table("Changes tried", ["change", "times as quick [95 %]", "how"], rows, words=(0, 2)))
    part.notes += [str(one) for one in data.get("gaps") or []]
    return part


def _ladder(rungs: Mapping[str, Mapping[str, Any]]) -> Chart:
    entries = []
    for name, one in rungs.items():
        if one.get("missing"):
            entries.append(Bar(str(name), text=f"left out: {one['missing']}", colour="$faint"))
            continue
        rate = one["clips_per_second"]
        colour = "$ours" if name in WHOLE else "$peer"
        median, low, high = (float(rate[key]) for key in ("median", "low", "high"))
        entries.append(Bar(str(name), median, low, high, colour, strong=name in WHOLE))
    said = "; ".join(f"{one.name} {short(one.value) if one.value is not None else one.text}" for one in entries)
    spec = lollipops(entries, "clips per second, median and 95 % interval")
    return Chart("Each stage alone, at its ceiling, and the whole", f"Points of clips per second: {said}.", spec)


def _rungs(rungs: Mapping[str, Mapping[str, Any]]) -> Table:
    rows = []
    for name, one in rungs.items():
        if one.get("missing"):
            rows.append(Row([str(name), "-", "-", "-", f"left out: {one['missing']}"], "missing"))
            continue
        more = ", ".join(f"{short(value['median'])} {unit}/s" for unit, value in one["amounts_per_second"].items())
        spent = short(1000 * float(one["cpu_seconds_per_clip"]["median"]))
        kind: Kind = "ours" if name in WHOLE else ""
        rows.append(Row([str(name), interval(one["clips_per_second"]), more, spent, str(one["about"])], kind))
    return Table("The ladder", ["rung", "clips/s [95 %]", "and", "CPU ms/clip", "what"], rows, words=(0, 2, 4))


def _pools(name: str, rows: list[Mapping[str, Any]]) -> list[Chart]:
    """What a sample holds each pool's threads for."""
    found: dict[str, list[tuple[str, float]]] = {}
    for row in rows:
        if row["share"] is not None:
            found.setdefault(str(row["pool"]), []).append((str(row["stage"]), 100 * float(row["share"])))
    if not found:
        return []
    said = "; ".join(
        f"{pool}: {', '.join(f'{stage} {share:.0f} %' for stage, share in parts)}" for pool, parts in found.items()
    )
    spec = stacked(list(found.items()), "% of the time of a pool's threads")
    return [Chart(f"Where the time goes: {name}", f"Stacked bars: {said}.", spec)]


def _times(name: str, rows: list[Mapping[str, Any]]) -> Table:
    head = ["stage", "pool", "ms/sample", "computing", "blocked", "helpers", "% of the pool's time"]
    lines = []
    for row in rows:
        numbers = [row["ms"], row["cpu_ms"], row["blocked_ms"], row["helpers_ms"]]
        cells = ["-" if value is None else short(float(value)) for value in numbers]
        share = "-" if row["share"] is None else f"{100 * float(row['share']):.0f}"
        lines.append(Row([str(row["stage"]), str(row["pool"]) or "others", *cells, share]))
    return Table(f"Stages at work: {name}", head, lines, words=(0, 1))


def _loads(name: str, loads: Mapping[str, Mapping[str, Any]]) -> Table:
    rows = [
        Row([str(key), *("-" if one.get(part) is None else short(float(one[part])) for part in ("mean", "p95", "max"))])
        for key, one in loads.items()
    ]
    return Table(f"Loads: {name}", ["load", "mean", "95th percentile", "most"], rows)


def _tried(tried: list[Mapping[str, Any]]) -> Chart:
    entries = []
    for one in tried:
        median, low, high = (float(one["times"][key]) for key in ("median", "low", "high"))
        colour = "$ours" if low > 1 else "$slower" if high < 1 else "$even"
        entries.append(Bar(str(one["name"]), median, low, high, colour, times(median)))
    said = "; ".join(f"{entry.name} {entry.text}" for entry in entries)
    return Chart("What would change it", f"Bars of times as quick: {said}.", bars(entries, "times as quick", line=1.0))


def step(result: Result) -> Part:
    """Steps per second of each mode, and the share that is lost to data.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: It has another shape.
    """
    figures = generic.checked(result)
    part = Part(sentences=[str(result.data["verdict"]["words"])])
    rates = {name.removesuffix(" steps/s"): one for name, one in figures.items() if name.endswith(" steps/s")}
    entries = [_bar(name, one, "$ours" if "look-ahead" in name else "$peer") for name, one in rates.items()]
    wrong = result.data.get("wrong") or {}
    entries += [Bar(str(name), text=f"WRONG: {reason}", colour="$slower") for name, reason in wrong.items()]
    said = "; ".join(
        f"{entry.name} {short(entry.value) if entry.value is not None else entry.text}" for entry in entries
    )
    part.charts.append(Chart("Steps per second", f"Bars: {said}.", bars(entries, "steps per second; longer is better")))
    ending = " lost to data"
    lost = {name.removesuffix(ending): one for name, one in figures.items() if name.endswith(ending)}
    if lost:
        shares = [_bar(name, _percent(one), "$slower", " %") for name, one in lost.items()]
        said = "; ".join(f"{entry.name} {entry.text}" for entry in shares)
        unit = "% of the rate with data on the device; shorter is better"
        part.charts.append(Chart("Lost to data", f"Bars: {said}.", bars(shares, unit)))
    rows = []
    for name, one in rates.items():
        share, waiting = (figures.get(f"{name} {what}") for what in ("lost to data", "waiting"))
        cells = [name, interval(one)]
        cells += [interval(_percent(value), " %") if value else "-" for value in (share, waiting)]
        cells += [interval(figures.get(f"{name} {what}")) for what in ("clips/s", "CPU s/step")]
        rows.append(Row([*cells, "right"], "ours" if "look-ahead" in name else ""))
    rows += [Row([str(name), *["-"] * 5, f"WRONG: {reason}"], "wrong") for name, reason in wrong.items()]
    head = ["mode", "steps/s [95 %]", "lost to data [95 %]", "waiting", "clips/s", "CPU s/step", "trains on"]
    part.tables.append(Table("Modes", head, rows, words=(0, 6)))
    goal = result.data.get("goal")
    if isinstance(goal, Mapping):
        part.sentences.append(f"Goal ≥ {float(goal['goal']):.0%} of it: {'met' if goal['met'] else 'MISSED'}.")
    trace = result.data.get("trace")
    if isinstance(trace, Mapping):
        told = ", ".join(f"{key} {short(float(value))}" for key, value in trace["ms_per_step"].items())
        part.notes.append(f"Traced, ms a step ({trace['mode']}; the loader's threads added up): {told}.")
    return part


def _bar(name: str, one: Mapping[str, Any], colour: str, unit: str = "") -> Bar:
    text = f"{short(one['median'])}{unit}"
    return Bar(name, one["median"], one["low"], one["high"], colour, text, strong="look-ahead" in name)


def _percent(one: Mapping[str, Any]) -> dict[str, Any]:
    return {**one, **{key: 100 * one[key] for key in ("median", "low", "high")}}
