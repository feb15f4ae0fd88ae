"""`dali-pipes inspect`: what is known of one video, how it is put together, and what clips of it cost."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of this command."""
    parser = commands.add_parser(
        "inspect",
        help="show what is known of one video, its GOPs and what clips of it cost",
        description="Show what the probe knows of one video, its key frames, how many frames are decoded for a random "
        "clip, which decoder it gets and why, what would make it cheaper, and whether a cache holds a copy of it.",
    )
    parser.add_argument("video", metavar="FILE", help="path or address of the video")
    parser.add_argument("--corpus", type=Path, metavar="FILE", help="take what this corpus says, do not probe again")
    parser.add_argument("--device", choices=("cpu", "gpu"), help="tell the decoder for this device only (default both)")
    parser.add_argument("--thorough", action="store_true", help="decode every frame, even where packets suffice")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="tell whether this cache holds a copy of the video")
    parser.add_argument(
        "--size",
        type=int,
        metavar="N",
        help="side of the clips that the cache is used for: each size has copies of its own (default 112)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the report; exit code 1 where the video cannot be used."""
    from dali_pipes.errors import DataError, VideoError
    from dali_pipes.tools.inspection import DEVICES, inspect_video, lines_of
    from dali_pipes.tools.videos import find_video

    if arguments.corpus and arguments.thorough:
        raise DataError("--thorough decodes the file, --corpus takes what the corpus says; give one of them")
    if arguments.size is not None and not arguments.cache:
        raise DataError(f"--size {arguments.size} says for which clips a cache is used; give --cache DIR with it")
    devices = (arguments.device,) if arguments.device else DEVICES
    try:
        report = inspect_video(
            find_video(arguments.video, arguments.corpus, thorough=arguments.thorough),
            devices=devices,
            cache=arguments.cache,
            size=112 if arguments.size is None else arguments.size,
        )
    except VideoError as error:
        print(f"dali-pipes: {error}", file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps(report, indent=1))
    else:
        print("\n".join(lines_of(report, shutil.get_terminal_size((80, 24)).columns)))
    return 0
