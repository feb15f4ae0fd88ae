"""`dali-pipes preview`: training clips as the network sees them, as a contact sheet and as moving pictures."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of this command."""
    parser = commands.add_parser(
        "preview",
        help="show training clips as the network sees them",
        description="Write a contact sheet (a row for each clip) and a moving picture (a row for each video, its clips "
        "side by side) of clips that the loader delivers, augmented, at every speed.",
    )
    parser.add_argument("corpus", metavar="CORPUS", help="corpus file, folder, address or tar shard of videos")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="PATH",
        help="folder for both, made if absent; or one file: .png for the sheet, .mp4 or .webp for the moving clips",
    )  # fmt: skip
    parser.add_argument("--videos", type=int, default=6, metavar="N", help="how many at most (default 6)")
    parser.add_argument("--speeds", default="1,2", metavar="S,S", help="playback speeds (default 1,2)")
    parser.add_argument("--frames", type=int, default=16, metavar="N", help="frames per clip (default 16)")
    parser.add_argument("--size", type=int, default=112, metavar="PIXELS", help="side of the clips (default 112)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other videos and draws (default 0)")
    parser.add_argument("--no-augment", action="store_true", help="centred squares instead of random draws")
    parser.add_argument("--format", choices=("mp4", "webp"), default="mp4", help="of the moving clips (default mp4)")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    parser.add_argument("--quiet", action="store_true", help="no progress and no messages")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the pictures and say where they are."""
    from dali_pipes.augment import Augment
    from dali_pipes.errors import DataError
    from dali_pipes.tools.preview import draw_clips, write
    from dali_pipes.tools.videos import open_corpus

    try:
        speeds = [float(word) for word in arguments.speeds.split(",")]
    except ValueError:
        raise DataError(f"--speeds {arguments.speeds}: numbers with commas between them, such as 1,2") from None
    preview = draw_clips(
        open_corpus(arguments.corpus, progress=not arguments.quiet),
        videos=arguments.videos,
        speeds=speeds,
        frames=arguments.frames,
        size=arguments.size,
        seed=arguments.seed,
        augment=None if arguments.no_augment else Augment(),
        device=arguments.device,
    )
    for uri, reason in preview.replaced.items():
        print(f"dali-pipes: warning: {uri}: {reason}; another video is shown in its place", file=sys.stderr)
    paths = write(preview, arguments.output, arguments.format)
    if not arguments.quiet:
        for path in paths:
            print(path)
    return 0
