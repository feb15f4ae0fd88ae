"""`python -m bench overhead`: CPU time a request of planning its frames and cutting its packets out, on one core.

That is what the host does for each request before DALI decodes: everything but decoding. Files lie in the page cache.
"""

from __future__ import annotations

import argparse
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.measure import environment
from bench.measure.options import open_corpus, positive
from bench.measure.output import write_json
from bench.measure.plan import WINDOWS, draw
from bench.measure.stats import estimate
from dali_pipes import ClipRequest, Corpus, View
from dali_pipes.decode.choice import choose
from dali_pipes.decode.slice import cut
from dali_pipes.errors import DataError
from dali_pipes.prepare import Preparer

FORMAT = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this sub-command."""
    parser.add_argument("corpus", type=Path, metavar="CORPUS_OR_FOLDER", help="a .parquet index or a folder of videos")
    parser.add_argument("--requests", type=positive, default=200, help="in each round (default: %(default)s)")
    parser.add_argument("--rounds", type=positive, default=5, help="rounds that count, after one that does not")
    parser.add_argument("--frames", type=positive, default=16, help="frames of a clip (default: %(default)s)")
    parser.add_argument("--speeds", type=float, nargs="+", default=[1.0, 2.0], help="playback speeds (default: 1 2)")
    parser.add_argument("--below", type=float, metavar="MS", help="exit with 1 where a median is not below this")
    parser.add_argument("--seed", type=int, default=0, help="of the requests (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="write the result here as JSON")


def run(args: argparse.Namespace) -> int:
    """Time the requests, print and save; 1 where `--below` is missed.

    Raises:
        DataError: For a user's mistake, or where no video of the corpus can be cut.
    """
    corpus = open_corpus(args.corpus)
    # Whatever decodes it in the end: NVDEC takes most of what can be cut.
    rows = [(i, corpus[i]) for i in corpus.select().tolist() if choose(corpus[i], "gpu").decoder == "dali"]
    rows = rows or [(i, corpus[i]) for i in corpus.select().tolist() if corpus[i].sliceable]
    if not rows:
        raise DataError(f"{args.corpus}: no video of it can be cut; see `dali-pipes inspect` on one of them")
    windows = {window: _window(corpus, rows, window, args) for window in WINDOWS}
    result = {
        "format": FORMAT,
        "benchmark": "overhead",
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "arguments": {k: v for k, v in vars(args).items() if k not in ("corpus", "output", "command")},
        "environment": environment.describe(),
        "corpus": {"name": args.corpus.name, "fingerprint": corpus.fingerprint, "videos": len(rows)},
        "windows": windows,
    }
    if args.output is not None:
        write_json(args.output, result)
    table = Table("window", "planning, ms", "cutting, ms", "together, ms [95 %]", "bytes a request")
    for window, found in windows.items():
        both = found["together_ms"]
        table.add_row(
            window,
            f"{found['plan_ms']['median']:.3f}",
            f"{found['cut_ms']['median']:.3f}",
            f"{both['median']:.3f} [{both['low']:.3f}, {both['high']:.3f}]",
            f"{found['bytes']:.0f}",
        )
    Console().print(table)
    worst = max(found["together_ms"]["median"] for found in windows.values())
    return int(args.below is not None and worst >= args.below)


def _window(corpus: Corpus, rows: list[tuple[int, Any]], window: Any, args: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of this thread's CPU time a request, by round."""
    drawn = draw(rows, count=args.requests, frames=args.frames, speeds=args.speeds, window=window, seed=args.seed)
    requests = [
        ClipRequest(r.video, tuple(View(speed, at) for speed, at in zip(r.speeds, r.starts, strict=True)))
        for r in drawn
    ]
    preparer = Preparer(corpus, args.frames, 112, None, None, "loop", "gpu", "dali")
    planning, cutting, size = [], [], 0
    for number in range(args.rounds + 1):
        begun = time.thread_time()
        plans = [(video := corpus[r.video], preparer.plan(video, r)[0]) for r in requests]
        planned = time.thread_time()
        size = sum(len(cut(video, frames).data) for video, frames in plans)
        if number:
            cutting.append((time.thread_time() - planned) / len(requests) * 1e3)
            planning.append((planned - begun) / len(requests) * 1e3)
    together = [a + b for a, b in zip(planning, cutting, strict=True)]
    return {
        "plan_ms": estimate(planning).as_dict(),
        "cut_ms": estimate(cutting).as_dict(),
        "together_ms": estimate(together).as_dict(),
        "bytes": size / len(requests),
    }
