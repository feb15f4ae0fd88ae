"""The rungs of a loader, from storage to the training step, climbed in turns; their gaps are the diagnosis."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.measure.figures import figure
from bench.measure.stats import Estimate, estimate
from bench.stages.rung import Batches, Pass, Rung

# Batches of the round that warms up: everything is opened and built in it.
WARM = 2
# A round takes so many times as long as its clocks run: batches before and after them are not counted.
AROUND = 1.5


@dataclass(frozen=True)
class Climb:
    """What the rungs did.

    Attributes:
        passes: Rung -> its passes, round by round.
        orders: Who came first, round by round.
        short: Whether time was over before all rounds were made.
    """

    passes: dict[str, list[Pass]]
    orders: list[list[str]]
    short: bool

    def rates(self, name: str) -> list[float]:
        """Samples a second of a rung, round by round."""
        return [one.rate for one in self.passes[name]]

    def rate(self, name: str) -> Estimate:
        """The same with its interval."""
        return estimate(self.rates(name))


def climb(
    rungs: Mapping[str, Rung],
    batches: Callable[[int], Batches],
    *,
    rounds: int,
    seconds: float,
    seed: int,
    told: Callable[[str, int, Pass], None] = lambda name, number, done: None,
) -> Climb:
    """Interleaved rounds: in each, all rungs run once over the same requests, in a new random order.

    Args:
        rungs: Name -> rung.
        batches: The requests of a round; the round of number -1 warms up and does not count.
        rounds: Rounds that count, at most.
        seconds: Time for all of it. Rounds have fewer batches, and there are fewer of them, where it would take longer;
            one round counts, however long it takes.
        seed: Of the orders.
        told: Called after each pass with the rung, the round and what it did.
    """
    random = np.random.default_rng(seed)
    begun, longest, most = time.monotonic(), 0.0, WARM
    passes: dict[str, list[Pass]] = {name: [] for name in rungs}
    orders: list[list[str]] = []
    for number in range(-1, rounds):
        if number > 0 and time.monotonic() - begun + longest > seconds:
            return Climb(passes, orders, True)
        started = time.monotonic()
        asked = batches(number)[:most]
        order = [list(rungs)[place] for place in random.permutation(len(rungs))]
        spent = 0.0
        for name in order:
            done = rungs[name].run(asked)
            spent += done.seconds
            told(name, number, done)
            if number >= 0:
                passes[name].append(done)
        if number < 0:
            # Fewer batches where all rounds would take too long: several short rounds say more than a single long one.
            left = seconds - (time.monotonic() - begun)
            most = max(WARM, int(len(asked) * left / (rounds * AROUND * max(spent, 1e-9))))
        if number >= 0:
            orders.append(order)
            longest = max(longest, time.monotonic() - started)
    return Climb(passes, orders, False)


def figures(climbed: Climb, views: int) -> dict[str, dict[str, Any]]:
    """The ladder as figures that `bench compare` compares: clips/s, CPU seconds a clip, and MB/s or frames/s."""
    found = {}
    for name, passes in climbed.passes.items():
        found[f"{name} clips/s"] = figure([views * one.rate for one in passes], "clips/s", "higher")
        found[f"{name} CPU s/clip"] = figure([one.cpu / one.samples / views for one in passes], "s", "lower")
        for unit in passes[0].amounts:
            each = [one.amounts[unit] / one.seconds for one in passes]
            found[f"{name} {unit}/s"] = figure(each, f"{unit}/s", "higher")
    return found


def reading(climbed: Climb, decoded_per_frame: float, *, cold: bool, warm: float | None) -> list[str]:
    """What the gaps between neighbouring rungs say, a sentence each.

    Args:
        climbed: The ladder.
        decoded_per_frame: Frames decoded for each frame wanted, by the plan.
        cold: Whether the files were fetched from storage and not from the page cache.
        warm: Share of the files that the page cache held at the beginning, None where not known.
    """
    known = {name: climbed.rate(name).median for name in climbed.passes}
    told: list[str] = []

    def gap(upper: str, lower: str, text: str) -> None:
        if upper in known and lower in known:
            told.append(text.format(times=known[upper] / known[lower]))

    decode = "decode by DALI" if "decode by DALI" in known else "decode needed"
    held = "fetched from storage" if cold else "wherever they were" if warm is None else f"{warm:.0%} in the page cache"
    gap("read", decode, f"The bytes needed ({held}) come {{times:.3g}} times as fast as they are decoded.")
    in_vain = f"({decoded_per_frame:.3g} frames are decoded for each one wanted)"
    whole = "decode in order by DALI" if decode == "decode by DALI" else "decode in order"
    gap(whole, decode, f"Clips from key frames cost {{times:.3g}} times as much as decoding nothing in vain {in_vain}.")
    gap("resample", "resample + augment", "Cropping, scaling and colours cost {times:.3g} times as much as the speeds.")
    gap("resample + augment", decode, "The graph without decoding can do {times:.3g} times what decoding can.")
    lowest = _lowest_alone(known)
    if lowest and "loader" in known:
        share = known["loader"] / known[lowest]
        told.append(f"The whole loader reaches {share:.0%} of its slowest part alone ({lowest}).")
    if "step" in known and "loader" in known:
        times = known["loader"] / known["step"]
        more = f"{times:.3g} times what the step takes" if times >= 1 else f"only {times:.0%} of what the step takes"
        told.append(f"Alone, the loader makes {more}.")
    if "loader + step" in known:
        both = known["loader + step"]
        slower = min(("loader", "step"), key=lambda name: known[name])
        told.append(f"Together they reach {both / known[slower]:.0%} of the slower of the two alone ({slower}).")
    return told


def _lowest_alone(known: Mapping[str, float]) -> str:
    """The slowest of the rungs that the loader consists of."""
    parts: Sequence[str] = ("plan", "decode needed", "decode by DALI", "resample + augment", "copy")
    return min((name for name in parts if name in known), key=lambda name: known[name], default="")
