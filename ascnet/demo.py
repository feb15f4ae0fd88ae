"""`ascnet demo`: raw videos in, a pretrained encoder and retrieved neighbours out, from nothing but this package.

The videos are generated (`dali_pipes.corpus.synthetic`): their class is what is seen times how it moves, so neither
colour nor place gives it away. Training never sees a label; retrieval is scored with them, the untrained encoder beside
the trained one.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from ascnet.cli import find_config
from ascnet.config import Config
from ascnet.errors import UserError
from ascnet.evaluate.command import compare, protocol_of, save, show
from ascnet.evaluate.figures import contact_sheet
from ascnet.evaluate.run import untrained_encoder
from ascnet.evaluate.tables import write_json
from ascnet.precision import pick_device
from ascnet.pretrain import pretrain
from ascnet.weights import load_encoder
from dali_pipes import Corpus, Progress, make_demo_corpus

MARK = "demo.json"
"""Written into the demo's folder first; only a folder that holds it is ever emptied."""


@dataclass(frozen=True)
class DemoCorpus:
    """Which videos are generated; the arguments of `make_demo_corpus`."""

    videos: int
    appearances: int
    motions: int
    frames: int
    size: int
    codec: str = "mjpeg"
    seed: int = 0


DEMO = DemoCorpus(videos=360, appearances=4, motions=3, frames=96, size=64)
LONG = DemoCorpus(videos=720, appearances=4, motions=3, frames=96, size=64)


def run_demo(
    *,
    long: bool = False,
    out: str | os.PathLike[str] | None = None,
    seed: int = 0,
    corpus_seed: int = 0,
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """Make videos, index them, pretrain, retrieve, and say what came out.

    Args:
        long: The larger corpus and the longer training.
        out: Folder for everything; None: runs/demo or runs/demo-long.
        seed: Of weights and draws. The videos are the same for every seed.
        corpus_seed: Of the videos. The settings were found on those of seed 0.
        overrides: `key=value` settings of the pretraining.

    Returns:
        The summary of the pretraining, with R@k by name as `recall` unless it was interrupted.

    Raises:
        UserError: If `out` holds something that is not a demo's.
    """
    started = time.monotonic()
    console = Console(highlight=False)
    name = "demo-long" if long else "demo"
    folder = Path(out) if out is not None else Path("runs") / name
    settings = replace(LONG if long else DEMO, seed=corpus_seed)
    # Before any work: a mistake in the settings should not cost half a minute.
    config = Config.load(
        find_config(name.replace("-", "_")),
        [f"corpus={folder / 'corpus.parquet'}", f"seed={seed}", *overrides],
    )
    _claim(folder, settings)

    console.print(f"1. {settings.videos} generated videos in {folder / 'videos'}", soft_wrap=True)
    with Progress("draw", settings.videos) as meter:
        splits = make_demo_corpus(
            folder / "videos", **asdict(settings), report=lambda done, _: meter.advance(done - meter.done)
        )
    console.print("2. index them")
    corpus = Corpus.build(folder / "videos", layout="ucf101", splits=splits, output=folder / "corpus.parquet")
    train, test = len(corpus.select("train")), len(corpus.select("test"))
    console.print(f"   {len(corpus.classes)} classes, {train} videos to train on, {test} to test with")

    console.print(f"3. pretrain without labels (settings: {folder / 'pretrain' / 'config.yaml'})", soft_wrap=True)
    summary = pretrain(config, corpus, folder / "pretrain")
    if summary["interrupted"]:
        return summary

    console.print("4. retrieve the test videos' neighbours among the training videos")
    trained, resolved = load_encoder(folder / "pretrain"), config.to_dict()
    protocol = protocol_of(resolved, center=True)
    results = compare(
        {"untrained encoder": untrained_encoder(resolved), "pretrained encoder": trained},
        corpus,
        protocol,
        device=pick_device(config.device),
        baselines=True,
    )
    show(results, corpus, protocol, title=f"Retrieval by the class of generated videos, seed {seed}")
    scores = save(folder / "retrieval.json", results, corpus, protocol, {"seed": seed, "settings": asdict(settings)})
    result = results["pretrained encoder"]
    assert result is not None
    picture = contact_sheet(
        folder / "retrieval.png",
        corpus,
        result.found,
        result.queries,
        result.gallery,
        title=f"Nearest neighbours by the pretrained features, seed {seed}",
    )
    lines = (
        f"picture      {picture}",
        f"scores       {scores}",
        f"training     {folder / 'pretrain' / 'metrics.jsonl'}   (tensorboard --logdir {folder / 'pretrain'})",
        f"encoder      {summary['checkpoint']}",
        f"took {time.monotonic() - started:.0f} s",
    )
    console.print(*lines, sep="\n", soft_wrap=True)
    return {**summary, "recall": {name: result.recalls for name, result in results.items() if result is not None}}


def _claim(folder: Path, settings: DemoCorpus) -> None:
    """Make the folder the demo's, without an earlier run of it; its videos stay where they are still the right ones."""
    mark = folder / MARK
    if mark.is_file():
        if json.loads(mark.read_text(encoding="utf-8")) != asdict(settings):
            for part in ("videos", "corpus.parquet"):
                _remove(folder / part)
        _remove(folder / "pretrain")
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--out {folder}: exists and is not an earlier demo's folder; name another")
    write_json(mark, asdict(settings))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
