"""`dali-pipes demo-corpus`: labelled generated videos, to try everything without a download."""

from __future__ import annotations

import argparse
from pathlib import Path


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of this command."""
    parser = commands.add_parser(
        "demo-corpus",
        help="make labelled generated videos",
        description="Make labelled generated videos with train and test lists; a class is what moves and how it moves.",
    )
    parser.add_argument("root", type=Path, metavar="DIR", help="folder to write to; made if absent")
    parser.add_argument("--videos", type=int, default=120, metavar="N", help="how many (default 120)")
    parser.add_argument("--codec", default="mjpeg", help="mjpeg (default), vp9 or h264")
    parser.add_argument("--frames", type=int, default=64, metavar="N", help="frames of each video (default 64)")
    parser.add_argument("--size", type=int, default=64, metavar="PIXELS", help="width and height (default 64)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other videos (default 0)")
    parser.add_argument("--quiet", action="store_true", help="no progress and no messages")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Make the videos, and say how to index them."""
    from dali_pipes.corpus.synthetic import make_demo_corpus
    from dali_pipes.progress import Progress

    with Progress("draw", arguments.videos, enabled=not arguments.quiet) as bar:
        splits = make_demo_corpus(
            arguments.root,
            arguments.videos,
            codec=arguments.codec,
            frames=arguments.frames,
            size=arguments.size,
            seed=arguments.seed,
            report=lambda done, total: bar.advance(),
        )
    if not arguments.quiet:
        print(f"{arguments.videos} videos in {arguments.root}; to index them:")
        print(f"dali-pipes index {arguments.root} -o {arguments.root}/corpus.parquet --layout ucf101 --splits {splits}")
    return 0
