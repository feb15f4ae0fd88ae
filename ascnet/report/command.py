"""What `ascnet report` does."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ascnet.errors import UserError

FORMATS = ("markdown", "latex", "csv", "json")


def add_command(commands: Any) -> None:
    """Adds `report` to the parser's commands. Nothing heavy is imported before it runs."""
    command = commands.add_parser(
        "report",
        help="one's own scores beside the published tables, or a run as a page to look at",
        description="Print the two published tables (action recognition and nearest-neighbour retrieval) with the "
        "scores of runs added, each with its protocol card; or write a run as one HTML file, to be looked at "
        "in a browser.",
        epilog="Example: ascnet report runs/ucf101-seed0 runs/ucf101-seed1 --format latex -o table.tex; ascnet report "
        "runs/ucf101-seed0 --html report.html. docs/report.md explains both.",
    )
    command.add_argument(
        "runs", nargs="*", metavar="RUN", help="folders of runs, or folders of such; default: the published rows alone"
    )
    command.add_argument("--format", choices=FORMATS, default="markdown", help="of the tables; default: markdown")
    command.add_argument("-o", "--output", metavar="FILE", help="write the tables there; default: print them")
    command.add_argument("--html", metavar="FILE", help="write the page of one run there, and print no tables")
    command.add_argument("--corpus", metavar="PATH", help="page: corpus file; default: the one that the run names")
    command.add_argument(
        "--recognition",
        metavar="DIR",
        help="page: folder of `ascnet finetune` or `linear` to show; default: the run itself, or one inside it",
    )
    command.add_argument("--queries", type=int, default=8, metavar="N", help="page: queries shown; default: 8")
    command.add_argument("--neighbours", type=int, default=7, metavar="N", help="page: of each query; default: 7")
    command.add_argument("--maps", type=int, default=6, metavar="N", help="page: activation maps shown; default: 6")
    command.add_argument(
        "--points", type=int, default=1000, metavar="N", help="page: videos in the flat map at most; default: 1000"
    )
    command.add_argument(
        "--videos", type=int, default=2000, metavar="N", help="page: videos of each split compared; default: 2000"
    )
    command.add_argument(
        "--clips", type=int, metavar="N", help="page: clips a video; default: as in the run's retrieval, else 10"
    )
    command.add_argument("--max-mb", type=float, default=8.0, metavar="MB", help="page: largest size; default: 8")
    command.add_argument(
        "--device", default="auto", metavar="NAME", help="page: cuda, cuda:1, cpu; default: a GPU if any"
    )
    command.add_argument("--seed", type=int, default=0, metavar="N", help="page: of the flat map; default: 0")
    command.set_defaults(command=_report)


def _report(args: argparse.Namespace) -> int:
    if args.html is not None:
        return _page(args)
    from ascnet.files import written_whole
    from ascnet.report.render import FORMATS as RENDER
    from ascnet.report.results import find
    from ascnet.report.rows import tables

    text = RENDER[args.format](tables(find(args.runs)))
    if args.output is None:
        sys.stdout.write(text)
        return 0
    if Path(args.output).is_dir():
        raise UserError(f"-o {args.output} is a folder; give the name of a file")
    with written_whole(args.output) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(f"wrote {args.output}")
    return 0


def _page(args: argparse.Namespace) -> int:
    if len(args.runs) != 1:
        raise UserError(
            f"--html shows one run, and {len(args.runs)} are given; say ascnet report RUN --html {args.html}"
        )
    if args.output is not None:
        raise UserError("-o is for tables and --html for the page; give one of them")
    if not args.max_mb > 0:
        raise UserError(f"--max-mb {args.max_mb:g} must be more than 0")
    from ascnet.precision import pick_device
    from ascnet.report.show import Options, write_page

    options = Options(
        corpus=args.corpus,
        recognition=args.recognition,
        queries=args.queries,
        neighbours=args.neighbours,
        maps=args.maps,
        points=args.points,
        videos=args.videos,
        clips=args.clips,
        most=round(args.max_mb * 1e6),
        device=str(pick_device(args.device)),
        seed=args.seed,
    )
    path = write_page(args.runs[0], args.html, options)
    print(f"wrote {path} ({path.stat().st_size / 1e6:.2f} MB)")
    return 0
