"""`python -m bench report DIR`: the results of a folder as one page with charts, and as pictures for a README."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

from rich.console import Console

from bench.page.picture import pictures, png
from bench.page.read import read_folder
from bench.page.render import Page
from dali_pipes.errors import DataError
from dali_pipes.writing import replacing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder with results (JSON, as --output writes them)")
    parser.add_argument("--output", type=Path, required=True, metavar="HTML", help="the page to write, one file")
    parser.add_argument(
        "--png", type=Path, metavar="DIR", help="also write the charts there, one picture a benchmark: loader.png, ..."
    )
    parser.add_argument("--title", default="dali-pipes: benchmarks", help="heading of the page (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Read, draw, write.

    Returns:
        0.

    Raises:
        DataError: There is no result, a file cannot be written, or vl_convert is not installed.
    """
    if importlib.util.find_spec("vl_convert") is None:
        raise DataError("the charts need vl_convert: pip install vl-convert-python (or: pip install -e '.[bench]')")
    if args.output.is_dir():
        raise DataError(f"--output {args.output}: is a folder; give the name of a file, such as report.html")
    page = Page(args.title, *read_folder(args.folder))
    if not page.shown:
        first = page.unreadable[0]
        raise DataError(f"{args.folder}: none of its results can be shown; {first.name} {first.reason}")
    import vl_convert

    log = Console(stderr=True, highlight=False)
    _write(args.output, page.html(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")).encode())
    log.print(f"{args.output}: {len(page.shown)} results", markup=False, soft_wrap=True)
    if args.png is not None:
        for name, picture in pictures(page).items():
            _write(args.png / f"{name}.png", png(picture))
            log.print(f"{args.png / name}.png", markup=False, soft_wrap=True)
    for one in page.unreadable:
        log.print(f"left out: {one.name} {one.reason}", markup=False, soft_wrap=True)
    return 0


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from error
