"""`dali-pipes transcode`: a corpus in, small copies that are cheap to decode anywhere out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dali_pipes.commands.engine_options import add_engine_options, engine_options, positive, positive_int

if TYPE_CHECKING:
    from dali_pipes.corpus.transcode_job import Outcome

# Failures shown one by one; the corpus has them all.
_SHOWN = 20


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of this command."""
    parser = commands.add_parser(
        "transcode",
        help="encode the videos of a corpus anew, for cheap random access",
        description="Encode the videos of a corpus anew, once: small, upright, with many key frames. Frame i of a copy "
        "is frame i of its source. Run again, it encodes only what is new or has changed; interrupted, it goes on "
        "where it stopped.",
    )
    parser.add_argument("corpus", type=Path, metavar="CORPUS", help="corpus file that `dali-pipes index` wrote")
    parser.add_argument("output", type=Path, metavar="OUT", help="folder for the copies and their corpus.parquet")
    parser.add_argument(
        "--preset", choices=("gpu", "cpu", "tiny"), default="cpu", help="for which decoder (default cpu)"
    )
    parser.add_argument("--codec", choices=("h264", "hevc", "vp9", "mjpeg"), help="instead of the preset's")
    parser.add_argument(
        "--short-side",
        type=_short_side,
        metavar="PIXELS",
        help="of the copies, instead of the preset's; full: as it is",
    )
    parser.add_argument("--gop", type=positive_int, metavar="FRAMES", help="from one key frame to the next")
    parser.add_argument("--quality", type=int, metavar="Q", help="CRF, or qscale for mjpeg; less is better")
    parser.add_argument("--speed", metavar="NAME", help="the encoder's preset: veryfast, ... or 0 to 8 for vp9")
    parser.add_argument("--fps", type=positive, metavar="RATE", help="constant rate to take frames at (default: all)")
    add_engine_options(parser, timeout=600.0)
    parser.add_argument("--quiet", action="store_true", help="no progress and no summary")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Transcode, and print a summary; exit code 1 where no video has a copy, or the disk is full."""
    from dataclasses import replace

    from dali_pipes.corpus.manifest import Corpus
    from dali_pipes.corpus.transcode import PRESETS, changed
    from dali_pipes.corpus.transcode_job import FolderFullError, transcode

    preset = changed(
        PRESETS[arguments.preset],
        codec=arguments.codec,
        gop=arguments.gop,
        quality=arguments.quality,
        speed=arguments.speed,
        fps=arguments.fps,
    )
    if arguments.short_side is not None:
        preset = replace(preset, short_side=arguments.short_side or None)
    corpus = Corpus.open(arguments.corpus)
    try:
        outcome = transcode(
            corpus, arguments.output, preset, engine=engine_options(arguments), progress=not arguments.quiet
        )
    except FolderFullError as error:
        print(f"dali-pipes: {error}; copies that are done are kept, run it again to go on", file=sys.stderr)
        return 1
    for uri, reason in outcome.failed[:_SHOWN]:
        print(f"dali-pipes: warning: {uri}: {reason}", file=sys.stderr)
    if len(outcome.failed) > _SHOWN:
        print(f"dali-pipes: warning: {len(outcome.failed) - _SHOWN} more failed", file=sys.stderr)
    if not arguments.quiet:
        print("\n".join([*_summary(outcome), f"written  {outcome.corpus.path}"]))
    return 0 if outcome.corpus.usable.any() else 1


def _summary(outcome: Outcome) -> list[str]:
    corpus, before, after = outcome.corpus, outcome.bytes_before, outcome.bytes_after
    lines = [
        f"videos   {outcome.encoded} encoded, {outcome.kept} kept, {len(outcome.failed)} failed, "
        f"{len(corpus) - outcome.encoded - outcome.kept - len(outcome.failed)} unusable before"
    ]
    if before:
        lines.append(
            f"size     {before / 1e6:.1f} MB before, {after / 1e6:.1f} MB after ({100 * after / before:.0f} %)"
        )
    if outcome.psnr:
        values = sorted(outcome.psnr)
        lines.append(f"PSNR     {values[0]:.1f} dB lowest, {values[len(values) // 2]:.1f} dB median")
    lines.append(f"time     {outcome.seconds:.1f} s")
    return lines


def _short_side(text: str) -> int:
    if text == "full":
        return 0
    return positive_int(text)
