"""The top of the page: ours beside each peer, and what binds."""

from __future__ import annotations

from collections.abc import Sequence

from bench.page.charts import ratio_bars
from bench.page.content import Chart, Part, Ratio, listed
from bench.page.tables import Row, Table, interval, times

# Benchmarks that compare ours with other tools at the same work, and in what.
QUICKER = {"loader": "pairs of clips per second", "decode": "clips per second"}
COLOURS = "blue: the whole 95 % interval is above 1, ours is quicker; orange: below; grey: 1 lies in it"
# The whole reason stands with the result.
BRIEFLY = {"missing": "missing", "WRONG": "WRONG frames, not timed"}


def overview(ratios: Sequence[Ratio], benchmark: str) -> Part:
    """Charts, one a corpus and window, a table over all of them and what they say together.

    Args:
        ratios: Of all results of the benchmark.
        benchmark: Whose these are.
    """
    part = Part()
    own = [one for one in ratios if one.benchmark == benchmark]
    # Who is missing everywhere stands below with the reason; here it would only take room.
    there = {one.peer for one in own if not one.reason.startswith("missing")}
    absent = [peer for peer in dict.fromkeys(one.peer for one in own) if peer not in there]
    own = [one for one in own if one.peer in there]
    if not own:
        return part
    places = list(dict.fromkeys((one.corpus, one.window) for one in own))
    what = QUICKER[benchmark]
    # Windows of one corpus have one scale.
    most = {
        corpus: max([float(one.value["high"]) for one in own if one.value and one.corpus == corpus], default=1.0)
        for corpus, _ in places
    }
    for corpus, window in places:
        here = [one for one in own if (one.corpus, one.window) == (corpus, window)]
        title = f"{corpus}, {window}" if window else corpus
        here = [one for one in here if not one.reason.startswith("missing")]
        if not here:
            continue
        here.sort(key=lambda one: -float(one.value["median"]) if one.value else 0.0)
        rows = [(one.peer, one.value, BRIEFLY.get(one.reason.split(":")[0], one.reason)) for one in here]
        said = "; ".join(f"{one.peer} {times(one.value['median']) if one.value else one.reason}" for one in here)
        axis = "ours / peer, median and 95 % interval"
        part.charts.append(
            Chart(
                title, f"Ours over each peer, {what}, {title}: {said}.", ratio_bars(rows, axis, most=most[corpus]), True
            )
        )
    part.sentences.append(verdict(own, what))
    if absent:
        part.sentences.append(f"Not to be had here: {listed(absent)}.")
    part.tables.append(_matrix(own, places, benchmark))
    return part


def verdict(ratios: Sequence[Ratio], what: str) -> str:
    """How often ours is quicker, and the range; in words."""
    timed = [one.value for one in ratios if one.value]
    if not timed:
        return "No peer could be timed."
    above = sum(float(one["low"]) > 1 for one in timed)
    below = sum(float(one["high"]) < 1 for one in timed)
    medians = [float(one["median"]) for one in timed]
    parts = [f"quicker in {above}"] if above else []
    parts += [f"slower in {below}"] if below else []
    even = len(timed) - above - below
    parts += [f"within the interval of equal in {even}"] if even else []
    wrong = sum(one.reason.startswith("WRONG") for one in ratios)
    extra = f" {wrong} more returned wrong frames and were not timed." if wrong else ""
    return (
        f"Of {len(timed)} comparisons in {what}, ours is {listed(parts)}; "
        f"the ratios go from {times(min(medians))} to {times(max(medians))}.{extra}"
    )


def _matrix(ratios: Sequence[Ratio], places: Sequence[tuple[str, str]], benchmark: str) -> Table:
    peers = list(dict.fromkeys(one.peer for one in ratios))
    windows = any(window for _, window in places)
    rows = []
    for corpus, window in places:
        here = {one.peer: one for one in ratios if (one.corpus, one.window) == (corpus, window)}
        cells = [corpus, window] if windows else [corpus]
        for peer in peers:
            one = here.get(peer)
            cells.append("-" if one is None else interval(one.value, "x") if one.value else one.reason.split(":")[0])
        rows.append(Row(cells))
    head = ["corpus", "window", *peers] if windows else ["corpus", *peers]
    caption = f"{benchmark}: ours / peer [95 %]; above 1 ours is quicker"
    return Table(caption, head, rows, words=(0, 1) if windows else (0,))
