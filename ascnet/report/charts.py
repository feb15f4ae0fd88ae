"""Charts as inline SVG: lines, bars and a confusion matrix. Their colours are variables of the page's style."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 420, 240
"""Units of a chart; small, so that its text is still readable on a telephone."""
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 34
MOST = 400
"""Points drawn of a curve."""

Series = tuple[str, Sequence[float], Sequence[float]]


def line_chart(title: str, series: Sequence[Series], x_label: str, *, rough: bool = True) -> str:
    """Curves over steps, faint as measured and strong when smoothed.

    Args:
        title: What is drawn, for people who cannot see it.
        series: Name, x and y of each curve; y that are not finite are gaps.
        x_label: Below the x axis.
        rough: Whether the curves are measured, and a running mean says more than the values themselves.
    """
    clean = [(name, *_finite(xs, ys)) for name, xs, ys in series]
    clean = [one for one in clean if len(one[1])]
    if not clean:
        return ""
    low_x, high_x = _range(np.concatenate([xs for _, xs, _ in clean]))
    low_y, high_y = _range(np.concatenate([ys for _, _, ys in clean]), 0.05)
    marks_x, marks_y = ticks(low_x, high_x), ticks(low_y, high_y)

    def place(xs: NDArray[np.float64], ys: NDArray[np.float64]) -> str:
        across = LEFT + (xs - low_x) / (high_x - low_x) * (WIDTH - LEFT - RIGHT)
        down = HEIGHT - BOTTOM - (ys - low_y) / (high_y - low_y) * (HEIGHT - TOP - BOTTOM)
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across, down, strict=True))

    parts = [_axes(marks_x, marks_y, (low_x, high_x), (low_y, high_y), x_label)]
    for number, (name, xs, ys) in enumerate(clean):
        smooth = smoothed(ys, rough)
        for kind, values in (("raw", ys), ("curve", smooth)):
            if kind == "raw" and not (rough and len(ys) >= 20):
                continue
            parts.append(f'<polyline class="{kind} s{number % 6}" points="{place(*thinned(xs, values))}"/>')
        end = f"{name}, {len(ys)} values, {ys[0]:.4g} to {ys[-1]:.4g}"
        parts[-1] = parts[-1].replace("/>", f"><title>{escape(end)}</title></polyline>")
    legend = "".join(
        f'<li><span class="key s{number % 6}"></span>{escape(name)} <b>{smoothed(ys, rough)[-1]:.4g}</b></li>'
        for number, (name, _, ys) in enumerate(clean)
    )
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title)}: {escape("; ".join(name for name, _, _ in clean))}">{"".join(parts)}</svg>'
        f'<ul class="legend">{legend}</ul></figure>'
    )


def histogram(title: str, values: Sequence[float] | NDArray[np.float64], x_label: str, bins: int = 24) -> str:
    """How often values lie where."""
    array = np.asarray(values, np.float64)
    if not len(array) or array.min() == array.max():
        return ""  # one value is better said than drawn
    bins = min(bins, max(1, len(np.unique(array))))
    low, high = _range(array)
    counts, edges = np.histogram(array, bins, (low, high))
    top = float(counts.max())
    inner, tall = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    parts = [_axes(ticks(low, high), ticks(0, top, whole=True), (low, high), (0, top), x_label)]
    for count, start, end in zip(counts.tolist(), edges[:-1], edges[1:], strict=True):
        x, width = LEFT + (start - low) / (high - low) * inner, (end - start) / (high - low) * inner
        height = count / top * tall
        text = f"{start:.4g} to {end:.4g}: {count} videos"
        parts.append(
            f'<rect class="bar" x="{x + 0.5:.1f}" y="{HEIGHT - BOTTOM - height:.1f}" width="{max(width - 1, 0.5):.1f}" '
            f'height="{height:.1f}"><title>{text}</title></rect>'
        )
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title)}, {len(array)} videos from {array.min():.4g} to {array.max():.4g}">'
        f"{''.join(parts)}</svg></figure>"
    )


def bars(title: str, counts: Sequence[tuple[str, int]]) -> str:
    """A line with a bar for each name; as HTML, so that names wrap."""
    most = max((count for _, count in counts), default=0)
    lines = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td><span class="bar" style="width:{100 * count / most:.1f}%"></span>'
        f"<span>{count}</span></td></tr>"
        for name, count in counts
    )
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption><div class="bars" tabindex="0" role="region" '
        f'aria-label="{escape(title)}"><table>{lines}</table></div></figure>'
    )


def confusion_chart(classes: Sequence[str], counts: NDArray[np.int64]) -> str:
    """A confusion matrix: rows are true classes, shades the share of a row."""
    named = len(classes) <= 40
    cell = min(40, max(24, 480 // len(classes))) if named else max(5, 600 // len(classes))
    margin = 8 + (7 * min(20, max(map(len, classes))) if named else 30)
    edge = margin + cell * len(classes) + 4
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    parts = [
        f'<rect class="ground" x="{margin}" y="{margin}" width="{edge - margin - 4}" height="{edge - margin - 4}"/>'
    ]
    for row, column in zip(*counts.nonzero(), strict=True):
        x, y, share = margin + column * cell, margin + row * cell, shares[row, column]
        kind = "hit" if row == column else "miss"
        text = f"{classes[row]} taken for {classes[column]}: {counts[row, column]} videos, {share:.0%}"
        parts.append(
            f'<rect class="{kind}" x="{x}" y="{y}" width="{cell}" height="{cell}" '
            f'fill-opacity="{0.15 + 0.85 * share:.2f}">'
            f"<title>{escape(text)}</title></rect>"
        )
        if named:
            strong = " strong" if share > 0.5 else ""
            parts.append(
                f'<text class="count{strong}" x="{x + cell / 2}" y="{y + cell / 2 + 4}">{counts[row, column]}</text>'
            )
    for place, name in enumerate(classes if named else ()):
        at, short = margin + place * cell + cell / 2 + 4, escape(name if len(name) <= 20 else f"{name[:19]}…")
        parts.append(f'<text class="end" x="{margin - 6}" y="{at}">{short}</text>')
        parts.append(f'<text transform="translate({at} {margin - 6}) rotate(-90)">{short}</text>')
    right = int(counts.diagonal().sum())
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="confusion matrix"><svg class="confusion" '
        f'width="{edge}" height="{edge}" viewBox="0 0 {edge} {edge}" role="img" aria-label="Confusion matrix of '
        f'{len(classes)} classes: {right} of {int(counts.sum())} videos on the diagonal">{"".join(parts)}</svg></div>'
    )


def ticks(low: float, high: float, *, whole: bool = False, about: int = 5) -> list[float]:
    """Round numbers within a range."""
    step = 10 ** math.floor(math.log10(max(high - low, 1e-12) / about))
    step *= next((factor for factor in (1, 2, 5) if (high - low) / (step * factor) <= about), 10)
    step = max(1.0, step) if whole else step
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def smoothed(values: NDArray[np.float64], rough: bool = True) -> NDArray[np.float64]:
    """A running mean over about a fortieth of a curve, unbiased at its beginning; as it is where not `rough`."""
    if not rough:
        return values
    keep = 1 - 1 / max(1.0, len(values) / 40)
    mean, weight, found = 0.0, 0.0, np.empty(len(values))
    for at, value in enumerate(values):
        mean, weight = keep * mean + (1 - keep) * value, keep * weight + (1 - keep)
        found[at] = mean / weight
    return found


def thinned(xs: NDArray[np.float64], ys: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """At most `MOST` points of a curve, the first and the last among them."""
    if len(xs) <= MOST:
        return xs, ys
    at = np.unique(np.linspace(0, len(xs) - 1, MOST).round().astype(int))
    return xs[at], ys[at]


def _finite(xs: Sequence[float], ys: Sequence[float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y = np.asarray(xs, np.float64), np.asarray([math.nan if v is None else v for v in ys], np.float64)
    kept = np.isfinite(x) & np.isfinite(y)
    return x[kept], y[kept]


def _range(values: NDArray[np.float64], margin: float = 0.0) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-12 * max(1.0, abs(high)):
        spare = 0.5 * max(1e-3, abs(high))
        return low - spare, high + spare
    return low - margin * (high - low), high + margin * (high - low)


def _axes(
    marks_x: Sequence[float],
    marks_y: Sequence[float],
    across: tuple[float, float],
    upwards: tuple[float, float],
    x_label: str,
) -> str:
    parts = []
    for value in marks_y:
        y = HEIGHT - BOTTOM - (value - upwards[0]) / (upwards[1] - upwards[0]) * (HEIGHT - TOP - BOTTOM)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="end" x="{LEFT - 6}" y="{y + 4:.1f}">{value:.4g}</text>')
    for value in marks_x:
        x = LEFT + (value - across[0]) / (across[1] - across[0]) * (WIDTH - LEFT - RIGHT)
        parts.append(f'<text class="middle" x="{x:.1f}" y="{HEIGHT - BOTTOM + 15}">{value:.4g}</text>')
    parts.append(f'<text class="end" x="{WIDTH - RIGHT}" y="{HEIGHT - 4}">{escape(x_label)}</text>')
    return "".join(parts)
