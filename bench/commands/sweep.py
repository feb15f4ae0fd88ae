"""`python -m bench sweep`: threads, prefetch, decoder and look-ahead for this machine and corpus.

The search is in halving.py, a measurement in trial.py. docs/bench-sweep.md says how to read the result.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from bench.measure.figures import figure, header
from bench.measure.options import open_corpus
from bench.measure.output import write_json
from bench.measure.stats import estimate, ratios
from bench.sweep.halving import Found, Halving, LeftOut, TooShort
from bench.sweep.trial import KEYS, UNITS, Knobs, Objective, Rig, decoders, memory_available
from bench.sweep.tuned import check_target, write_tuned
from dali_pipes.corpus.engine import default_workers
from dali_pipes.errors import DataError

# Threads tried, as shares of the cores: fewer as well as more.
SHARES = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
PREFETCH = (1, 2, 4, 8)
LOOKAHEAD = (0, 1, 2)
# Of the memory free at the start, what the settings may take unless --memory-gib says.
MEMORY_SHARE = 0.8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this sub-command."""
    parser.add_argument("corpus", type=Path, metavar="CORPUS_OR_FOLDER", help="a .parquet index or a folder of videos")
    parser.add_argument("--config", type=Path, help="configuration of the run, by path or name (default: none)")
    parser.add_argument("--set", nargs="+", default=[], metavar="key=value", help="further settings of the run")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the settings found here, as YAML")
    parser.add_argument(
        "--objective",
        choices=tuple(UNITS),
        help="clips/s of the loader alone, or training steps/s with it (default: step with --config, else loader)",
    )
    parser.add_argument("--minutes", type=_amount, default=3.0, help="time of the search (default: %(default)g)")
    parser.add_argument(
        "--shortest", type=_amount, default=1.0, help="seconds of the shortest measurement (default: %(default)g)"
    )
    parser.add_argument(
        "--knobs",
        type=_knobs,
        default=tuple(KEYS),
        help="comma-separated, of: " + ", ".join(KEYS) + " (default: all)",
    )
    parser.add_argument(
        "--memory-gib",
        type=_amount,
        help=f"most that this process may hold (default: {MEMORY_SHARE:.0%} of what is free)".replace("%", "%%"),
    )
    parser.add_argument("--seed", type=int, default=0, help="of all orders (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="write the result here as JSON")


def run(args: argparse.Namespace) -> int:
    """Search, print and save.

    Raises:
        DataError, UserError: For a user's mistake.
    """
    from ascnet.cli import find_config
    from ascnet.config import Config

    base = find_config(str(args.config)) if args.config is not None else None
    if args.write is not None:
        check_target(args.write, base)
    config = Config.load(base, args.set)
    corpus = open_corpus(args.corpus)
    objective: Objective = args.objective or ("loader" if args.config is None else "step")
    result = header("sweep", args, corpus, taken=("write", "set"))
    result["set"] = _plain(args.set)
    log = Console(stderr=True, highlight=False)
    if config.data.cache is not None:
        log.print("data.cache is left out of the search: how it fills would be measured")
        config = replace(config, data=replace(config.data, cache=None))

    memory = args.memory_gib if args.memory_gib is not None else MEMORY_SHARE * memory_available()
    default = Knobs(
        threads=config.data.threads or default_workers(),
        prefetch=config.data.prefetch,
        decoder=config.data.decoder,
        lookahead=config.retrieval.lookahead,
    )
    rig = Rig(config, corpus, objective, memory, default)
    values = space(
        default,
        cores=default_workers(),
        decoder=decoders(corpus, rig.device, default.decoder),
        knobs=[name for name in args.knobs if name != "lookahead" or (objective == "step" and config.gamma > 0)],
    )
    random = np.random.default_rng(args.seed)
    count = math.prod(len(several) for several in values.values())
    log.print(f"{objective} on {rig.device}: {count} settings of " + ", ".join(_listed(values)))
    began = time.monotonic()
    try:
        with _Watched(rig, log, 60 * args.minutes) as watched:
            found = Halving(
                default,
                lambda incumbent, seen: proposals(incumbent, values, seen, random),
                watched.measure,
                budget=60 * args.minutes,
                shortest=args.shortest,
                cost=lambda knobs: knobs.cost,
                seed=args.seed,
                told=log.print,
            ).run()
    except LeftOut as error:
        raise DataError(f"{args.corpus}: the run as it is set cannot be measured ({default}): {error}") from error
    except TooShort as error:
        raise DataError(
            f"--minutes {args.minutes:g}: at least {math.ceil(error.needed / 6) / 10:g} are needed here; "
            "or lower --shortest, or data.batch_size by --set"
        ) from error
    result |= {"objective": objective, "unit": UNITS[objective], "seconds": time.monotonic() - began}
    result |= _described(found, rig, values)
    if args.write is not None:
        write_tuned(args.write, base, settings(found, args.set), comments(args, found, result))
    if args.output is not None:
        write_json(args.output, result)
    _print(found, result)
    return 0


def space(default: Knobs, *, cores: int, decoder: Sequence[str], knobs: Sequence[str]) -> dict[str, list[Any]]:
    """Values of each knob, in order; the default's is among them, and alone where a knob is not turned."""
    usual: dict[str, Sequence[Any]] = {
        "threads": [1, *(max(1, round(share * cores)) for share in SHARES)],
        "prefetch": PREFETCH,
        "decoder": decoder,
        "lookahead": LOOKAHEAD,
    }
    own = asdict(default)
    return {name: sorted({own[name], *(several if name in knobs else [])}) for name, several in usual.items()}


def proposals(
    incumbent: Knobs, values: Mapping[str, Sequence[Any]], seen: frozenset[Knobs], random: np.random.Generator
) -> list[Knobs]:
    """Settings not yet seen: those with one knob turned, the nearest values first, then all others in random order."""
    own = asdict(incumbent)
    near: list[tuple[int, Knobs]] = []
    for name, several in values.items():
        place = list(several).index(own[name])
        near += [(abs(at - place), replace(incumbent, **{name: value})) for at, value in enumerate(several)]
    near = [near[place] for place in random.permutation(len(near))]
    near.sort(key=lambda pair: pair[0])
    rest = [Knobs(*combination) for combination in itertools.product(*(values[name] for name in own))]
    rest = [rest[place] for place in random.permutation(len(rest))]
    return [knobs for knobs in dict.fromkeys([*(knobs for _, knobs in near), *rest]) if knobs not in seen]


def settings(found: Found[Knobs], given: Sequence[str]) -> dict[str, Any]:
    """Dotted keys of the file: what --set gave, since the gain was measured with it, and what was found."""
    from ascnet.config import ALIASES

    values: dict[str, Any] = {}
    for override in given:
        name, _, text = override.partition("=")
        values[ALIASES.get(name.strip(), name.strip())] = yaml.safe_load(text)
    values.pop("data.corpus", None)
    default = found.default.keys()
    return values | {name: value for name, value in found.best.keys().items() if value != default[name]}


def comments(args: argparse.Namespace, found: Found[Knobs], result: Mapping[str, Any]) -> list[str]:
    """What was measured, on what."""
    around = result["environment"]
    words = ["python -m bench sweep", args.corpus.name]
    words += ["--config", args.config.name] if args.config is not None else []
    words += ["--set", *_plain(args.set)] if args.set else []
    words += ["--objective", result["objective"], "--minutes", f"{args.minutes:g}", "--write", args.write.name]
    machine = f"{around['cpu']}, {around['cores_usable']} cores"
    machine += "".join(f", {gpu['name']}" for gpu in around["gpus"])
    return [
        f"Made by: {' '.join(words)}",
        f"Measured on {machine}; corpus {args.corpus.name} ({result['corpus']['fingerprint']}); {result['created']}.",
        verdict(found, result["unit"]),
    ]


def verdict(found: Found[Knobs], unit: str) -> str:
    """One sentence."""
    if found.gain is None:
        tried = len({trial.setting for trial in found.trials}) - 1
        return f"The default is kept ({found.default}): of {tried} other settings none is certainly quicker."
    return (
        f"{unit.capitalize()} {found.gain.median:.2f} times those of the default, 95 % interval "
        f"[{found.gain.low:.2f}, {found.gain.high:.2f}] of {found.gain.count} rounds: {found.best}."
    )


class _Watched:
    """Measurements with a bar of the time used, on a terminal."""

    def __init__(self, rig: Rig, log: Console, seconds: float) -> None:
        self.rig, self.seconds, self.began = rig, seconds, time.monotonic()
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[last]}"))
        self.bar = Progress(*columns, console=log, disable=not log.is_terminal, transient=True)
        self.task = self.bar.add_task("searching", total=seconds, last="")

    def measure(self, knobs: Knobs, turn: int, seconds: float, limit: float) -> float:
        rate = self.rig.measure(knobs, turn, seconds, limit)
        last = f"{knobs}: {rate:.2f} {UNITS[self.rig.objective]}"
        self.bar.update(self.task, completed=min(self.seconds, time.monotonic() - self.began), last=last)
        return rate

    def __enter__(self) -> _Watched:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()


def _described(found: Found[Knobs], rig: Rig, values: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    numbers = {knobs: number for number, knobs in enumerate(dict.fromkeys(trial.setting for trial in found.trials))}
    unit = UNITS[rig.objective]
    own, best = _rates(found)
    gains = ratios(best, own) if found.gain is not None else [1.0]
    return {
        "verdict": verdict(found, unit),
        "stopped": found.stopped,
        "kept_default": found.gain is None,
        "default": found.default.keys(),
        "best": found.best.keys(),
        "space": dict(values),
        "memory_gib_allowed": rig.memory_gib,
        "settings": [
            {
                "number": number,
                **knobs.keys(),
                "memory_gib": rig.memory.get(knobs),
                "left_out": found.left_out.get(knobs, ""),
            }
            for knobs, number in numbers.items()
        ],
        "trials": [{**_trial(asdict(trial)), "setting": numbers[trial.setting]} for trial in found.trials],
        "rounds": [{str(numbers[knobs]): rate for knobs, rate in turn.items()} for turn in found.rounds],
        "figures": {
            f"default {unit}": figure(own, unit, "higher"),
            f"best {unit}": figure(best, unit, "higher"),
            "gain (best / default)": figure(gains, "x", "higher"),
        },
    }


def _rates(found: Found[Knobs]) -> tuple[list[float], list[float]]:
    """Of default and best, in the rounds that both took part in; where there were none, what the rungs measured."""
    rounds = found.shared(found.default, found.best)
    if rounds:
        return [turn[found.default] for turn in rounds], [turn[found.best] for turn in rounds]
    rates = [
        trial.rate
        for trial in found.trials
        if trial.setting == found.default and trial.stage != "warm-up" and trial.rate is not None
    ]
    return rates, rates


def _trial(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key != "setting"}


def _print(found: Found[Knobs], result: Mapping[str, Any]) -> None:
    unit, out = result["unit"], Console()
    table = Table(title=f"rates in rounds against the default ({found.default})", title_justify="left")
    for name in (*asdict(found.default), f"{unit} [95 %]", "/ default [95 %]", "GiB"):
        table.add_column(name, justify="right")
    held = [entry["memory_gib"] for entry in result["settings"]]
    order = list(dict.fromkeys(trial.setting for trial in found.trials))
    for knobs in order:
        rounds = found.shared(knobs, found.default)
        if not rounds:
            continue
        rates, theirs = [turn[knobs] for turn in rounds], [turn[found.default] for turn in rounds]
        cells = [_interval(rates), "-" if knobs == found.default else _interval(ratios(rates, theirs))]
        memory = held[order.index(knobs)]
        mark = " <" if knobs == found.best else ""
        table.add_row(*map(str, asdict(knobs).values()), *cells, f"{memory:.2f}{mark}")
    if table.row_count:
        (out if out.is_terminal else Console(width=130)).print(table)
    for knobs, reason in found.left_out.items():
        print(f"left out: {knobs}: {reason}")
    print(f"{result['verdict']} The search ended: {found.stopped}.")


def _interval(values: Sequence[float]) -> str:
    known = estimate(values)
    return f"{known.median:.2f} [{known.low:.2f}, {known.high:.2f}]"


def _listed(values: Mapping[str, Sequence[Any]]) -> list[str]:
    return [f"{name} {'/'.join(map(str, several))}" for name, several in values.items() if len(several) > 1]


def _plain(given: Sequence[str]) -> list[str]:
    """Overrides without folders: results say nothing of the machine's."""
    return [
        f"{name}={Path(value).name if Path(value).is_absolute() else value}"
        for name, _, value in (override.partition("=") for override in given)
    ]


def _amount(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: must be a positive number")
    return value


def _knobs(text: str) -> tuple[str, ...]:
    chosen = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    unknown = [name for name in chosen if name not in KEYS]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown {', '.join(unknown)}; known: {', '.join(KEYS)}")
    return chosen
