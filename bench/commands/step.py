"""`python -m bench step`: how much of the training step's speed is lost to data.

The same training, once with a few batches that lie on the device already, once for every look-ahead with the loader,
and the loader alone. All begin with the same weights and the same first batch, and their first losses have to agree.
docs/bench-step.md says how to read the result.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console

from bench.measure.bandwidth import wait
from bench.measure.figures import figure, header
from bench.measure.options import open_corpus, positive
from bench.measure.output import write_json
from bench.measure.processes import cpu_seconds
from bench.measure.stats import estimate, ratios
from bench.step.table import print_result
from bench.step.turn import Turn
from bench.step.verdict import AIM, Measured, disturbed, judge
from dali_pipes import Progress
from dali_pipes.corpus.engine import default_workers
from dali_pipes.errors import DataError

if TYPE_CHECKING:
    from ascnet.config import Config
    from ascnet.logs.monitor import Monitor
    from bench.step.training import Supply, Training
    from dali_pipes import Corpus

DEVICE, LOADER = "data on the device", "loader alone"
# For two CPU cores, where no configuration is named.
SMALL = ("demo", ["data.batch_size=8"])
# Of the first loss, between trainings of the same batch with the same weights: rounding, which is coarse in bf16.
AGREE = 0.02
# An idle process uses less than this share of a core; loaders of other modes get so long to fill up.
IDLE, SETTLE = 0.2, 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this sub-command."""
    parser.add_argument("corpus", type=Path, metavar="CORPUS_OR_FOLDER", help="a .parquet index or a folder of videos")
    parser.add_argument("--config", help=f"configuration of the training (default: {SMALL[0]} with {SMALL[1][0]})")
    parser.add_argument("--set", nargs="+", default=[], metavar="key=value", help="further settings")
    parser.add_argument("--lookahead", nargs="+", type=int, default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--steps", type=positive, default=4, help="of a mode in a round (default: %(default)s)")
    parser.add_argument("--rounds", type=positive, default=4, help="rounds that count (default: %(default)s)")
    parser.add_argument("--warmup", type=int, default=1, help="rounds dropped before them (default: %(default)s)")
    parser.add_argument("--replay", type=positive, default=3, help="batches on the device (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of weights, batches and orders (default: %(default)s)")
    parser.add_argument("--trace", type=Path, metavar="DIR", help="write a trace of a few steps with the loader to DIR")
    parser.add_argument("--trace-steps", type=positive, default=4, help="steps of the trace (default: %(default)s)")
    parser.add_argument(
        "--require",
        type=float,
        metavar="SHARE",
        help="exit 1 where the best look-ahead is below this share, such as .95",
    )
    parser.add_argument("--output", type=Path, help="write the result here as JSON")


def run(args: argparse.Namespace) -> int:
    """Measure, print and save.

    Returns:
        0, or 1 where `--require` is missed or a mode trains on other clips.

    Raises:
        DataError, UserError: For a user's mistake.
    """
    if min(args.lookahead) < 0 or args.warmup < 0:
        raise DataError(f"--lookahead {' '.join(map(str, args.lookahead))} --warmup {args.warmup}: must be 0 or more")
    from ascnet.logs.monitor import Monitor
    from ascnet.precision import Precision, pick_device

    log = Console(stderr=True, highlight=False)
    corpus = open_corpus(args.corpus)
    # The configuration is there as a whole, without the paths that it may have been given with.
    result = header("step", args, corpus, taken=["trace", "config", "set"])
    config = configured(args, corpus)
    device = pick_device(config.device)
    depths = sorted(set(args.lookahead)) if config.gamma > 0 else [0]
    if depths != sorted(set(args.lookahead)):
        log.print("gamma is 0: no positives are retrieved, so there is nothing to look ahead for")
    result |= {
        "device": str(device),
        "precision": Precision(config.precision, device).name,
        "config": _settings(config),
    }
    with ExitStack() as stack:
        modes, losses = opened(config, corpus, device, depths, args.replay, stack, log)
        wrong = disagreeing(losses)
        right = {name: mode for name, mode in modes.items() if name not in wrong}
        result |= {"first_losses": losses, "wrong": wrong}
        if DEVICE in wrong or not set(right) - {DEVICE, LOADER}:
            raise DataError(f"nothing to compare: {'; '.join(f'{name}: {why}' for name, why in wrong.items())}")
        # So many steps empty what had been prepared before a turn began.
        leads = {name: 1 if name == DEVICE else config.data.prefetch + max(depths) for name in right}
        monitor = stack.enter_context(Monitor(device, every=0.2, say=log.print))
        rounds = _rounds(right, leads, args, monitor)
        if args.trace is not None:
            result["trace"] = _trace(right, config, args, device, log)
    result["rounds"] = [{name: asdict(turn) for name, turn in turns.items()} for turns in rounds]
    result["figures"] = figures_of(rounds)
    result["verdict"] = judge(measured(rounds)).as_dict() | {"aim": AIM}
    result["disturbed"] = disturbed(others(rounds), os.cpu_count() or 1)
    if args.require is not None:
        result["goal"] = {"goal": args.require, "met": result["verdict"]["share"] >= args.require}
    if args.output is not None:
        write_json(args.output, result)
    out = Console(highlight=False)
    print_result(result, rounds, out if out.is_terminal else Console(width=130, highlight=False))
    return int(bool(wrong) or not result.get("goal", {}).get("met", True))


def configured(args: argparse.Namespace, corpus: Corpus) -> Config:
    """The configuration, with as many clips of a video as fill a batch.

    Raises:
        ConfigError: If a setting is wrong.
    """
    from ascnet.cli import find_config
    from ascnet.config import Config

    name, settings = SMALL if args.config is None else (args.config, [])
    config = Config.load(find_config(name), [*settings, f"seed={args.seed}", *args.set])
    few = config.data.batch_size - len(corpus.select()) * config.data.clips_per_video
    if few > 0:
        count = -(-config.data.batch_size // max(1, len(corpus.select())))
        config = replace(config, data=replace(config.data, clips_per_video=count))
    return config


def opened(
    config: Config,
    corpus: Corpus,
    device: torch.device,
    depths: Sequence[int],
    keep: int,
    stack: ExitStack,
    log: Console,
) -> tuple[dict[str, Training | Supply], dict[str, float]]:
    """All modes, warm from a step or more, and the first loss of those that train."""
    from bench.step.training import Opener, Supply, Training

    opener = Opener(config, corpus, device, keep, stack)
    modes: dict[str, Training | Supply] = {}
    losses = {}
    for depth in depths:
        log.print(f"opening the loader for look-ahead {depth}")
        loader, stream = opener.open()
        made = Training(config, corpus, loader, stream, device, depth)
        made()
        losses[_named(depth)] = float(made.loss)
        if not modes:
            # The batches to replay go by.
            for _ in range(keep - 1):
                made()
        modes[_named(depth)] = made
    log.print("opening the loader alone")
    modes[LOADER] = Supply(config, corpus, *opener.open(), device, max(depths))
    modes[LOADER]()
    made = Training(config, corpus, *opener.replay(), device, 0)
    made()
    losses[DEVICE] = float(made.loss)
    return {DEVICE: made, LOADER: modes.pop(LOADER), **modes}, losses


def disagreeing(losses: Mapping[str, float]) -> dict[str, str]:
    """Modes whose first loss is another than with data on the device: they do not train on the same clips."""
    base = losses[DEVICE]
    return {
        name: f"its first loss is {loss:.4f}, with data on the device {base:.4f}: it trains on other clips"
        for name, loss in losses.items()
        if not abs(loss - base) <= AGREE * max(abs(base), 1e-3)  # so written that NaN is refused
    }


def _rounds(
    modes: Mapping[str, Training | Supply], leads: Mapping[str, int], args: argparse.Namespace, monitor: Monitor
) -> list[dict[str, Turn]]:
    order, rounds = random.Random(args.seed), []
    with Progress("step", (args.rounds + args.warmup) * len(modes), unit="turns") as progress:
        for number in range(-args.warmup, args.rounds):
            turns = {}
            for name in order.sample(list(modes), len(modes)):
                turns[name] = turn(modes[name], leads[name], args.steps, monitor)
                progress.advance()
            if number >= 0:
                rounds.append({name: turns[name] for name in modes})
    return rounds


def turn(mode: Training | Supply, lead: int, steps: int, monitor: Monitor) -> Turn:
    """Some steps of one mode, in its steady state.

    The loaders of other modes fill up before; what this one had prepared in the meantime goes by before the clock runs.
    """
    settle()
    for _ in range(lead):
        mode()
    wait(mode.device)
    monitor.read()
    cpu, waited, clips, begun = cpu_seconds(), mode.waited, mode.clips, time.perf_counter()
    for _ in range(steps):
        mode()
    wait(mode.device)
    seconds = time.perf_counter() - begun
    cpu = cpu_seconds() - cpu
    return Turn(
        steps / seconds, (mode.clips - clips) / seconds, (mode.waited - waited) / seconds, cpu / steps, monitor.read()
    )


def settle(limit: float = SETTLE, every: float = 0.05) -> None:
    """Waits until this process has nothing to do, or the limit is over."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        before = time.process_time()
        time.sleep(every)
        if time.process_time() - before < IDLE * every:
            return


def measured(rounds: Sequence[Mapping[str, Turn]]) -> Measured:
    """Medians over the rounds, for the verdict."""

    def median(name: str, value: str) -> float:
        return estimate([getattr(turns[name], value) for turns in rounds]).median

    depths = [int(name.split()[-1]) for name in rounds[0] if name not in (DEVICE, LOADER)]
    return Measured(
        device=median(DEVICE, "steps_per_second"),
        loader=median(LOADER, "steps_per_second"),
        rates={depth: median(_named(depth), "steps_per_second") for depth in depths},
        waiting={depth: median(_named(depth), "waiting") for depth in depths},
        device_cpu=median(DEVICE, "cpu_seconds_per_step"),
        loader_cpu=median(LOADER, "cpu_seconds_per_step"),
        cores=default_workers(),
    )


def others(rounds: Sequence[Mapping[str, Turn]]) -> float:
    """CPUs that other processes kept busy, median over all turns; 0 where the monitor cannot tell."""
    known = []
    for turns in rounds:
        for one in turns.values():
            if "host/cpu_load" in one.loads and "host/process_cpus" in one.loads:
                busy = one.loads["host/cpu_load"] * (os.cpu_count() or 1)
                known.append(max(0.0, busy - one.loads["host/process_cpus"]))
    return estimate(known).median if known else 0.0


def figures_of(rounds: Sequence[Mapping[str, Turn]]) -> dict[str, Any]:
    """What `bench compare` compares."""
    figures: dict[str, Any] = {}
    base = [turns[DEVICE].steps_per_second for turns in rounds]
    for name in rounds[0]:
        turns = [part[name] for part in rounds]
        rates = [one.steps_per_second for one in turns]
        figures[f"{name} steps/s"] = figure(rates, "steps/s", "higher")
        figures[f"{name} clips/s"] = figure([one.clips_per_second for one in turns], "clips/s", "higher")
        figures[f"{name} CPU s/step"] = figure([one.cpu_seconds_per_step for one in turns], "s", "lower")
        if name == DEVICE:
            continue
        figures[f"{name} / {DEVICE}"] = figure(ratios(rates, base), "x", "higher")
        if name != LOADER:
            lost = [1 - ratio for ratio in ratios(rates, base)]
            figures[f"{name} lost to data"] = figure(lost, "share", "lower")
            figures[f"{name} waiting"] = figure([one.waiting for one in turns], "share", "lower")
    return figures


def _trace(
    modes: Mapping[str, Training | Supply], config: Config, args: argparse.Namespace, device: torch.device, log: Console
) -> dict[str, Any]:
    """Traces the mode of the configuration's look-ahead, or else that of the longest."""
    from bench.step.trace import trace

    own = _named(config.retrieval.lookahead)
    name = own if own in modes else list(modes)[-1]
    settle()
    for _ in range(config.data.prefetch + 1):
        modes[name]()
    path, parts = trace(modes[name], args.trace, args.trace_steps, device)
    log.print(f"trace of {args.trace_steps} steps with {name}, for ui.perfetto.dev: {path}")
    return {"file": path.name, "mode": name, "steps": args.trace_steps, "ms_per_step": parts}


def _settings(config: Config) -> dict[str, Any]:
    """The configuration without paths of this machine."""
    settings = config.to_dict()
    for name in ("corpus", "cache"):
        settings["data"].pop(name, None)
    return settings


def _named(depth: int) -> str:
    return f"look-ahead {depth}"
