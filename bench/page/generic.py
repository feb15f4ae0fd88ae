"""Any result, by its `figures`: a table of all, and bars of those that share a unit."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from bench.page.charts import Bar, bars
from bench.page.content import Chart, Part, Ratio
from bench.page.older import figures_of
from bench.page.read import Result
from bench.page.tables import Row, Table, interval, short, times

# More bars than these are a table.
MOST = 24
Figures = Mapping[str, Mapping[str, Any]]


def checked(result: Result) -> dict[str, Mapping[str, Any]]:
    """The figures of a result, those without a value left out.

    Raises:
        TypeError, KeyError, ValueError: One has not the shape of a figure.
    """
    found: dict[str, Mapping[str, Any]] = {}
    for name, one in figures_of(result).items():
        if one["median"] is None:
            continue
        median = float(one["median"])
        low, high = (median if one.get(key) is None else float(one[key]) for key in ("low", "high"))
        found[str(name)] = {**one, "median": median, "low": low, "high": high, "unit": str(one.get("unit", ""))}
    return found


def drawn(result: Result) -> Part:
    """A chart for each unit that several figures have, and a table of all figures.

    Raises:
        TypeError, KeyError, ValueError: A figure has another shape.
    """
    figures = checked(result)
    part = Part(charts=charts(figures))
    if figures:
        part.tables.append(table(figures))
    missing = result.data.get("missing")
    if isinstance(missing, Mapping):
        part.notes += [f"{name}: missing: {reason}" for name, reason in missing.items()]
    goals = result.data.get("goals")
    for goal in goals if isinstance(goals, list) else []:
        if isinstance(goal, Mapping) and {"name", "value", "goal", "met"} <= set(goal):
            value = "not measured" if goal["value"] is None else short(float(goal["value"]))
            part.sentences.append(f"Goal {goal['name']} {goal['goal']}: {value}: {'met' if goal['met'] else 'MISSED'}.")
    return part


def charts(figures: Figures) -> list[Chart]:
    """Bars for each group of figures that have a unit and a way in common."""
    groups: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for name, one in figures.items():
        groups.setdefault((one["unit"], str(one.get("better", ""))), {})[name] = one
    found = []
    for (unit, better), group in groups.items():
        if not 2 <= len(group) <= MOST:
            continue
        names = stripped(list(group), unit)
        entries = [
            Bar(
                names[name],
                one["median"],
                one["low"],
                one["high"],
                "$ours" if re.match(r"ours\b", names[name]) or re.search(r"\bours\b", name) else "$peer",
                times(one["median"]) if unit == "x" else "",
                bool(re.match(r"ours\b", names[name])),
            )
            for name, one in group.items()
        ]
        # Nothing is ours here: all are.
        if all(entry.colour == "$peer" for entry in entries):
            entries = [Bar(e.name, e.value, e.low, e.high, "$ours", e.text) for e in entries]
        way = f"; {'longer' if better == 'higher' else 'shorter'} is better" if better in ("higher", "lower") else ""
        said = "; ".join(f"{entry.name} {short(entry.value or 0.0)}" for entry in entries)
        title = {"x": "Ratios", "": "Figures"}.get(unit, unit)
        spec = bars(entries, f"{unit or 'value'}{way}", line=1.0 if unit == "x" else None)
        found.append(Chart(title, f"Bars, {title}: {said}.", spec))
    return found


def table(figures: Figures, caption: str = "All figures") -> Table:
    """Every figure with its interval, unit and way."""
    rows = [
        Row([name, interval(one), one["unit"], {"higher": "more", "lower": "less"}.get(str(one.get("better")), "")])
        for name, one in figures.items()
    ]
    return Table(caption, ["figure", "median [95 %]", "unit", "better is"], rows, words=(0, 2, 3))


def stripped(names: Sequence[str], unit: str) -> dict[str, str]:
    """Names without what all of them have in common: the unit, and the same first words."""
    short_names = {
        name: re.sub(r"\s+", " ", name.replace(unit, "") if unit and unit != "x" else name).strip() for name in names
    }
    while len({name.split(" ", 1)[0] for name in short_names.values()}) == 1 and all(
        " " in name for name in short_names.values()
    ):
        rest = {name: shown.split(" ", 1)[1] for name, shown in short_names.items()}
        # A bare number would say nothing.
        if any(re.fullmatch(r"[\d.,%x]+", shown) for shown in rest.values()):
            break
        short_names = rest
    # Two that would be the same keep their whole names.
    return (
        short_names
        if len(set(short_names.values())) == len(names) and all(short_names.values())
        else {n: n for n in names}
    )


def ratios(result: Result) -> list[Ratio]:
    """Figures of unit x that say "ours / PEER", with what stands in brackets as the window."""
    found = []
    for name, one in checked(result).items():
        if one["unit"] != "x":
            continue
        said = re.match(r"(?:.*\b)?ours / (?P<peer>[^()]+?)\s*(?:\((?P<window>[^()]*)\))?$", name)
        if said:
            found.append(Ratio(result.benchmark, result.label, said["window"] or "", said["peer"], one))
    return found
