"""How a candidate's rate changes with one setting at a time, and from where on more of it no longer pays.

docs/bench-loader.md says how to read a curve.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.measure.check import Check
from bench.measure.plan import Request
from bench.measure.rounds import Figure, Round, figures, lead, measure
from bench.measure.stats import estimate, ratios
from bench.peers import Candidate, Setting
from bench.peers.base import LoaderCandidate
from dali_pipes.errors import DataError
from dali_pipes.tools.machine import memory

# Name of an axis on the command line -> the field of Setting.
AXES = {"workers": "workers", "batch-size": "batch_size", "prefetch": "prefetch"}
# A value this close to the best one is as good: a change nobody would give a core or a gigabyte for.
CLOSE = 0.05
# Memory of one worker process that has imported torch, OpenCV and a decoder; what stays open may take half of what
# is left.
WORKER_GIB, SHARE = 0.4, 0.5


@dataclass(frozen=True)
class Axis:
    """One setting and the values to try.

    Attributes:
        name: A key of `AXES`.
        values: At least two, rising.
    """

    name: str
    values: tuple[int, ...]

    def setting(self, plain: Setting, value: int) -> Setting:
        """The plain setting with this one at another value."""
        changed: dict[str, Any] = {AXES[self.name]: value}
        return replace(plain, **changed)

    def __str__(self) -> str:
        return f"{self.name}={','.join(map(str, self.values))}"


def axis(text: str) -> Axis:
    """`workers=1,2,4`, for argparse."""
    name, _, listed = text.partition("=")
    if name not in AXES:
        raise argparse.ArgumentTypeError(f"{text!r}: expected one of {', '.join(AXES)}, for example workers=1,2,4")
    try:
        values = sorted({int(part) for part in listed.split(",")})
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: the values must be whole numbers, for example 1,2,4") from None
    if len(values) < 2 or values[0] < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: a curve needs at least two values, all of at least 1")
    return Axis(name, tuple(values))


def knee(values: Sequence[int], rates: Sequence[Sequence[float]]) -> int:
    """The smallest value whose rate is as good as the best one.

    The best value has the highest median rate. Another is as good if its median is at least 95 % of that, or if the
    95 % interval of its rate over the best one's, taken round by round, reaches 1: then the two cannot be told apart.

    Args:
        values: Values of the setting, rising.
        rates: Rates of each value, one a round; the same rounds for all.
    """
    best = max(rates, key=lambda rate: float(np.median(rate)))
    for value, rate in zip(values, rates, strict=True):
        close = np.median(rate) >= (1 - CLOSE) * np.median(best)
        if close or estimate(ratios(rate, best)).high >= 1:
            return value
    raise ValueError("a curve without values")


def points(values: Sequence[int], rounds: Sequence[Sequence[Figure]], *, linear: bool) -> list[dict[str, Any]]:
    """One candidate's curve.

    Args:
        values: Values of the setting, rising.
        rounds: What was measured at each value, one a round; the same rounds for all.
        linear: Whether the value counts resources, so that twice of it should give twice the rate.

    Returns:
        For each value `value`, `samples_per_second`, `cpu_seconds_per_sample`, `gain` (over the first value, round by
        round) and, for resources, `efficiency`: the gain as a share of what the resources grew by.
    """
    rates = [[figure.samples_per_second for figure in turns] for turns in rounds]
    found = []
    for value, turns, rate in zip(values, rounds, rates, strict=True):
        gain = ratios(rate, rates[0])
        point: dict[str, Any] = {
            "value": value,
            "samples_per_second": estimate(rate).as_dict(),
            "cpu_seconds_per_sample": estimate([figure.cpu_seconds_per_sample for figure in turns]).as_dict(),
            "gain": estimate(gain).as_dict(),
        }
        if linear:
            point["efficiency"] = estimate([one * values[0] / value for one in gain]).as_dict()
        found.append(point)
    return found


def curve(along: Axis, turns: Mapping[int, Sequence[Round]]) -> dict[str, Any]:
    """Curve and knee of each candidate.

    Args:
        along: The axis.
        turns: Value -> its rounds. A candidate may be absent at values where it delivered other frames.

    Returns:
        Candidate -> `points`, `knee` (a value), `best` (the value of the highest median rate).
    """
    found: dict[str, Any] = {}
    names = dict.fromkeys(name for rounds in turns.values() for turn in rounds[:1] for name in turn.figures)
    for name in names:
        values = [value for value in along.values if turns.get(value) and name in turns[value][0].figures]
        of_value = [[turn.figures[name] for turn in turns[value]] for value in values]
        rates = [[figure.samples_per_second for figure in one] for one in of_value]
        best = max(range(len(values)), key=lambda place: float(np.median(rates[place])))
        found[name] = {
            "points": points(values, of_value, linear=along.name == "workers"),
            "knee": knee(values, rates),
            "best": values[best],
        }
    return found


def trace(
    along: Axis,
    classes: Mapping[str, type[Candidate]],
    requests: Sequence[Request],
    plain: Setting,
    *,
    rounds: int,
    warmup: int,
    seed: int,
    window: str,
    check: Callable[[Mapping[str, Candidate], Setting], dict[str, Check]],
    told: Callable[[str, int, Figure], None] = lambda name, number, figure: None,
    keep: bool | None = None,
) -> dict[str, Any]:
    """Measure all candidates at all values of an axis, interleaved: each round goes through the values in random order.

    At a value all candidates run in random order. The requests of a round come in the same order at all values. All
    stay open from round to round if memory allows; else those of a value are opened for each of its turns, and warmed
    up again.

    Args:
        along: Which setting, and the values.
        classes: Name -> candidate.
        requests: The plan.
        plain: The other settings.
        rounds: Rounds that count.
        warmup: Rounds dropped before them.
        seed: Seed of the orders.
        window: Name of the plan, for the figures.
        check: What the candidates deliver at a setting, compared; who is wrong there is not timed there.
        told: Called after each measurement with name and value, the round (negative: warm-up) and the figure.
        keep: Whether to keep all open; None: if memory allows.

    Returns:
        An entry of a result's `curves`, with `figures` in it.
    """
    settings = {value: along.setting(plain, value) for value in along.values}
    keep = fits(classes.values(), list(settings.values())) if keep is None else keep
    numbers = range(len(requests))
    checks: dict[int, dict[str, Check]] = {}
    turns: dict[int, list[Round]] = {value: [] for value in along.values}
    order = np.random.default_rng([seed, len(along.values)])

    def opened(value: int, stack: ExitStack) -> dict[str, Candidate]:
        """Those that are right at this value; all are compared when they are opened for the first time."""
        found: dict[str, Candidate] = {}
        for name, kind in classes.items():
            if value not in checks or checks[value][name].right:
                found[name] = kind(requests, settings[value])
                stack.callback(found[name].close)
        if value not in checks:
            checks[value] = check(found, settings[value])
        return {name: one for name, one in found.items() if checks[value][name].right}

    with ExitStack() as stack:
        kept = {value: opened(value, stack) for value in along.values} if keep else {}
        for number in range(-warmup if keep else 0, rounds):
            for value in order.permutation(along.values).tolist():
                with ExitStack() as turn:
                    candidates = kept[value] if keep else opened(value, turn)

                    def say(name: str, local: int, figure: Figure, at: int = value, now: int = number) -> None:
                        told(f"{name}, {along.name} {at},", now if local >= 0 else -1, figure)

                    done = measure(
                        candidates,
                        numbers,
                        rounds=1,
                        warmup=0 if keep else max(1, warmup),
                        batch_size=settings[value].batch_size,
                        lead=lead(settings[value]),
                        seed=[seed, number + warmup],
                        device=plain.device,
                        told=say,
                    )
                if number >= 0 and candidates:
                    turns[value] += done
    found: dict[str, Any] = {}
    for value in along.values:
        found |= figures(turns[value], f"{window}, {along.name}={value}")
    return {
        "axis": along.name,
        "values": list(along.values),
        "window": window,
        "around": {name: getattr(plain, field) for name, field in AXES.items() if name != along.name},
        "kept_open": keep,
        "checks": {str(value): {name: one.as_dict() for name, one in checks[value].items()} for value in checks},
        "rounds": {str(value): [turn.as_dict() for turn in turns[value]] for value in along.values},
        "candidates": curve(along, turns),
        "figures": found,
    }


def fits(classes: Iterable[type[Candidate]], settings: Sequence[Setting]) -> bool:
    """Whether the candidates of all settings can be open at once."""
    # Decoders on a GPU hold memory of their own there, of an amount that only they know.
    if any(setting.device.type == "cuda" for setting in settings):
        return False
    loaders = sum(issubclass(kind, LoaderCandidate) for kind in classes)
    needed = WORKER_GIB * loaders * sum(setting.workers for setting in settings)
    return needed <= SHARE * memory()[1] / 2**30


def print_curve(found: Mapping[str, Any], console: Console) -> None:
    """One table an axis: a candidate a line, a value a column, and the knee; below it who was wrong, and why."""
    around = ", ".join(f"{name} {value}" for name, value in found["around"].items())
    table = Table(title=f"{found['axis']} (window: {found['window']}; {around}), pairs/s [95 %]", title_justify="left")
    table.add_column("candidate", no_wrap=True)
    for value in found["values"]:
        table.add_column(f"{found['axis']} {value}", justify="right")
    table.add_column("knee", justify="right")
    for name in dict.fromkeys(name for checks in found["checks"].values() for name in checks):
        line = found["candidates"].get(name, {"points": [], "knee": "-"})
        cells = {point["value"]: _cell(point) for point in line["points"]}
        table.add_row(name, *(cells.get(value, "WRONG") for value in found["values"]), str(line["knee"]))
    console.print(table)
    for value, checks in found["checks"].items():
        for name, check in checks.items():
            if check["reason"]:
                console.print(f"{name}, {found['axis']} {value}: WRONG, not timed: {escape(check['reason'])}")


def _cell(point: Mapping[str, Any]) -> str:
    rate, gain = point["samples_per_second"], point["gain"]["median"]
    share = f", {100 * point['efficiency']['median']:.0f} %" if "efficiency" in point else ""
    return f"{rate['median']:.2f} [{rate['low']:.2f}, {rate['high']:.2f}]\nx {gain:.2f}{share}"


def once(axes: Sequence[Axis]) -> list[Axis]:
    """The axes, if none is given twice.

    Raises:
        DataError: If one is.
    """
    names = [one.name for one in axes]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise DataError(f"--over {twice}: given twice; list all its values in one, for example {twice}=1,2,4")
    return list(axes)
