"""Results over many settings: the memory bank over rows, the search for a loader's settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.measure.stats import estimate, ratios
from bench.page.charts import Bar, Point, bars, lines, scatter
from bench.page.content import Chart, Part
from bench.page.facts import plain
from bench.page.read import Result
from bench.page.tables import Row, Table, interval, short


def bank(result: Result) -> Part:
    """Share of the memory's bandwidth over rows, a chart for each length, format and batch."""
    part = Part()
    groups: dict[tuple[int, str, int], list[Mapping[str, Any]]] = {}
    for one in result.data["banks"]:
        for batch in one["batches"]:
            groups.setdefault((int(one["dim"]), str(one["dtype"]), int(batch)), []).append(one)
    # As the command has them, whoever is missing where.
    series = list(result.data.get("searchers") or {})
    for (dim, dtype, batch), banks in groups.items():
        points = []
        for one in sorted(banks, key=lambda known: int(known["rows"])):
            for name, shares in one["batches"][str(batch)]["share_of_bandwidth"].items():
                known = estimate([100 * float(share) for share in shares])
                points.append(Point(str(name), float(one["rows"]), known.median, known.low, known.high))
        if not points:
            continue
        title = f"dim {dim}, {dtype}, batch {batch}"
        said = "; ".join(f"{point.series} over {point.x:g} rows {short(point.y)} %" for point in points)
        unit = "% of the memory's bandwidth"
        if len({point.x for point in points}) > 1:
            spec = lines(points, "rows", unit, log=True, series=series)
        else:
            spec = bars(
                [Bar(p.series, p.y, p.low, p.high, "$ours" if p.series == "ours" else "$peer") for p in points], unit
            )
        part.charts.append(Chart(title, f"Share of the memory's bandwidth, {title}: {said}.", spec, True))
    part.tables.append(_searches(result))
    memory = result.data.get("bandwidth")
    if isinstance(memory, Mapping):
        told = ", ".join(f"{key} {plain(value)}" for key, value in memory.items())
        part.notes.append(f"Bandwidth measured, bytes per second: {told}.")
    goal = result.data.get("goal")
    if isinstance(goal, Mapping) and goal:
        shares = ", ".join(
            f"{dtype} {'WRONG' if share is None else f'{share:.0%}'}" for dtype, share in goal["shares"].items()
        )
        met = "met" if goal["met"] else "MISSED"
        part.sentences.append(f"Goal ≥ {goal['goal']:.0%} of the bandwidth at {goal['rows']:,} rows: {shares}: {met}.")
    part.notes += [f"{one['setting']}: left out: {one['reason']}" for one in result.data.get("left_out") or []]
    part.notes += [f"{name}: {text}" for name, text in (result.data.get("searchers") or {}).items()]
    return part


def _searches(result: Result) -> Table:
    rows = []
    for one in result.data["banks"]:
        where = f"{int(one['rows']):,} x {one['dim']} {one['dtype']}".replace(" ", "\N{NO-BREAK SPACE}")
        for batch, known in one["batches"].items():
            for name, rates in known["queries_per_second"].items():
                share = [100 * float(value) for value in known["share_of_bandwidth"][name]]
                updates = known.get("updated_rows_per_second", {}).get(name)
                ours = known["queries_per_second"].get("ours")
                ratio = estimate(ratios(ours, rates)).as_dict() if ours and name != "ours" else None
                cells = [name, where, str(batch), interval(estimate(rates).as_dict())]
                cells += [interval(estimate(share).as_dict()), interval(ratio, "x")]
                cells += [interval(estimate(updates).as_dict()) if updates else "-", "right"]
                rows.append(Row(cells, "ours" if name == "ours" else ""))
        for kind in ("wrong", "missing"):
            label = "WRONG" if kind == "wrong" else kind
            for name, reason in (one.get(kind) or {}).items():
                rows.append(
                    Row(
                        [name, where, "-", "-", "-", "-", "-", f"{label}: {reason}"],
                        "wrong" if kind == "wrong" else "missing",
                    )
                )
    head = [
        "searcher",
        "bank",
        "batch",
        "queries/s [95 %]",
        "% of bandwidth",
        "ours / it [95 %]",
        "updated rows/s",
        "rows found",
    ]
    return Table("Searching and updating", head, rows, words=(0, 1, 7))


def sweep(result: Result) -> Part:
    """Settings tried: their rates in the rounds against the default, and all trials in their order."""
    data = result.data
    part = Part()
    if data.get("verdict"):
        part.sentences.append(str(data["verdict"]))
    unit = str(data["unit"])
    names = {int(one["number"]): _knobs(one) for one in data["settings"]}
    default, best = (
        next((number for number, name in names.items() if name == _knobs(data[key])), -1) for key in ("default", "best")
    )
    entries, rows = [], []
    for one in data["settings"]:
        number = int(one["number"])
        both = [
            (float(turn[str(number)]), float(turn[str(default)]))
            for turn in data["rounds"]
            if {str(number), str(default)} <= set(turn)
        ]
        known = estimate([rate for rate, _ in both]) if both else None
        label = " (default)" if number == default else " (best)" if number == best else ""
        if known:
            colour = "$ours" if number == best else "$even" if number == default else "$peer"
            entries.append(Bar(names[number] + label, known.median, known.low, known.high, colour, "", number == best))
        ratio = estimate([rate / own for rate, own in both]).as_dict() if both and number != default else None
        memory = one.get("memory_gib")
        state = (
            f"left out: {one['left_out']}" if one.get("left_out") else "in the rounds" if both else "dropped earlier"
        )
        rows.append(
            Row(
                [
                    names[number] + label,
                    interval(known.as_dict() if known else None),
                    interval(ratio, "x"),
                    "-" if memory is None else f"{float(memory):.2f}",
                    state,
                ],
                "ours" if number == best else "",
            )
        )
    entries.sort(key=lambda entry: -(entry.value or 0.0))
    if entries:
        said = "; ".join(f"{entry.name} {short(entry.value or 0.0)}" for entry in entries)
        part.charts.append(
            Chart("Settings in the rounds against the default", f"Bars, {unit}: {said}.", bars(entries, unit))
        )
    trials = [
        (place, float(one["rate"]), str(one["stage"]), names.get(int(one["setting"]), ""))
        for place, one in enumerate(data["trials"], 1)
        if one.get("rate") is not None
    ]
    if trials:
        least, most = (short(pick(rate for _, rate, _, _ in trials)) for pick in (min, max))
        said = f"{len(trials)} trials between {least} and {most} {unit}."
        part.charts.append(Chart("All trials in their order", said, scatter(trials, "trial", unit)))
    part.tables.append(
        Table("Settings", ["setting", f"{unit} [95 %]", "/ default [95 %]", "GiB", "state"], rows, words=(0, 4))
    )
    if data.get("stopped"):
        part.notes.append(f"The search ended: {data['stopped']}.")
    return part


def _knobs(one: Mapping[str, Any]) -> str:
    """A setting in words, without what is found out about it."""
    left_out = ("number", "memory_gib", "left_out")
    return ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in one.items() if key not in left_out)
