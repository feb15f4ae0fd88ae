"""`python -m bench compare A.json B.json`: what became better or worse from one result to another, beyond noise.

docs/bench-compare.md says how intervals are made and what ends the command with 1.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.measure.changes import Change, compared
from bench.measure.figures import header
from bench.measure.output import write_json
from bench.measure.rounds import Figure, Round, figures
from bench.page.older import OLDER
from dali_pipes.errors import DataError

RATIOS = "ratios"
COLOURS = {"better": "green", "worse": "red"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this sub-command."""
    parser.add_argument("before", type=Path, metavar="A.json", help="result to compare with")
    parser.add_argument("after", type=Path, metavar="B.json", help="result of the same benchmark")
    parser.add_argument(
        "--threshold",
        type=share,
        default=0.15,
        help="loss, as a share, beyond which a figure that is certainly worse ends in exit 1 (default: %(default)s)",
    )
    parser.add_argument(
        "--only",
        type=pattern,
        metavar="REGEX",
        help=f"only figures whose name it finds; the word `{RATIOS}`: those that are ratios (unit x)",
    )
    parser.add_argument("--output", type=Path, help="write the comparison here as JSON")


def run(args: argparse.Namespace) -> int:
    """Compare, print and save.

    Returns:
        0, or 1 where a figure is worse by more than the threshold and its interval excludes that nothing changed.

    Raises:
        DataError: If a file is no result, the benchmarks differ, or no figure is in both.
    """
    before, after = read(args.before), read(args.after)
    if before["benchmark"] != after["benchmark"]:
        raise DataError(
            f"{args.after}: a result of `bench {after['benchmark']}`, and {args.before} of `bench "
            f"{before['benchmark']}`; compare two of the same benchmark"
        )
    old, new = figures_of(before, args.before), figures_of(after, args.after)
    chosen = [name for name in old if name in new and wanted(args.only, name, old[name])]
    if not chosen:
        which = "" if args.only is None else f" that --only {args.only} finds"
        raise DataError(f"{args.before} and {args.after}: no figure{which} is in both")
    for name in chosen:
        for key in ("unit", "better"):
            if old[name][key] != new[name][key]:
                raise DataError(f"{args.after}: {key} of {name!r} is {new[name][key]}, elsewhere {old[name][key]}")
    for line in differences(before, after):
        print(f"warning: {line}", file=sys.stderr)
    for path, mine, others in ((args.before, old, new), (args.after, new, old)):
        alone = [name for name in mine if name not in others and wanted(args.only, name, mine[name])]
        if alone:
            print(f"warning: only in {path.name}: {'; '.join(alone)}", file=sys.stderr)
    changes = compared(old, new, chosen)
    failed = [one for one in changes if one.fails(args.threshold)]
    out = Console()
    show(changes, args.threshold, out if out.is_terminal else Console(width=130))
    if args.output is not None:
        result = header("compare", args)
        result |= {
            "of": before["benchmark"],
            "differences": differences(before, after),
            "changes": [one.as_dict() for one in changes],
            "failed": [one.name for one in failed],
            "figures": {
                one.name: {
                    "median": one.ratio,
                    "low": one.low,
                    "high": one.high,
                    "count": 1,
                    "unit": "x",
                    "better": old[one.name]["better"],
                }
                for one in changes
                if one.ratio is not None
            },
        }
        write_json(args.output, result)
    return 1 if failed else 0


def read(path: Path) -> dict[str, Any]:
    """A result of any benchmark.

    Raises:
        DataError: If the file cannot be read or is none.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise DataError(f"{path}: not JSON: {error}") from error
    if not isinstance(result, dict) or not isinstance(result.get("benchmark"), str):
        raise DataError(f"{path}: no result of a benchmark: it has no key 'benchmark'")
    return result


def figures_of(result: Mapping[str, Any], path: Path) -> dict[str, dict[str, Any]]:
    """The figures of a result; of one without, they are made from what it has in their place, if that is known.

    Raises:
        DataError: If it has none, or one lacks what a figure has.
    """
    found = result.get("figures")
    try:
        if not found and result["benchmark"] == "loader":
            found = {}
            for window, part in result.get("windows", {}).items():
                found |= _of_window(window, part)
        elif not found and result["benchmark"] in OLDER:
            found = OLDER[result["benchmark"]](result)
        for name, one in (found or {}).items():
            if not {"median", "low", "high", "unit", "better"} <= set(one):
                raise DataError(f"{path}: figure {name!r} needs median, low, high, unit and better")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not the shape of a result: {type(error).__name__}: {error}") from error
    if not found:
        raise DataError(f"{path}: this result of `bench {result['benchmark']}` has no figures; measure again")
    return dict(found)


def _of_window(window: str, part: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Figures of one window of `bench loader`: from its rounds where they were kept, else from its summary."""
    if part.get("rounds"):
        rounds = [
            Round(turn["order"], {name: Figure(**one) for name, one in turn["figures"].items()})
            for turn in part["rounds"]
        ]
        return figures(rounds, window)
    found = {}
    for name, known in part["summary"].items():
        found[f"{name} pairs/s ({window})"] = known["samples_per_second"] | {"unit": "pairs/s", "better": "higher"}
        found[f"{name} CPU s/pair ({window})"] = known["cpu_seconds_per_sample"] | {"unit": "s/pair", "better": "lower"}
        if "ratio_of_ours" in known:
            found[f"ours / {name} ({window})"] = known["ratio_of_ours"] | {"unit": "x", "better": "higher"}
    return found


def wanted(only: str | None, name: str, figure: Mapping[str, Any]) -> bool:
    """Whether --only lets a figure through."""
    if only is None:
        return True
    return figure["unit"] == "x" if only == RATIOS else re.search(only, name) is not None


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """In what the surroundings of two results differ, a line each: machine, packages, videos, arguments."""
    pairs: list[tuple[str, Any, Any]] = []
    old, new = before.get("environment", {}), after.get("environment", {})
    for key in ("cpu", "cores_usable", "gpus", "python"):
        pairs.append((key, old.get(key), new.get(key)))
    pairs += _each("package ", old.get("packages"), new.get("packages"))
    prints = [(one.get("corpus") or {}).get("fingerprint") for one in (before, after)]
    pairs.append(("corpus fingerprint", prints[0], prints[1]))
    # What only one of them knows is an option that came later.
    mine, others = before.get("arguments") or {}, after.get("arguments") or {}
    pairs += _each(
        "argument ", *({k: v for k, v in one.items() if k in mine and k in others} for one in (mine, others))
    )
    found = [f"{what} differs: {_shown(one)}, then {_shown(other)}" for what, one, other in pairs if one != other]
    machine = any(one != other for what, one, other in pairs if what in ("cpu", "cores_usable", "gpus"))
    if machine:
        found.append("different machines: absolute rates say little, ratios (--only ratios) remain")
    return found


def _each(prefix: str, mine: Mapping[str, Any] | None, others: Mapping[str, Any] | None) -> list[tuple[str, Any, Any]]:
    mine, others = mine or {}, others or {}
    return [(prefix + key, mine.get(key), others.get(key)) for key in sorted(set(mine) | set(others))]


def _shown(value: Any) -> str:
    return "none" if value is None else json.dumps(value) if isinstance(value, (list, dict)) else str(value)


def show(changes: list[Change], threshold: float, console: Console) -> None:
    """A line a figure, the greatest loss first, and the count of each verdict."""
    table = Table(title="A -> B", title_justify="left")
    for name in ("figure", "unit", "A", "B", "B / A [95 %]", "verdict"):
        table.add_column(name, justify="left" if name in ("figure", "unit", "verdict") else "right")
    for one in changes:
        ratio = "-" if one.ratio is None else f"{one.ratio:.3f} [{one.low:.3f}, {one.high:.3f}]"
        said = f"{one.verdict}: FAILED, over {100 * threshold:g} %" if one.fails(threshold) else one.verdict
        colour = COLOURS.get(one.verdict)
        table.add_row(
            escape(one.name),
            one.unit,
            *("-" if value is None else f"{value:.4g}" for value in (one.before, one.after)),
            ratio,
            f"[{colour}]{said}[/{colour}]" if colour else said,
        )
    console.print(table)
    counts = {word: sum(one.verdict == word for one in changes) for word in ("better", "worse", "within noise")}
    failed = sum(one.fails(threshold) for one in changes)
    console.print(
        f"{len(changes)} figures: "
        + ", ".join(f"{count} {word}" for word, count in counts.items())
        + f"; {failed} worse by more than {100 * threshold:g} %"
    )


def share(text: str) -> float:
    """A share of 0 or more, for argparse."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: expected a share, for example 0.15 for 15 %")
    return value


def pattern(text: str) -> str:
    """A regular expression, for argparse."""
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r}: not a regular expression: {error}") from None
    return text
