"""Results with a course: epochs of a cache, memory over many clips."""

from __future__ import annotations

from bench.page import generic
from bench.page.charts import Point, lines
from bench.page.content import Chart, Part
from bench.page.read import Result
from bench.page.tables import Row, Table, short


def cache(result: Result) -> Part:
    """Pairs per second over epochs, with and without the cache."""
    points, rows = [], []
    for way in ("without", "with"):
        for number, epoch in enumerate(result.data[way], 1):
            rate = float(epoch["pairs_per_second"])
            points.append(Point(f"{way} cache", number, rate, rate, rate))
            cells = [f"{way} cache, epoch {number}", short(rate), short(float(epoch["cpu_seconds_per_pair"]))]
            rows.append(Row([*cells, f"{100 * float(epoch['from_copies']):.0f} %"]))
    said = "; ".join(f"{p.series}, epoch {p.x:g}: {short(p.y)}" for p in points)
    chart = Chart("Pairs per second over epochs", f"Lines: {said}.", lines(points, "epoch", "pairs per second"))
    known = result.data["cache"]
    psnr = known.get("psnr") or {}
    notes = []
    if psnr.get("median") is not None:
        notes.append(f"PSNR of the copies: median {psnr['median']:.1f} dB, lowest {psnr['lowest']:.1f} dB.")
    head = ["epoch", "pairs/s", "CPU s/pair", "from copies"]
    part = Part(charts=[chart], tables=[Table("Epochs", head, rows)], notes=notes)
    if "figures" in result.data:
        part.tables.append(generic.table(generic.checked(result)))
    return part


def size(result: Result) -> Part:
    """Goals and measurements of a large corpus, and the memory of a long run."""
    part = generic.drawn(result)
    # Times and sizes of things that have nothing to do with each other say nothing as bars.
    part.charts.clear()
    readings = result.data["measured"].get("loader_readings") or []
    if len(readings) > 1:
        points = [Point("loader", float(clips), float(mib), float(mib), float(mib)) for clips, mib in readings]
        first, last = points[0], points[-1]
        said = f"Line from {short(first.y)} MiB at {first.x:g} clips to {short(last.y)} MiB at {last.x:g}."
        part.charts.append(Chart("Memory of a loader over a long run", said, lines(points, "clips", "resident MiB")))
    return part
