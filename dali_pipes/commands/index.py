"""`dali-pipes index`: a folder of videos in, a corpus file out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dali_pipes.commands.engine_options import add_engine_options, engine_options, positive_int


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of this command."""
    parser = commands.add_parser(
        "index",
        help="find and probe the videos of a folder, an address or tar shards",
        description="Find and probe the videos of a root and write a corpus file. Run again, it probes only files "
        "that are new or have changed; interrupted, it goes on where it stopped.",
    )
    parser.add_argument(
        "root", metavar="ROOT", help="folder of videos, s3:// or http:// address of one, tar shard, or list"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="corpus file to write")
    parser.add_argument(
        "--layout",
        default="folders",
        help="how paths say label and split: folders (default: CLASS/... or train/CLASS/...), ucf101, hmdb51, "
        "kinetics, csv (a table with columns path, label, split, group), "
        "webdataset (ROOT holds tar shards) or list (ROOT is a text file: URI, label and split, tabs in between)",
    )
    parser.add_argument(
        "--splits",
        type=Path,
        metavar="PATH",
        help="folder of the official lists of ucf101, hmdb51 or kinetics, or a CSV file (kinetics, csv)",
    )
    parser.add_argument("--fold", type=int, default=1, help="which of several official splits (default 1)")
    parser.add_argument(
        "--pattern",
        action="append",
        metavar="GLOB",
        help="file names to take instead of all with a video suffix, such as '*.mp4'; may be given more than once",
    )
    add_engine_options(parser)
    parser.add_argument("--thorough", action="store_true", help="decode every frame, even where packets suffice")
    parser.add_argument("--again", action="store_true", help="probe files again that have not changed")
    parser.add_argument(
        "--quarantine", type=Path, metavar="FILE", help="leave out the videos that runs have listed there"
    )
    parser.add_argument(
        "--max-side",
        type=positive_int,
        metavar="N",
        help="refuse pictures wider or higher than this (default 16384 pixels)",
    )
    parser.add_argument(
        "--max-frames",
        type=positive_int,
        metavar="N",
        help="refuse videos of more frames than this (default 10 million)",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress and no summary")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Index, and print a summary; exit code 1 where no video can be used."""
    from dali_pipes.corpus.build import build
    from dali_pipes.corpus.files import PATTERNS
    from dali_pipes.corpus.probe import MAX_FRAMES, MAX_SIDE
    from dali_pipes.corpus.summary import summary

    warnings: list[str] = []
    corpus = build(
        arguments.root,
        arguments.layout,
        splits=arguments.splits,
        fold=arguments.fold,
        output=arguments.output,
        patterns=arguments.pattern or PATTERNS,
        **engine_options(arguments),
        thorough=arguments.thorough,
        again=arguments.again,
        progress=not arguments.quiet,
        warnings=warnings,
        quarantine=arguments.quarantine,
        max_side=arguments.max_side or MAX_SIDE,
        max_frames=arguments.max_frames or MAX_FRAMES,
    )
    for line in warnings:
        print(f"dali-pipes: warning: {line}", file=sys.stderr)
    if not arguments.quiet:
        print("\n".join([*summary(corpus), f"written  {arguments.output}"]))
    return 0 if corpus.usable.any() else 1
