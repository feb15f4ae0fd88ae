"""`python -m bench lookahead`: what searching for positives some steps ahead saves, and what it changes.

The same run is made for several depths: same seed, same batches, same weights at the start. With depth 0 (Algorithm 1
to the letter) a step waits while its positives are decoded. With depth d they are searched for d steps early, with
weights and a bank that are d steps older; so other videos may be chosen, and the runs drift apart as any two do that
differ in a detail. The share of equal choices is therefore given early and late in the run, beside what the training
comes to.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.measure import environment
from bench.measure.options import positive
from bench.measure.output import write_json
from dali_pipes import ClipBatch, ClipRequest, Corpus
from dali_pipes.errors import DataError

if TYPE_CHECKING:
    import torch

    from ascnet.config import Config
    from ascnet.retrieval import Loader, Stream

FORMAT = 1
# Steps in which decoders and caches warm up.
WARMUP = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this sub-command."""
    parser.add_argument("corpus", metavar="CORPUS", help="corpus file; labels, train and test splits are used if there")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs and the result")
    parser.add_argument("--config", default="ablation_small", help="configuration (default: %(default)s)")
    parser.add_argument("--depths", nargs="+", type=int, default=[0, 1, 2, 4], help="default: 0 1 2 4")
    parser.add_argument("--seed", type=int, default=0, help="of all runs (default: %(default)s)")
    parser.add_argument("--steps", type=positive, help="training steps of a run (default: the configuration's)")
    parser.add_argument("--set", nargs="+", default=[], metavar="key=value", help="further settings of all runs")


class Recorder:
    """A stream of positives that remembers which video was asked for, for which sample.

    Attributes:
        chosen: (epoch, position, role) of a sample -> video.
    """

    def __init__(self, stream: Stream) -> None:
        self.chosen: dict[tuple[int, int, int], int] = {}
        self._stream = stream

    def submit(self, requests: list[ClipRequest]) -> None:
        self.chosen.update({(r.key.epoch, r.key.position, r.key.role): r.video for r in requests})
        self._stream.submit(requests)

    def get(self) -> ClipBatch:
        return self._stream.get()

    def close(self) -> None:
        self._stream.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def run(args: argparse.Namespace) -> int:
    """Make the runs, print and save; 130 where a signal ended one.

    Raises:
        DataError, UserError: For a user's mistake.
    """
    if min(args.depths) < 0:
        raise DataError(f"--depths {' '.join(map(str, args.depths))}: must be 0 or more")
    from ascnet.cli import find_config
    from ascnet.config import Config

    corpus = Corpus.open(args.corpus)
    surroundings = environment.describe()
    depths = list(dict.fromkeys(args.depths))
    base = depths[0]
    found: dict[int, dict[str, Any]] = {}
    choices: dict[int, dict[tuple[int, int, int], int]] = {}
    for depth in depths:
        steps = [] if args.steps is None else [f"steps={args.steps}"]
        fixed = [f"corpus={args.corpus}", f"seed={args.seed}", f"retrieval.lookahead={depth}", "log.interval=1"]
        config = Config.load(find_config(args.config), [*steps, *args.set, *fixed])
        if config.gamma == 0:
            raise DataError("gamma is 0: nothing is retrieved, so there is nothing to look ahead for")
        made = _one(config, corpus, args.out / f"depth{depth}")
        if made is None:
            return 130
        found[depth], choices[depth] = made
    for depth in depths[1:]:
        found[depth]["agreement"] = agreement(choices[base], choices[depth])
    result = {
        "format": FORMAT,
        "benchmark": "lookahead",
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "arguments": {k: v for k, v in vars(args).items() if k not in ("corpus", "out", "command")},
        "environment": surroundings,
        "corpus": {"name": Path(args.corpus).name, "fingerprint": corpus.fingerprint, "videos": len(corpus)},
        "depths": {str(depth): values for depth, values in found.items()},
    }
    write_json(args.out / "lookahead.json", result)
    _print(found, base)
    return 0


def _one(config: Config, corpus: Corpus, out: Path) -> tuple[dict[str, Any], dict[tuple[int, int, int], int]] | None:
    """One run: its figures and its choices; None where a signal ended it."""
    from ascnet.build import open_clips
    from ascnet.pretrain import pretrain

    recorders: list[Recorder] = []

    def record(config: Config, corpus: Corpus, device: torch.device, *more: Any) -> tuple[Loader, Stream | None]:
        loader, stream = open_clips(config, corpus, device, *more)
        assert stream is not None
        recorders.append(Recorder(stream))
        return loader, recorders[-1]

    summary = pretrain(config, corpus, out, open_data=record)
    if summary["interrupted"]:
        return None
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return figures(lines) | _scores(out, corpus, config), recorders[0].chosen


def figures(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of a run's steps after the first few: time, share of it spent waiting for clips, and the losses at the end."""
    late = lines[min(WARMUP, len(lines) // 2) :]
    last = lines[-max(1, len(lines) // 4) :]
    seconds = np.array([line["step_seconds"] for line in late])
    waited = np.array([line["wait_share"] * line["step_seconds"] for line in late])
    values: dict[str, Any] = {
        "steps": len(lines),
        "step_seconds": float(np.median(seconds)),
        "steps_per_second": float(len(late) / seconds.sum()),
        "wait_share": float(waited.sum() / seconds.sum()),
    }
    # retrieval_agreement: how many of the positives would have been chosen at the step itself as well.
    for name in ("loss_acp", "loss_scp", "feature_std", "positive_same_label", "retrieval_agreement"):
        known = [line[name] for line in last if isinstance(line.get(name), (int, float))]
        values[name] = float(np.mean(known)) if known else None
    return values


def _scores(out: Path, corpus: Corpus, config: Config) -> dict[str, Any]:
    """R@1 and R@5 of test among training videos, where the corpus has both, with labels."""
    from ascnet.evaluate.command import protocol_of
    from ascnet.evaluate.run import evaluate
    from ascnet.precision import pick_device
    from ascnet.weights import load_encoder

    if not {"train", "test"} <= set(corpus.splits) or (corpus.labels < 0).any():
        return {}
    protocol = protocol_of(config.to_dict(), clips=5, ks=(1, 5))
    recalls = evaluate(load_encoder(out), corpus, protocol, device=str(pick_device(config.device))).recalls
    return {f"R@{k}": value for k, value in recalls.items()}


def agreement(base: dict[tuple[int, int, int], int], other: dict[tuple[int, int, int], int]) -> dict[str, float | None]:
    """Share of samples, of those that have a positive in both runs, whose positive comes from the same video.

    Returns:
        `all`; `early` and `late`: the first and the last quarter, in the order of training.
    """
    same = [base[key] == other[key] for key in sorted(base.keys() & other.keys())]
    quarter = max(1, len(same) // 4)

    def share(part: list[bool]) -> float | None:
        return sum(part) / len(part) if part else None

    return {"all": share(same), "early": share(same[:quarter]), "late": share(same[-quarter:])}


def _print(found: dict[int, dict[str, Any]], base: int) -> None:
    columns = ("look-ahead", "steps/s", "waiting", "as at the step", f"as with {base} (early, late)", "same label")
    table = Table(*columns, "R@1, R@5", title="positives:", title_justify="center")

    def share(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.0f} %"

    for depth, values in found.items():
        same = values.get("agreement")
        scores = ", ".join(f"{values[name]:.1f}" for name in ("R@1", "R@5") if name in values)
        table.add_row(
            str(depth),
            f"{values['steps_per_second']:.2f}",
            share(values["wait_share"]),
            share(values["retrieval_agreement"]),
            "-" if same is None else f"{share(same['all'])} ({share(same['early'])}, {share(same['late'])})",
            share(values["positive_same_label"]),
            scores or "-",
        )
    Console().print(table)
