"""Charts as PNG, from the specifications that the page has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.page.charts import CONFIG, PALETTES, ROOM
from bench.page.content import Chart
from bench.page.render import Page
from bench.page.summary import COLOURS, QUICKER

# Pixels of the whole picture before scaling; a README shows 800 to 900 of them.
WIDTH = 800
LABELS = 150
SCALE = 2.0


@dataclass(frozen=True)
class Picture:
    """Charts that become one file.

    Attributes:
        title: Above all of them.
        subtitle: Below it.
        charts: At least one.
    """

    title: str
    subtitle: str
    charts: Sequence[Chart]


def pictures(page: Page) -> dict[str, Picture]:
    """Name of the file, without its ending -> what is in it: of each benchmark the overview, or every chart it has."""
    found: dict[str, Picture] = {}
    for name in dict.fromkeys(result.benchmark for result, _ in page.shown):
        if name in page.overviews:
            title = f"{QUICKER[name].capitalize()}: ours / peer"
            found[name] = Picture(title, COLOURS, page.overviews[name].charts)
            continue
        charts = [
            Chart(f"{result.label}: {one.title}", one.alt, one.spec, one.small)
            for result, part in page.shown
            if result.benchmark == name
            for one in part.charts
        ]
        if charts:
            found[name] = Picture("", "", charts)
    return found


def joined(picture: Picture) -> dict[str, Any]:
    """One specification of several charts: small ones two in a row, others below each other; in light colours."""
    charts = picture.charts
    small = len(charts) > 1 and all(chart.small for chart in charts)
    columns = 2 if small else 1
    width = (WIDTH - 30) // columns - LABELS
    palette = PALETTES["light"]
    views = [{"title": chart.title, "width": width, **_fixed(chart.spec, width)} for chart in charts]
    whole = {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "padding": 12,
        "config": {
            **CONFIG,
            "background": palette["$paper"],
            "axis": {**CONFIG["axis"], "labelLimit": LABELS},
            "legend": {**CONFIG["legend"], "columns": 4},
            "concat": {"spacing": 26},
        },
        # Bars of different charts have scales of their own: a peer missing in one must not leave a gap in the other.
        "resolve": {"scale": {"x": "independent", "y": "independent", "color": "independent", "shape": "independent"}},
        "concat": views,
        "columns": columns,
    }
    if picture.title:
        whole["title"] = {
            **{"text": picture.title, "subtitle": picture.subtitle, "fontSize": 17, "subtitleFontSize": 12.5},
            **{"subtitleColor": "$faint", "anchor": "start", "offset": 16, "subtitlePadding": 5},
        }
    coloured: dict[str, Any] = _coloured(whole, palette)
    return coloured


def png(picture: Picture) -> bytes:
    """The picture's bytes; needs vl_convert."""
    import vl_convert

    content: bytes = vl_convert.vegalite_to_png(joined(picture), scale=SCALE)
    return content


def _fixed(value: Any, width: int) -> Any:
    """A specification whose expressions of the chart's width are numbers: charts side by side have no common width."""
    if isinstance(value, Mapping):
        if value.get("expr") == ROOM:
            return width - 8
        return {key: _fixed(one, width) for key, one in value.items()}
    return [_fixed(one, width) for one in value] if isinstance(value, (list, tuple)) else value


def _coloured(value: Any, palette: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return palette.get(value, value)
    if isinstance(value, Mapping):
        return {key: _coloured(one, palette) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_coloured(one, palette) for one in value]
    return value
