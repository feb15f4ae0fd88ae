"""Vega-Lite specifications. Colours are names in them, so that one serves light, dark and paper."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.page.tables import short, times

# After Okabe and Ito (2008), which people with any kind of colour blindness tell apart; yellow, too faint on white, is
# left out, and the rest is lighter on a dark ground.
PALETTES: Mapping[str, Mapping[str, str]] = {
    "light": {
        "$paper": "#ffffff", "$ink": "#1c2024", "$faint": "#5d666f", "$rule": "#e3e6ea", "$ours": "#0072b2",
        "$peer": "#a9b4c0", "$even": "#8d99a6", "$slower": "#d55e00", "$s0": "#0072b2", "$s1": "#d55e00",
        "$s2": "#009e73", "$s3": "#b8608f", "$s4": "#e69f00", "$s5": "#56b4e9", "$s6": "#5b5b5b", "$s7": "#8c6bb1",
    },
    "dark": {
        "$paper": "#1d2125", "$ink": "#e8eaec", "$faint": "#a3acb5", "$rule": "#353b42", "$ours": "#4aa8e8",
        "$peer": "#5f6b77", "$even": "#7d8a97", "$slower": "#f08a3c", "$s0": "#4aa8e8", "$s1": "#f08a3c",
        "$s2": "#2fc49b", "$s3": "#e09ac0", "$s4": "#f0bd4a", "$s5": "#9cd6f7", "$s6": "#b5b5b5", "$s7": "#b79ae0",
    },
}  # fmt: skip
SERIES = tuple(f"$s{number}" for number in range(8))
SHAPES = ("circle", "square", "diamond", "triangle-up", "cross", "triangle-down", "triangle-right", "triangle-left")
# A part of stacked bars that is drawn without a colour.
WAITING = "wait"
# What a text in place of a bar may take.
ROOM = "width - 8"
FONT = "system-ui, 'Segoe UI', Roboto, 'Liberation Sans', Arial, sans-serif"
CONFIG: Mapping[str, Any] = {
    "background": "transparent",
    "font": FONT,
    "view": {"stroke": None},
    "title": {"color": "$ink", "fontSize": 13, "fontWeight": 600, "anchor": "start", "offset": 8},
    "axis": {
        "labelColor": "$ink", "titleColor": "$faint", "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": 400,
        "gridColor": "$rule", "domainColor": "$rule", "tickColor": "$rule",
    },
    # Longer than the axis, it goes on below the names and not beyond the edge.
    "axisX": {"titleAnchor": "end"},
    "axisY": {"domain": False, "ticks": False, "labelPadding": 6},
    "legend": {
        "labelColor": "$ink", "titleColor": "$faint", "labelFontSize": 12, "orient": "bottom", "title": None,
        "symbolType": "square",
    },
    "text": {"fontSize": 12, "color": "$ink"},
    "rule": {"color": "$ink"},
}  # fmt: skip


@dataclass(frozen=True)
class Bar:
    """One bar: a value with its interval, or in its place why there is none."""

    name: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    colour: str = "$peer"
    text: str = ""
    strong: bool = False

    def row(self) -> dict[str, Any]:
        low = self.value if self.low is None else self.low
        high = self.value if self.high is None else self.high
        known = self.value is not None
        # The label stands beyond the whisker.
        end = max(self.value or 0.0, high or 0.0, 0.0)
        return {
            "name": self.name, "value": self.value, "low": low, "high": high, "colour": self.colour, "end": end,
            "text": self.text or (short(self.value) if self.value is not None else ""), "known": known,
            "strong": self.strong,
        }  # fmt: skip


def bars(
    entries: Sequence[Bar], unit: str, *, line: float | None = None, step: int = 27, most: float | None = None
) -> dict[str, Any]:
    """Horizontal bars in the order given, whiskers over them, the value behind them.

    Args:
        entries: What is drawn. One without a value has its text where the bar would be.
        unit: Title of the axis.
        line: A value to mark, such as 1 for ratios.
        step: Height of a bar with its gap, pixels.
        most: Highest value of the axis, where it is not to be the entries' own.
    """
    rows = [bar.row() for bar in entries]
    most = max([row["end"] for row in rows] + [line or 0.0, most or 0.0])
    # Room for the labels; all of them lie to the right of zero.
    lowest = min([0.0] + [row["low"] for row in rows if row["known"]])
    scale = {"domain": [lowest * 1.1, (most or 1.0) * 1.34], "nice": False, "zero": True}
    axis = {"title": unit, "tickCount": 4, "format": number_format(most)}
    y = {
        "field": "name",
        "type": "nominal",
        "sort": None,
        "title": None,
        "axis": {"labelFontWeight": {"condition": {"test": strong_test(rows), "value": 700}, "value": 400}},
    }
    known, absent = [{"filter": "datum.known"}], [{"filter": "!datum.known"}]
    x = {"field": "value", "type": "quantitative", "scale": scale, "axis": axis}
    layers: list[dict[str, Any]] = [
        {
            "transform": known,
            "mark": {"type": "bar", "cornerRadiusEnd": 3, "height": {"band": 0.72}},
            "encoding": {
                "x": x,
                "color": {"field": "colour", "type": "nominal", "scale": None},
                "tooltip": [
                    {"field": "name", "title": "what"},
                    {"field": "value", "title": unit, "format": ".4~g"},
                    {"field": "low", "title": "interval from", "format": ".4~g"},
                    {"field": "high", "title": "to", "format": ".4~g"},
                ],
            },
        },
        {
            "transform": [{"filter": "datum.known && datum.high > datum.low"}],
            "mark": {"type": "rule", "strokeWidth": 1.6, "color": "$ink", "aria": False},
            "encoding": {"x": {"field": "low", "type": "quantitative"}, "x2": {"field": "high"}},
        },
        {
            "transform": known,
            "mark": {"type": "text", "align": "left", "dx": 6, "aria": False},
            "encoding": {
                "x": {"field": "end", "type": "quantitative"},
                "text": {"field": "text"},
                "color": {"value": "$ink"},
            },
        },
        {
            "transform": absent,
            "mark": {"type": "text", "align": "left", "dx": 4, "fontStyle": "italic", "limit": {"expr": ROOM}},
            "encoding": {"x": {"datum": 0}, "text": {"field": "text"}, "color": {"field": "colour", "scale": None}},
        },
    ]
    if all(row["known"] for row in rows):
        layers.pop()
    if not any(row["known"] for row in rows):
        del layers[:3]
    elif not any(row["known"] and row["high"] > row["low"] for row in rows):
        del layers[1]
    if line is not None:
        mark = {"type": "rule", "strokeDash": [4, 3], "color": "$faint", "aria": False}
        # Without the bars' names it goes through all of them.
        layers.insert(0, {"data": {"values": [{}]}, "mark": mark, "encoding": {"x": {"datum": line}, "y": None}})
    height = step * len(rows)
    return {"data": {"values": rows}, "height": height, "encoding": {"y": y}, "layer": layers}


def number_format(most: float) -> str:
    """How an axis writes its numbers."""
    return "~s" if most >= 1_000_000 else ",.4~r"


def strong_test(rows: Sequence[Mapping[str, Any]]) -> str:
    """An expression that is true for the labels that are to be bold."""
    # A string of JSON is one of Vega's expressions too, whatever a name has in it.
    names = [json.dumps(row["name"]) for row in rows if row["strong"]]
    return " || ".join(f"datum.value === {name}" for name in names) or "false"


def lollipops(entries: Sequence[Bar], unit: str, *, step: int = 27) -> dict[str, Any]:
    """The same on a logarithmic axis, for values that are far apart: points, since such an axis has no zero for bars.

    Args:
        entries: As for `bars`; without a value, or not above 0, only the text is drawn.
        unit: Title of the axis.
        step: Height of a point with its gap, pixels.
    """
    known = [bar for bar in entries if bar.value is not None and bar.value > 0]
    if not known:
        return bars(entries, unit, step=step)
    least, most = (float(pick(bar.value or 0.0 for bar in known)) for pick in (min, max))
    least, most = least / 2, most * 2
    # The labels take about a fifth of the width.
    scale = {"type": "log", "domain": [least, most * (most / least) ** 0.2], "nice": False}
    spec = bars([bar if bar in known else Bar(bar.name, text=bar.text, colour="$faint") for bar in entries], unit)
    for layer in spec["layer"]:
        if layer["mark"]["type"] == "bar":
            layer["mark"] = {"type": "point", "filled": True, "size": 110, "opacity": 1}
            axis = {"title": f"{unit}; each line is ten times the last", "format": number_format(most)}
            layer["encoding"]["x"] |= {"scale": scale, "axis": {**axis, "values": _powers(least, most)}}
        elif "datum" in layer["encoding"]["x"]:
            layer["encoding"]["x"] = {"datum": least}
    stem = {
        "transform": [{"filter": "datum.known"}],
        "mark": {"type": "rule", "strokeWidth": 2.5, "aria": False},
        "encoding": {
            "x": {"field": "start", "type": "quantitative"},
            "x2": {"field": "value"},
            "color": {"field": "colour", "type": "nominal", "scale": None},
        },
    }
    for row in spec["data"]["values"]:
        row["start"] = least
    spec["layer"].insert(0, stem)
    return spec


def _powers(least: float, most: float) -> list[float]:
    """Powers of ten in a range."""
    return [10.0**n for n in range(math.ceil(math.log10(least)), math.floor(math.log10(most)) + 1)]


def ratio_bars(
    ratios: Sequence[tuple[str, Mapping[str, Any] | None, str]], unit: str, *, most: float | None = None
) -> dict[str, Any]:
    """Ours over each peer: blue where the whole interval is above 1, orange where it is below, grey between.

    Args:
        ratios: Peer, estimate or None, and why there is none.
        unit: Title of the axis.
        most: Highest value of the axis, where it is not to be the ratios' own.
    """
    entries = []
    for name, known, reason in ratios:
        if known is None:
            entries.append(Bar(name, text=reason, colour="$slower" if reason.startswith("WRONG") else "$faint"))
            continue
        value, low, high = (float(known[key]) for key in ("median", "low", "high"))
        colour = "$ours" if low > 1 else "$slower" if high < 1 else "$even"
        entries.append(Bar(name, value, low, high, colour, times(value)))
    return bars(entries, unit, line=1.0, step=23, most=most)


@dataclass(frozen=True)
class Point:
    """A point of a line: where, how much, how sure, and whether it is marked."""

    series: str
    x: float
    y: float
    low: float
    high: float
    mark: str = ""


def lines(
    points: Sequence[Point], x: str, y: str, *, log: bool = False, zero: bool = True, series: Sequence[str] = ()
) -> dict[str, Any]:
    """Lines with bands of their intervals; every line has a colour and a shape, marked points a ring and a word.

    Args:
        points: Of all lines; lines get their colours in the order in which they first come.
        x: Title of the axis.
        y: Title of the axis.
        log: Whether x is drawn by powers of two.
        zero: Whether y begins at 0.
        series: Names of the lines of all charts that stand together, so that each has one colour in all of them.
    """
    rows = [{"series": p.series, "x": p.x, "y": p.y, "low": p.low, "high": p.high, "mark": p.mark} for p in points]
    names = list(dict.fromkeys(p.series for p in points))
    every = list(dict.fromkeys([*series, *names]))
    places = [every.index(name) for name in names]
    # The keys would have the paleness of the bands.
    legend = {"symbolOpacity": 1} if len(names) > 1 else None
    colour: dict[str, Any] = {
        "field": "series",
        "type": "nominal",
        "legend": legend,
        "scale": {"domain": names, "range": [SERIES[n % len(SERIES)] for n in places]},
    }
    shape: dict[str, Any] = {
        "field": "series",
        "type": "nominal",
        "legend": legend,
        "scale": {"domain": names, "range": [SHAPES[n % len(SHAPES)] for n in places]},
    }
    values = sorted({p.x for p in points})
    across: dict[str, Any] = {"field": "x", "type": "quantitative", "title": x, "axis": {"grid": False}}
    across["scale"] = (
        {"type": "log", "base": 2, "nice": False} if log else {"zero": False, "nice": False, "padding": 12}
    )
    if len(values) <= 12:
        across["axis"]["values"] = values
    across["axis"]["format"] = number_format(values[-1] if values else 0.0)
    most = max((p.high for p in points), default=1.0)
    up = {
        "field": "y",
        "type": "quantitative",
        "title": y,
        "scale": {"zero": zero, "domainMin": 0, "domainMax": most * 1.12, "nice": False}
        if zero
        else {"zero": False, "padding": 8},
        "axis": {"tickCount": 5, "format": number_format(most)},
    }
    tooltip = [
        {"field": "series", "title": "what"},
        {"field": "x", "title": x},
        {"field": "y", "title": y, "format": ".4~g"},
        {"field": "low", "title": "interval from", "format": ".4~g"},
        {"field": "high", "title": "to", "format": ".4~g"},
    ]
    marked = [{"filter": "datum.mark !== ''"}]
    layers: list[dict[str, Any]] = [
        {
            "mark": {"type": "area", "opacity": 0.18, "aria": False},
            "encoding": {
                "y": {"field": "low", "type": "quantitative", "title": y},
                "y2": {"field": "high"},
                "color": colour,
            },
        },
        {"mark": {"type": "line", "strokeWidth": 2.2}, "encoding": {"y": up, "color": colour}},
        {
            "mark": {"type": "point", "filled": True, "size": 60, "opacity": 1},
            "encoding": {"y": up, "color": colour, "shape": shape, "tooltip": tooltip},
        },
        {
            "transform": marked,
            "mark": {"type": "point", "filled": False, "size": 260, "strokeWidth": 2, "color": "$ink", "aria": False},
            "encoding": {"y": up},
        },
        {
            "transform": marked,
            "mark": {"type": "text", "dy": -17, "fontWeight": 600, "aria": False},
            "encoding": {"y": up, "text": {"field": "mark"}},
        },
    ]
    if not any(p.mark for p in points):
        # A layer of nothing would make Vega complain of scales without an end.
        del layers[-2:]
    return {"data": {"values": rows}, "height": 260, "encoding": {"x": across}, "layer": layers}


def stacked(rows: Sequence[tuple[str, Sequence[tuple[str, float]]]], unit: str, *, step: int = 40) -> dict[str, Any]:
    """Horizontal bars, each of parts one after another; the parts' colours are the same in all.

    Args:
        rows: Name of the bar, and its parts with their sizes.
        unit: Title of the axis.
        step: Height of a bar with its gap, pixels.
    """
    names = list(dict.fromkeys(name for _, parts in rows for name, _ in parts))
    values = [
        {"bar": bar, "part": part, "size": size, "order": names.index(part)}
        for bar, parts in rows
        for part, size in parts
    ]
    # Waiting is no work: what has no colour is what nobody did.
    busy = [name for name in names if name != WAITING]
    colours = ["$rule" if name == WAITING else SERIES[busy.index(name) % len(SERIES)] for name in names]
    scale = {"domain": names, "range": colours}
    return {
        "data": {"values": values},
        "height": step * len(rows),
        "mark": {"type": "bar", "stroke": "$paper", "strokeWidth": 1, "height": {"band": 0.8}},
        "encoding": {
            "y": {"field": "bar", "type": "nominal", "sort": None, "title": None},
            "x": {"field": "size", "type": "quantitative", "title": unit, "stack": "zero", "axis": {"tickCount": 5}},
            "color": {"field": "part", "type": "nominal", "sort": None, "scale": scale},
            "order": {"field": "order", "type": "quantitative"},
            "tooltip": [
                {"field": "bar", "title": "of"},
                {"field": "part", "title": "what"},
                {"field": "size", "title": unit, "format": ".4~g"},
            ],
        },
    }


def scatter(points: Sequence[tuple[float, float, str, str]], x: str, y: str) -> dict[str, Any]:
    """Points by kind.

    Args:
        points: Where, how much, of what kind, and what it is called.
        x: Title of the axis.
        y: Title of the axis.
    """
    kinds = list(dict.fromkeys(kind for _, _, kind, _ in points))
    most = max(value for _, value, _, _ in points)
    rows = [{"x": at, "y": value, "kind": kind, "name": name} for at, value, kind, name in points]
    places = range(len(kinds))
    colours, shapes = [SERIES[n % len(SERIES)] for n in places], [SHAPES[n % len(SHAPES)] for n in places]
    up = {"zero": True, "domainMin": 0, "domainMax": most * 1.1, "nice": False}
    return {
        "data": {"values": rows},
        "height": 240,
        "mark": {"type": "point", "filled": True, "size": 70, "opacity": 0.9},
        "encoding": {
            "x": {
                "field": "x",
                "type": "quantitative",
                "title": x,
                "scale": {"zero": False, "nice": False, "padding": 10},
                "axis": {"tickMinStep": 1, "grid": False, "format": "d"},
            },
            "y": {"field": "y", "type": "quantitative", "title": y, "scale": up, "axis": {"tickCount": 5}},
            "color": {"field": "kind", "type": "nominal", "scale": {"domain": kinds, "range": colours}},
            "shape": {"field": "kind", "type": "nominal", "scale": {"domain": kinds, "range": shapes}},
            "tooltip": [
                {"field": "name", "title": "setting"},
                {"field": "kind", "title": "kind"},
                {"field": "y", "title": y, "format": ".4~g"},
            ],
        },
    }
