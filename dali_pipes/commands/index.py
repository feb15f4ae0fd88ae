"""`dali-pipes index`: a folder of videos in, a corpus file out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of this command."""
    parser = commands.add_parser(
        "index",
        help="find and probe the videos of a folder",
        description="Find and probe the videos of a folder and write a corpus file. Run again, it probes only files "
        "that are new or have changed; interrupted, it goes on where it stopped.",
    )
    parser.add_argument("root", type=Path, metavar="ROOT", help="folder of videos")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="corpus file to write")
    parser.add_argument(
        "--layout",
        default="folders",
        help="how paths say label and split: folders (default: CLASS/... or train/CLASS/...) or ucf101",
    )
    parser.add_argument("--splits", type=Path, metavar="DIR", help="folder of split lists (trainlist*, testlist*)")
    parser.add_argument("--fold", type=int, default=1, help="which of several official splits (default 1)")
    parser.add_argument(
        "--pattern",
        action="append",
        metavar="GLOB",
        help="file names to take instead of all with a video suffix, such as '*.mp4'; may be given more than once",
    )
    parser.add_argument("--workers", type=_positive_int, metavar="N", help="processes (default: one per core)")
    parser.add_argument(
        "--timeout", type=_positive, default=60.0, metavar="SECONDS", help="for one file (default 60), else an error"
    )
    parser.add_argument("--thorough", action="store_true", help="decode every frame, even where packets suffice")
    parser.add_argument("--again", action="store_true", help="probe files again that have not changed")
    parser.add_argument("--quiet", action="store_true", help="no progress and no summary")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Index, and print a summary; exit code 1 where no video can be used."""
    from dali_pipes.corpus.build import PATTERNS, build
    from dali_pipes.corpus.summary import summary

    warnings: list[str] = []
    corpus = build(
        arguments.root,
        arguments.layout,
        splits=arguments.splits,
        fold=arguments.fold,
        output=arguments.output,
        patterns=arguments.pattern or PATTERNS,
        workers=arguments.workers,
        timeout=arguments.timeout,
        thorough=arguments.thorough,
        again=arguments.again,
        progress=not arguments.quiet,
        warnings=warnings,
    )
    for line in warnings:
        print(f"dali-pipes: warning: {line}", file=sys.stderr)
    if not arguments.quiet:
        print("\n".join([*summary(corpus), f"written  {arguments.output}"]))
    return 0 if corpus.usable.any() else 1


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text}: must be more than 0")
    return value


def _positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be 1 or more")
    return value
