"""`python -m bench ablation`: what each part of the method adds, as a table over methods and seeds.

A cell is one method with one seed: train (all but `untrained`), describe clips of all videos at 1x and 2x, retrieve,
probe the playback speed. Every finished cell is a JSON file in OUT/cells and is not made again; a cell that was
interrupted goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from bench.ablation import speed_probe
from bench.ablation import table as ablation_table
from bench.ablation.speed_task import speed_task
from bench.measure import environment
from bench.measure.options import positive
from bench.measure.output import write_json
from dali_pipes import Corpus, Progress
from dali_pipes.errors import DataError

if TYPE_CHECKING:
    from torch import nn

    from ascnet.config import Config
    from ascnet.evaluate.protocols import Protocol

FORMAT = 1
# Name -> what it changes in the configuration; configs/NAME.yaml changes the same in the published settings.
METHODS: dict[str, tuple[str, ...]] = {
    "untrained": (),
    "acp_only": ("gamma=0",),
    "scp_only": ("gamma=1",),
    "random_positive": ("retrieval.positive=random",),
    "retrieved": ("retrieval.positive=nearest",),
}
# Settings that change where and how quickly a cell is made, not what comes out.
FREE = (
    "log.",
    "checkpoint.",
    "data.corpus",
    "data.threads",
    "data.graph_threads",
    "data.processes",
    "data.prefetch",
    "device",
)
# Of metrics.jsonl, averaged over the last quarter of the steps: what to look at where a method disappoints.
WATCHED = ("loss_acp", "loss_scp", "feature_std", "motion_std", "positive_same_label", "scp_share", "wait_share")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this sub-command."""
    parser.add_argument("corpus", metavar="CORPUS", help="corpus file with train and test videos and their labels")
    parser.add_argument("--out", type=Path, required=True, help="folder of the cells and the table")
    parser.add_argument("--config", default="ablation_small", help="configuration of all cells (default: %(default)s)")
    parser.add_argument(
        "--methods",
        nargs="+",
        default=list(METHODS),
        metavar="METHOD",
        help=f"of {', '.join(METHODS)}, or key=value such as gamma=0.25 (default: the five)",
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--steps", type=positive, help="training steps of a cell (default: the configuration's)")
    parser.add_argument(
        "--clips", type=positive, default=5, help="clips of a video at each speed in scoring (default: %(default)s)"
    )
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="key=value",
        help="further settings of all cells, as for ascnet pretrain",
    )
    parser.add_argument(
        "--explain",
        action="store_true",
        help="also what the speed task needs to know of speed: its loss for positives of the same and the other speed",
    )


def run(args: argparse.Namespace) -> int:
    """Make the cells that are missing, then the table.

    Returns:
        0, or 130 where a signal ended the training of a cell.

    Raises:
        DataError, UserError: For a user's mistake.
    """
    configs = {(method, seed): configuration(args, method, seed) for seed in args.seeds for method in args.methods}
    corpus = Corpus.open(args.corpus)
    _check_corpus(corpus)
    surroundings = environment.describe()
    cells = []
    with Progress("ablation", len(configs), unit="cells") as meter:
        for (method, seed), config in configs.items():
            cell = make_cell(args.out, method, seed, config, corpus, args.clips)
            if cell is None:
                return 130
            cells.append(cell)
            meter.advance()
    summary = ablation_table.summarise(cells)
    result = {
        "format": FORMAT,
        "benchmark": "ablation",
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": _command(args),
        "environment": surroundings,
        "corpus": {"fingerprint": corpus.fingerprint, "videos": len(corpus), "classes": len(corpus.classes)},
        "config": _settings(next(iter(configs.values()))),
        "methods": {method: list(changes(method)) for method in args.methods},
        "chance": _chance(corpus),
        "summary": summary,
        "cells": cells,
    }
    if args.explain:
        result["speed_task"] = explain(args, configs, corpus)
    write_json(args.out / "ablation.json", result)
    ablation_table.write_markdown(args.out / "ablation.md", result)
    ablation_table.show(result, Console())
    print(f"wrote {args.out / 'ablation.json'}\nwrote {args.out / 'ablation.md'}")
    return 0


def explain(
    args: argparse.Namespace, configs: Mapping[tuple[str, int], Config], corpus: Corpus
) -> dict[str, dict[str, dict[str, float]]]:
    """Mean and standard deviation over seeds of what the speed task needs, by method; those without it are left out.

    Raises:
        DataError: If the run of a finished cell is gone.
    """
    found: dict[str, list[dict[str, float]]] = {}
    for (method, seed), config in configs.items():
        if method == "untrained" or config.gamma == 0:
            continue
        run = args.out / "runs" / _name(method, seed)
        if not (run / "checkpoints").is_dir():
            raise DataError(f"{run}: the run is gone, and --explain looks into it; remove its cell to make both again")
        protocol = _protocol(config, args.clips)
        found.setdefault(method, []).append(speed_task(run, corpus, protocol, seed=seed, threads=config.data.threads))
    return {
        method: {name: ablation_table.spread([one[name] for one in several]) for name in several[0]}
        for method, several in found.items()
    }


def changes(method: str) -> tuple[str, ...]:
    """The overrides that make a method of the configuration.

    Raises:
        DataError: For a name that is neither a method nor key=value.
    """
    if method in METHODS:
        return METHODS[method]
    if "=" not in method:
        raise DataError(f"--methods {method}: expected {', '.join(METHODS)}, or key=value such as gamma=0.25")
    return (method,)


def configuration(args: argparse.Namespace, method: str, seed: int) -> Config:
    """The settings of a cell."""
    from ascnet.cli import find_config
    from ascnet.config import Config

    steps = [] if args.steps is None else [f"steps={args.steps}"]
    fixed = [f"corpus={args.corpus}", f"seed={seed}"]
    return Config.load(find_config(args.config), [*steps, *args.set, *fixed, *changes(method)])


def make_cell(out: Path, method: str, seed: int, config: Config, corpus: Corpus, clips: int) -> dict[str, Any] | None:
    """One method with one seed: read where it has been made, else trained and scored.

    Returns:
        The cell; None where a signal ended its training.

    Raises:
        DataError: If the folder has a cell of that name made with other settings.
    """
    name = _name(method, seed)
    path = out / "cells" / f"{name}.json"
    settings = _settings(config) | {"clips": clips, "corpus": corpus.fingerprint}
    if path.is_file():
        return _finished(path, settings)
    begun = time.monotonic()
    training: dict[str, Any] = {}
    if method == "untrained":
        from ascnet.evaluate.run import untrained_encoder

        encoder = untrained_encoder(config.to_dict(), seed)
    else:
        from ascnet.pretrain import pretrain
        from ascnet.weights import load_encoder

        run = out / "runs" / name
        summary = pretrain(config, corpus, run, resume=True)
        if summary["interrupted"]:
            return None
        encoder = load_encoder(run)
        training = {"steps": summary["steps"], **watched(run / "metrics.jsonl")}
    trained = time.monotonic() - begun
    scores = score(encoder, corpus, _protocol(config, clips), config)
    cell = {
        "method": method,
        "seed": seed,
        "settings": settings,
        "scores": scores,
        "training": training,
        "seconds": {"training": round(trained, 1), "all": round(time.monotonic() - begun, 1)},
    }
    write_json(path, cell)
    return cell


def score(encoder: nn.Module, corpus: Corpus, protocol: Protocol, config: Config) -> dict[str, float]:
    """Retrieval of test among training videos and accuracy of the speed probe, percent; clips at 1x serve both."""
    from ascnet.evaluate.features import Features
    from ascnet.evaluate.run import retrieve
    from ascnet.precision import pick_device

    device = pick_device(config.device)
    train, test = corpus.select("train"), corpus.select("test")
    rows = np.concatenate([train, test])
    parts = [
        speed_probe.clip_features(encoder, corpus, rows, at, device=device, threads=config.data.threads)
        for at in speed_probe.at_speeds(protocol)
    ]
    usual = parts[0]
    features = Features(usual.rows, usual.vectors.mean(axis=1), usual.failed)
    plain = retrieve(features, corpus, protocol).recalls
    centred = retrieve(features, corpus, replace(protocol, center=True)).recalls
    probed = speed_probe.probe(speed_probe.samples(parts, train), speed_probe.samples(parts, test))
    return {
        **{f"R@{k}": value for k, value in plain.items()},
        **{f"R@{k} centred": value for k, value in centred.items()},
        "speed": probed["accuracy"],
        "speed, training clips": probed["train_accuracy"],
        "left out": float(sum(len(part.failed) for part in parts)),
    }


def watched(path: Path) -> dict[str, float]:
    """Means over the last quarter of a run's steps."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    late = lines[-max(1, len(lines) // 4) :]
    means = {}
    for name in WATCHED:
        values = [line[name] for line in late if isinstance(line.get(name), (int, float))]
        if values:
            means[name] = float(np.mean(values))
    return means


def _name(method: str, seed: int) -> str:
    return f"{method.replace('/', '_')}-seed{seed}"


def _finished(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    try:
        cell: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        then = cell["settings"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not a finished cell ({error}); remove it") from error
    now = json.loads(json.dumps(settings))
    changed = [name for name in sorted(now.keys() | then.keys()) if now.get(name) != then.get(name)]
    if changed:
        shown = ", ".join(f"{name} {then.get(name)!r} -> {now.get(name)!r}" for name in changed)
        raise DataError(f"{path} was made with other settings ({shown}); give another --out, or remove it")
    return cell


def _settings(config: Config) -> dict[str, Any]:
    from ascnet.settings import flatten

    return {name: value for name, value in flatten(config.to_dict()).items() if not name.startswith(FREE)}


def _protocol(config: Config, clips: int) -> Protocol:
    from ascnet.evaluate.command import protocol_of

    return protocol_of(config.to_dict(), clips=clips, ks=(1, 5))


def _check_corpus(corpus: Corpus) -> None:
    for split in ("train", "test"):
        if split not in corpus.splits or not len(corpus.select(split)):
            raise DataError(f"{corpus.path}: no usable video in split {split!r}; the ablation needs train and test")
        if (corpus.labels[corpus.select(split)] < 0).any():
            raise DataError(f"{corpus.path}: videos of split {split!r} have no label; retrieval is scored by labels")


def _chance(corpus: Corpus) -> dict[str, float]:
    from ascnet.evaluate.baselines import chance

    exact = chance(corpus.labels[corpus.select("test")], corpus.labels[corpus.select("train")], (1, 5))
    recalls = {f"R@{k}": value for k, value in exact.items()}
    return {**recalls, **{f"{name} centred": value for name, value in recalls.items()}, "speed": 50.0}


def _command(args: argparse.Namespace) -> str:
    words: list[str] = ["python -m bench ablation", Path(args.corpus).name, f"--config {args.config}"]
    words += ["--seeds", *map(str, args.seeds), "--methods", *args.methods]
    words += [] if args.steps is None else [f"--steps {args.steps}"]
    words += ["--explain"] if args.explain else []
    words += [f"--clips {args.clips}", *(["--set", *args.set] if args.set else [])]
    return " ".join(words)
