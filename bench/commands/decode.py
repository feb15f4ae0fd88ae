"""`python -m bench decode`: every decoder that is installed, asked for the same clips.

Each lives in its own process. What it delivers is compared with a full decode first; who delivers other frames is not
ranked. Then all are timed in interleaved rounds. docs/bench-decode.md says how to read the result.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from bench.decoders import DECODERS, Job
from bench.decoders.contest import Contest, summarise
from bench.decoders.table import print_table
from bench.measure import figures, plan
from bench.measure.options import device, open_corpus, positive, speeds
from bench.measure.output import write_json
from dali_pipes import Corpus
from dali_pipes.corpus.engine import default_workers


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this sub-command."""
    parser.add_argument("corpus", type=Path, metavar="CORPUS_OR_FOLDER", help="a .parquet index or a folder of videos")
    parser.add_argument("--frames", type=positive, default=16, help="frames of a view (default: %(default)s)")
    parser.add_argument("--speeds", type=speeds, default=(1.0, 2.0), help="playback speed of each view (default: 1,2)")
    parser.add_argument(
        "--window",
        choices=(*plan.WINDOWS, "both"),
        default="independent",
        help="where the views of a video start: anywhere, or all at the same frame (default: %(default)s)",
    )
    cores = default_workers()
    parser.add_argument("--workers", type=positive, default=cores, help="threads of each (default: usable cores)")
    parser.add_argument("--batch-size", type=positive, help="clips of a batch (default: as many as workers)")
    parser.add_argument("--clips", type=positive, help="requests timed a round (default: 24, but 6 batches at least)")
    parser.add_argument("--rounds", type=positive, default=5, help="rounds that count (default: %(default)s)")
    parser.add_argument("--warmup", type=int, default=1, help="rounds dropped before them (default: %(default)s)")
    parser.add_argument(
        "--check", type=positive, default=16, help="requests compared before timing, per window (default: %(default)s)"
    )
    parser.add_argument(
        "--lowest-psnr",
        type=float,
        default=24.0,
        help="dB below which a decoder shows another picture (default: %(default)s)",
    )
    parser.add_argument(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="cpu: only decoders on the CPU; cuda or cuda:N: those on that GPU too (default: cuda where there is one)",
    )
    parser.add_argument(
        "--candidates",
        type=names,
        default=tuple(DECODERS),
        help="comma-separated, of: " + ", ".join(DECODERS) + " (default: all)",
    )
    parser.add_argument(
        "--timeout",
        type=positive,
        default=120,
        help="seconds after which a decoder that has not finished a round has failed (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of requests and orders (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="write the result here as JSON")


def run(args: argparse.Namespace) -> int:
    """Compare, time, print and save.

    Returns:
        0, or 1 where one of ours delivers other frames or fails.

    Raises:
        DataError: For a user's mistake.
    """
    where = device(args.device)
    log = Console(stderr=True)

    def say(line: str) -> None:
        log.print(line, markup=False, soft_wrap=True)

    args.batch_size = args.batch_size or args.workers
    args.clips = args.clips or max(24, 6 * args.batch_size)
    corpus = open_corpus(args.corpus)
    result = figures.header("decode", args, corpus)
    plans = draw(args, corpus)
    requests = [request for part in plans.values() for request in part]
    job = Job(
        requests=requests,
        videos={number: corpus[number] for number in sorted({request.video for request in requests})},
        frames=args.frames,
        workers=args.workers,
        batch_size=args.batch_size,
        device=f"cuda:{where.index or 0}" if where.type == "cuda" else "cpu",
    )
    chosen = {name: DECODERS[name] for name in args.candidates}
    windows: dict[str, dict[str, Any]] = {}
    with Contest(chosen, job, timeout=args.timeout, seed=args.seed, say=say) as contest:
        first = 0
        for window, part in plans.items():
            numbers = range(first, first + len(part))
            first += len(part)
            say(f"{window}: comparing {min(args.check, len(part))} of {len(part)} requests with a full decode")
            checks = contest.compare(numbers[: args.check], args.lowest_psnr)
            right = [name for name, check in checks.items() if check.right]
            rounds = contest.time(right, numbers, rounds=args.rounds, warmup=args.warmup, what=window)
            windows[window] = {
                "requests": len(part),
                "frames": sum(len(request.unique) for request in part),
                "digest": plan.digest(part),
                "checks": {name: check.as_dict() for name, check in checks.items()},
                "rounds": [turn.as_dict() for turn in rounds],
                "summary": summarise(rounds),
            }
    result |= {
        "candidates": {name: {"where": kind.where, "notes": kind.notes} for name, kind in chosen.items()},
        "missing": contest.missing,
        "failed": contest.failed,
        "windows": windows,
        "figures": {
            _name(name, words, window): known
            for window, part in windows.items()
            for name, row in part["summary"].items()
            for words, known in row.items()
        },
    }
    if args.output is not None:
        write_json(args.output, result)
    out = Console()
    print_table(result, out if out.is_terminal else Console(width=160))
    wrong = {name for part in windows.values() for name, check in part["checks"].items() if check["reason"]}
    return int(any(name.startswith("ours") for name in wrong | set(contest.failed)))


def draw(args: argparse.Namespace, corpus: Corpus) -> dict[str, list[plan.Request]]:
    """The requests of each window."""
    usable = [(int(row), corpus[int(row)]) for row in corpus.select()]
    windows: list[plan.Window] = list(plan.WINDOWS) if args.window == "both" else [args.window]
    return {
        window: plan.draw(
            usable, count=args.clips, frames=args.frames, speeds=args.speeds, window=window, seed=args.seed
        )
        for window in windows
    }


def _name(decoder: str, words: str, window: str) -> str:
    """Of a figure, among all benchmarks' figures."""
    if words.endswith(" / it"):
        return f"decode {words.removesuffix('it')}{decoder} ({window})"
    return f"decode {decoder} {words} ({window})"


def names(text: str) -> tuple[str, ...]:
    """Names of decoders, for argparse."""
    chosen = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    unknown = [name for name in chosen if name not in DECODERS]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown {', '.join(unknown)}; known: {', '.join(DECODERS)}")
    return chosen
