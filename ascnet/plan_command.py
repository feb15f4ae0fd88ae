"""What `ascnet plan` does: say what a run needs, as a table or as JSON, with a few measured steps if asked."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from ascnet.cli import find_config
from ascnet.config import Config
from ascnet.errors import UserError
from ascnet.plan import decoding, length, memory, number_format, simulate_step
from ascnet.precision import pick_device

if TYPE_CHECKING:
    from dali_pipes import Corpus


def plan_command(args: argparse.Namespace) -> int:
    """Run `ascnet plan` with its parsed arguments."""
    config, corpus = _settings(args)
    result = make_plan(
        config, corpus, videos=args.videos, gpus=args.gpus, rate=args.rate, gop=args.gop, measure=args.measure
    )
    if args.json:
        print(json.dumps(result, indent=2))
    else:
        show(result, Console(highlight=False))
    return 0


def make_plan(
    config: Config,
    corpus: Corpus | None = None,
    *,
    videos: int | None = None,
    gpus: int = 1,
    rate: float | None = None,
    gop: int = 12,
    measure: int = 0,
) -> dict[str, Any]:
    """Everything that can be said of a run before it starts.

    Args:
        config: Its settings.
        corpus: Its videos, where they are there.
        videos: How many there are to train on, where there is no corpus.
        gpus: Processes.
        rate: Steps a second that decoding is planned for; None: the measured rate, else 1.
        gop: Frames from one key frame of the videos to the next.
        measure: Steps to make on this machine, after those that fill the look-ahead; 0: none.

    Returns:
        `settings`, `parameters`, `flops`, `memory`, `decode`, `steps`, `measured` and `time`; what is unknown is None.

    Raises:
        UserError: If there is nothing to measure with, or the settings cannot be used.
    """
    if measure and corpus is None:
        raise UserError("--measure needs videos: say corpus=PATH (the file that `dali-pipes index` writes)")
    with warnings.catch_warnings():
        # torch warns of looking at the address of a tensor without numbers, which is only used as a name.
        warnings.filterwarnings("ignore", message=".*FakeTensor.*")
        step = simulate_step(config)
    rows, frame_rate = _videos(config, corpus)
    rows = videos if rows is None else rows
    # The bank has a row for each video of the corpus, trained on or not.
    parts = memory(config, step, gpus=gpus, videos=len(corpus) if corpus is not None else rows)
    steps = length(config, rows, gpus)
    measured = measure_steps(config, corpus, measure) if measure and corpus is not None else None
    target = rate or (1 / measured["step_seconds"] if measured else 1.0)
    each = decoding(config, gop=gop, rate=frame_rate)
    seconds = measured["step_seconds"] * steps["steps"] if measured and steps["steps"] else None
    return {
        "settings": {
            "encoder": config.model.encoder,
            "width": config.model.width,
            "clip": [config.data.frames, config.data.size, config.data.size],
            "batch_size": config.data.batch_size,
            "gpus": gpus,
            "precision": number_format(config),
            "gamma": config.gamma,
            "symmetric": config.symmetric,
            "videos": rows,
        },
        "parameters": step["parameters"],
        "flops": step["flops"],
        "memory": parts,
        "device_memory": _device_memory(config),
        "decode": {
            "steps_per_second": target,
            "gop": gop,
            "per_step": {name: value * gpus for name, value in each.items()},
            "per_second": {name: value * gpus * target for name, value in each.items()},
        },
        "steps": steps,
        "measured": measured,
        "time": {"seconds": seconds},
    }


def measure_steps(config: Config, corpus: Corpus, steps: int) -> dict[str, float]:
    """Makes steps of the run on this machine, in a folder that is removed again.

    Returns:
        `steps` counted; medians over them of `step_seconds` and of the share of it that was spent waiting for clips;
        `clips_per_second`.

    Raises:
        UserError: If the run was interrupted.
    """
    from ascnet.pretrain import pretrain

    # The first steps start up everything, and have no positives until the look-ahead has been filled.
    first = config.retrieval.lookahead + 2
    short = replace(
        config,
        steps=first + steps,
        epochs=max(config.epochs, first + steps),
        log=replace(config.log, interval=first + steps, tensorboard=False),
    )
    with tempfile.TemporaryDirectory(prefix="ascnet-plan-") as name, contextlib.redirect_stdout(sys.stderr):
        summary = pretrain(short, corpus, Path(name) / "run")
        if summary["interrupted"]:
            raise UserError("--measure: interrupted before all of its steps were made")
        lines = (Path(name) / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines][first:]
    return {
        "steps": len(rows),
        **{key: float(np.median([row[key] for row in rows])) for key in ("step_seconds", "wait_share")},
        "clips_per_second": float(np.median([row["clips_per_second"] for row in rows])),
    }


def show(result: dict[str, Any], console: Console) -> None:
    """Print the plan as a table."""
    settings, table = result["settings"], Table(show_header=False, title_justify="left")
    table.title = (
        f"{settings['encoder']} x {settings['width']:g}, clips of {' x '.join(map(str, settings['clip']))}, "
        f"{settings['batch_size']} videos a step on each of {settings['gpus']} GPU(s), {settings['precision']}"
    )
    table.add_column("what")
    table.add_column("value", justify="right")
    for name, value in result["parameters"].items():
        table.add_row(f"parameters, {name.replace('_', ' ')}", f"{value:,}")
    table.add_section()
    for name, value in result["flops"].items():
        table.add_row(f"FLOPs a step and GPU, {name.replace('_', ' ')}", f"{value / 1e12:,.3f} T")
    table.add_section()
    for name, value in result["memory"].items():
        table.add_row(f"memory of a GPU, {name}", _bytes(value))
    if result["device_memory"] is not None:
        table.add_row("memory that the GPU has", _bytes(result["device_memory"]))
    table.add_section()
    decode = result["decode"]
    names = {"clips": "clips", "frames": "frames delivered", "frames_decoded": f"frames decoded, GOP {decode['gop']}"}
    for name, words in names.items():
        each, second = decode["per_step"][name], decode["per_second"][name]
        table.add_row(
            f"{words}, all GPUs", f"{each:,.0f} a step, {second:,.0f}/s at {decode['steps_per_second']:.3g}/s"
        )
    table.add_section()
    for name, value in result["steps"].items():
        table.add_row(name.replace("_", " "), "unknown without videos" if value is None else f"{value:,}")
    if result["measured"] is not None:
        known = result["measured"]
        table.add_row(f"a step, median of {known['steps']}", f"{known['step_seconds']:.3f} s")
        table.add_row("of it, waiting for clips", f"{known['wait_share']:.0%}")
        table.add_row("clips trained on", f"{known['clips_per_second']:,.1f}/s")
    if result["time"]["seconds"] is not None:
        table.add_row("the whole run at this rate", f"{result['time']['seconds'] / 3600:,.2f} h")
    console.print(table)


def _settings(args: argparse.Namespace) -> tuple[Config, Corpus | None]:
    corpus_given = [] if args.corpus is None else [f"corpus={args.corpus}"]
    path = None if args.config is None else find_config(args.config)
    config = Config.load(path, [*args.overrides, *corpus_given])
    for name, least in (("videos", 1), ("gpus", 1), ("gop", 1), ("measure", 0)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise UserError(f"--{name} {value}: must be at least {least}")
    if args.rate is not None and not args.rate > 0:
        raise UserError(f"--rate {args.rate:g}: must be above 0 steps/s")
    if not config.data.corpus:
        return config, None
    from dali_pipes import Corpus

    return config, Corpus.open(config.data.corpus)


def _videos(config: Config, corpus: Corpus | None) -> tuple[int | None, float | None]:
    """Videos to train on, and the median of their frame rates."""
    if corpus is None:
        return None, None
    split = config.data.split
    if split == "auto":
        split = "train" if "train" in corpus.splits else None
    rows = corpus.select(split)
    if not len(rows):
        raise UserError(f"{config.data.corpus}: no usable video in split {split or 'all'}")
    return len(rows), float(np.median(corpus.rate[rows]))


def _device_memory(config: Config) -> int | None:
    device = pick_device(config.device)
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None


def _bytes(value: float) -> str:
    return f"{value / 1e9:,.2f} GB" if value >= 1e8 else f"{value / 1e6:,.2f} MB"
