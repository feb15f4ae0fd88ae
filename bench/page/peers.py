"""Results that set candidates beside each other: bars of rates and a table, window by window; curves over settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.page.charts import Bar, Point, bars, lines
from bench.page.content import Chart, Part, Ratio
from bench.page.read import Result
from bench.page.tables import Kind, Row, Table, interval, short, times

# What a sample is called, by command.
SAMPLES = {"loader": "pair", "decode": "clip"}
# What the commands call the same thing.
RATES = {
    "rate": ("samples_per_second", "clips/s"),
    "frames": ("frames/s",),
    "cpu": ("cpu_seconds_per_sample", "CPU s/clip"),
    "memory": ("memory",),
    "load": ("decoder load",),
    "ratio": ("ratio_of_ours", "ours-cuda / it", "ours-cpu / it"),
}


@dataclass
class Candidate:
    """One of those that are compared.

    Attributes:
        name: As the command calls it.
        kind: What sort it is of.
        known: Of `RATES`, those that were measured: median, low, high.
        check: What comparing its frames found.
        reason: Why it was not timed: "WRONG: ...", "failed: ..." or "missing: ..."; "" where it was.
    """

    name: str
    kind: str = ""
    known: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    check: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""

    @property
    def ours(self) -> bool:
        return self.name == "ours" or self.name.startswith("ours-")

    @property
    def rate(self) -> float:
        """Samples a second; -1 where it was not timed."""
        return float(self.known["rate"]["median"]) if "rate" in self.known else -1.0

    @property
    def row_kind(self) -> Kind:
        if self.reason:
            return "missing" if self.reason.startswith("missing") else "wrong"
        return "ours" if self.ours else ""

    @property
    def colour(self) -> str:
        if self.reason:
            return "$faint" if self.reason.startswith("missing") else "$slower"
        return "$ours" if self.ours else "$peer"


def drawn(result: Result) -> Part:
    """Charts and tables of a result with `windows`, each with `checks` and a `summary`, and perhaps `curves`.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: It has another shape.
    """
    part = Part()
    what = SAMPLES[result.benchmark]
    for window, known in result.data["windows"].items():
        title = f"{window} windows" if window in ("independent", "shared") else str(window)
        rows = candidates(result, known)
        part.charts.append(Chart(f"{what.capitalize()}s per second, {title}", _words(rows, what), _bars(rows, what)))
        part.tables.append(_table(rows, title, what))
    for curve in result.data.get("curves") or []:
        part.charts.append(_curve(curve, what))
        part.tables.append(_points(curve, what))
    part.notes += [f"{name}: {one['notes']}" for name, one in _of(result, "candidates").items() if one.get("notes")]
    for goal in result.data.get("goals") or []:
        reached = "not measured" if goal["ratio"] is None else f"{times(goal['ratio'])} {goal['peer']}"
        met = "met" if goal["met"] else "MISSED"
        part.sentences.append(f"Goal {goal['kind']} ≥ {goal['goal']:g}x ({goal['window']}): {reached}: {met}.")
    return part


def ratios(result: Result) -> list[Ratio]:
    """Ours over each peer, also of those that were wrong or missing."""
    found = []
    for window, known in result.data["windows"].items():
        for one in candidates(result, known):
            if not one.ours and ("ratio" in one.known or one.reason):
                ratio = one.known.get("ratio")
                found.append(Ratio(result.benchmark, result.label, str(window), one.name, ratio, one.reason))
    return found


def candidates(result: Result, window: Mapping[str, Any]) -> list[Candidate]:
    """Those of a window; the quickest first, those that were not timed last."""
    kinds, missing, failed = (_of(result, key) for key in ("candidates", "missing", "failed"))
    summary, checks = window["summary"], window["checks"]
    found = []
    for name in dict.fromkeys([*summary, *checks, *failed, *missing]):
        measured, check = summary.get(name) or {}, checks.get(name) or {}
        known = {
            key: measured[word]
            for key, words in RATES.items()
            for word in words
            if measured.get(word) and measured[word].get("median") is not None
        }
        reason = ""
        if name in missing:
            reason = f"missing: {missing[name]}"
        elif name in failed and not known:
            reason = f"failed: {failed[name]}"
        elif check.get("reason"):
            reason = f"WRONG: {check['reason']}"
        told = kinds.get(name) or {}
        found.append(Candidate(str(name), str(told.get("kind") or told.get("where") or ""), known, check, reason))
    return sorted(found, key=lambda one: -one.rate)


def _of(result: Result, key: str) -> Mapping[str, Any]:
    value = result.data.get(key) or {}
    if not isinstance(value, Mapping):
        raise TypeError(f"{key} is no object")
    return value


def _bars(rows: list[Candidate], what: str) -> dict[str, Any]:
    entries = []
    for one in rows:
        known = one.known.get("rate")
        if known is None:
            entries.append(Bar(one.name, text=one.reason or "not timed", colour=one.colour, strong=one.ours))
        else:
            low, high = float(known["low"]), float(known["high"])
            entries.append(Bar(one.name, one.rate, low, high, one.colour, strong=one.ours))
    return bars(entries, f"{what}s per second, median and 95 % interval; longer is better")


def _words(rows: list[Candidate], what: str) -> str:
    said = [f"{one.name} {short(one.rate)}" if one.known else f"{one.name}: {one.reason}" for one in rows]
    return f"Bars of {what}s per second: {'; '.join(said)}."


def _table(rows: list[Candidate], title: str, what: str) -> Table:
    """A line a candidate. Columns that nobody has a figure in are left out."""
    names = {
        "rate": f"{what}s/s [95 %]",
        "frames": "frames/s",
        "cpu": f"CPU s/{what} [95 %]",
        "memory": "MiB",
        "load": "video decoder",
        "ratio": "ours / it [95 %]",
    }
    names = {key: name for key, name in names.items() if any(key in one.known for one in rows)}
    table = []
    for one in rows:
        cells = [one.name, one.kind, *(_cell(one, key) for key in names)]
        check = one.check
        psnr = "-"
        if check.get("psnr") is not None:
            nearest = check.get("psnr_nearest")
            psnr = f"{check['psnr']:.1f}" + (f" / {nearest:.1f}" if nearest is not None else "")
        frames = f"right ({check.get('told_apart')} of {check.get('frames')} certain)" if check else "-"
        table.append(Row([*cells, psnr, one.reason or frames], one.row_kind))
    head = ["candidate", "kind", *names.values(), "PSNR, dB", "frames"]
    return Table(f"{title[0].upper()}{title[1:]}", head, table, words=(0, 1, len(head) - 1))


def _cell(one: Candidate, key: str) -> str:
    known = one.known.get(key)
    if key in ("rate", "cpu", "ratio") or known is None:
        return interval(known, "x" if key == "ratio" else "")
    return f"{known['median']:.0%}" if key == "load" else short(float(known["median"]))


def _curve(curve: Mapping[str, Any], what: str) -> Chart:
    axis = str(curve["axis"])
    points, said = [], []
    for name, one in curve["candidates"].items():
        for point in one["points"]:
            rate = point["samples_per_second"]
            at = float(point["value"])
            knee = "knee" if name == "ours" and point["value"] == one.get("knee") else ""
            if point["value"] == one.get("knee"):
                said.append(f"{name} has its knee at {axis} {at:g} with {short(float(rate['median']))}")
            median, low, high = (float(rate[key]) for key in ("median", "low", "high"))
            points.append(Point(str(name), at, median, low, high, knee))
    title = f"{what.capitalize()}s per second over {axis}, {curve['window']} windows"
    return Chart(title, f"Lines: {'; '.join(said)}.", lines(points, axis, f"{what}s per second"))


def _points(curve: Mapping[str, Any], what: str) -> Table:
    values = list(curve["values"])
    rows = []
    for name, one in curve["candidates"].items():
        at = {point["value"]: point["samples_per_second"] for point in one["points"]}
        cells = [interval(at[value]) if value in at else "WRONG" for value in values]
        rows.append(Row([str(name), *cells, str(one.get("knee"))], "ours" if name == "ours" else ""))
    around = ", ".join(f"{name} {value}" for name, value in (curve.get("around") or {}).items())
    caption = f"{what.capitalize()}s/s [95 %] over {curve['axis']}" + (f" ({around})" if around else "")
    head = ["candidate", *(f"{curve['axis']} {value}" for value in values), "knee"]
    return Table(caption, head, rows)
