"""Figures of results that have no `figures`, from what they have in their place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bench.measure.figures import Better, figure
from bench.page.read import Result

Figures = dict[str, Mapping[str, Any]]


def figures_of(result: Result) -> Mapping[str, Any]:
    """The figures of any result; {} where nothing of it is one.

    Raises:
        TypeError, KeyError, ValueError: It has not the shape that its command gives.
    """
    own = result.data.get("figures")
    if isinstance(own, Mapping):
        return own
    known = OLDER.get(result.benchmark)
    return known(result.data) if known else {}


def _known(estimate: Mapping[str, Any], unit: str, better: Better) -> Mapping[str, Any]:
    return {**estimate, "unit": unit, "better": better}


def _cache(data: Mapping[str, Any]) -> Figures:
    return {
        f"{way} the cache, epoch {number + 1}": figure(float(epoch["pairs_per_second"]), "pairs/s", "higher")
        for way in ("without", "with")
        for number, epoch in enumerate(data[way])
    }


def _embed(data: Mapping[str, Any]) -> Figures:
    rates = {name: _known(one, "clips/s", "higher") for name, one in data["clips_per_second"].items()}
    shares = {f"{name} / loader alone": _known(one, "x", "higher") for name, one in data["ratio"].items()}
    return {**rates, **shares}


def _overhead(data: Mapping[str, Any]) -> Figures:
    names = {"plan_ms": "planning frames", "cut_ms": "cutting packets", "together_ms": "together"}
    return {
        f"{text} ({window})": _known(one[key], "ms CPU a request", "lower")
        for window, one in data["windows"].items()
        for key, text in names.items()
    }


def _lookahead(data: Mapping[str, Any]) -> Figures:
    found: Figures = {}
    for depth, one in data["depths"].items():
        found[f"lookahead {depth}, steps/s"] = figure(float(one["steps_per_second"]), "steps/s", "higher")
        found[f"lookahead {depth}, waiting"] = figure(100 * float(one["wait_share"]), "% of the time waiting", "lower")
    return found


def _size(data: Mapping[str, Any]) -> Figures:
    ends = {"seconds": "s", "mib": "MiB", "mib_before": "MiB", "mib_after": "MiB", "percent": "%", "second": "1/s"}
    found: Figures = {}
    for name, value in data["measured"].items():
        if isinstance(value, (int, float)):
            unit = next((unit for end, unit in ends.items() if name.endswith(f"_{end}")), "")
            better: Better = "higher" if unit == "1/s" or name == "videos" else "lower"
            found[name.replace("_", " ")] = figure(float(value), unit, better)
    return found


def _fuzz(data: Mapping[str, Any]) -> Figures:
    found: Figures = {name: figure(float(count), "files", "higher") for name, count in data["counts"].items()}
    return {**found, "failures": figure(float(len(data["failures"])), "failed files", "lower")}


def _ablation(data: Mapping[str, Any]) -> Figures:
    """Means over seeds with one standard deviation to both sides, as far as there is one."""
    found: Figures = {}
    for score in ("R@1", "R@5", "speed"):
        unit = f"{score}, %, mean ± standard deviation"
        found[f"chance {score}"] = figure(float(data["chance"][score]), unit, "higher")
        for method, scores in data["summary"].items():
            mean, spread = float(scores[score]["mean"]), float(scores[score]["std"] or 0.0)
            known = {"median": mean, "low": mean - spread, "high": mean + spread, "count": scores[score]["n"]}
            found[f"{method} {score}"] = _known(known, unit, "higher")
    return found


OLDER: Mapping[str, Callable[[Mapping[str, Any]], Figures]] = {
    "cache": _cache,
    "embed": _embed,
    "overhead": _overhead,
    "lookahead": _lookahead,
    "size": _size,
    "fuzz": _fuzz,
    "ablation": _ablation,
}
