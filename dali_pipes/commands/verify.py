"""`dali-pipes verify`: is every video what the corpus says, to the pixel?"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from dali_pipes.commands.engine_options import add_engine_options, engine_options, positive_int

if TYPE_CHECKING:
    from dali_pipes.corpus import Corpus

_PAGE = """# Awkward files, and what becomes of them

Made by `dali-pipes verify CORPUS{options} --table FILE.md`; any corpus gets such a page in the same way.

- **right**: {compared}, fetched from anywhere in the file, equals that of a sequential decode of it, to the bit.
  Packets cut out for DALI are compared as well where DALI decodes the video on the CPU or the GPU.
- **right with limit**: so too, and something about the file is to be known.
- **error**: never sampled; the index says why. With *now*, the file is not, or not any more, what the index says.

Format and size are those of the decoded picture. On each device `dali` or `host` (FFmpeg, on the CPU) decodes for the
loader.

{summary}.

"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of this command."""
    parser = commands.add_parser(
        "verify",
        help="compare the videos of a corpus with their rows and with a sequential decode",
        description="Compare every video with its row and with a sequential decode of it, to the pixel. Exit code 1 "
        "where one is missing, has changed, or gives other pictures.",
    )
    parser.add_argument(
        "corpus", metavar="CORPUS", help="corpus file; or videos: a folder, an address, a tar shard, a list, one file"
    )
    parser.add_argument("--sample", type=positive_int, metavar="N", help="only N videos, spread evenly over the corpus")
    parser.add_argument("--deep", action="store_true", help="compare every frame, instead of 3 clips of each video")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="write the outcome of each video")
    parser.add_argument("--table", type=Path, metavar="FILE.md", help="write a table of the videos")
    add_engine_options(parser, timeout=600.0)
    parser.add_argument("--quiet", action="store_true", help="no progress and no summary")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Verify, and print how many videos ended how; exit code 1 where one is not what its row says."""
    import numpy as np

    from dali_pipes.corpus.engine import Lost, run_all
    from dali_pipes.corpus.storage import storage_options
    from dali_pipes.errors import DataError
    from dali_pipes.progress import Progress
    from dali_pipes.tools.videos import open_corpus
    from dali_pipes.verify import verify_video

    where = engine_options(arguments)
    for path in (arguments.output, arguments.table):
        # Not behind hours of work.
        if path is not None and not path.absolute().parent.is_dir():
            raise DataError(f"{path}: there is no folder {path.parent}")
    corpus = open_corpus(arguments.corpus, progress=not arguments.quiet, **where)
    count = min(arguments.sample or len(corpus), len(corpus))
    rows = np.linspace(0, len(corpus) - 1, count).round().astype(int).tolist()
    outcomes: dict[int, str] = {}
    options = {"deep": arguments.deep, "storage": storage_options()}
    with (
        Progress("verify", len(rows), enabled=not arguments.quiet) as bar,
        closing(run_all(verify_video, [corpus[row] for row in rows], options=options, **where)) as results,
    ):
        for place, result in results:
            outcomes[rows[place]] = f"error: now {result.reason}" if isinstance(result, Lost) else result
            bar.advance()
    wrong = {row: text for row, text in sorted(outcomes.items()) if text.startswith("error: now ")}
    kinds = Counter("not as indexed" if row in wrong else text.partition(":")[0] for row, text in outcomes.items())
    summary = f"{len(rows)}: " + ", ".join(f"{kind} {n}" for kind, n in sorted(kinds.items()))
    if arguments.output is not None:
        listed = [{"uri": corpus[row].uri, "outcome": outcomes[row]} for row in rows]
        _write(arguments.output, json.dumps(listed, indent=1, ensure_ascii=False) + "\n")
    if arguments.table is not None:
        page = _PAGE.format(
            options=" --deep" if arguments.deep else "",
            compared="every frame" if arguments.deep else "every frame compared (three clips of eight)",
            summary=f"Videos {summary}",
        )
        _write(arguments.table, page + _table(corpus, outcomes))
    for row, text in wrong.items():
        print(f"{corpus[row].uri}: {text.removeprefix('error: ')}")
    if not arguments.quiet:
        print(f"videos   {summary}")
    return 1 if wrong else 0


def _table(corpus: Corpus, outcomes: dict[int, str]) -> str:
    from dali_pipes.decode.choice import choose
    from dali_pipes.tools.videos import base_name

    lines = []
    for row, outcome in outcomes.items():
        video = corpus[row]
        name = base_name(video.uri)
        kind, decoders = "", ["", ""]
        if not video.error:
            kind = f"{video.codec}, {video.pixel_format}, {video.width} x {video.height}"
            decoders = [choose(video, device).decoder for device in ("cpu", "gpu")]
        cells = [name, name.rpartition(".")[2], kind, str(video.frames), *decoders, outcome]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    head = "| file | suffix | codec, format, size | frames | on the CPU | on the GPU | outcome |\n" + "|---" * 7 + "|\n"
    return head + "\n".join(sorted(lines)) + "\n"


def _write(path: Path, text: str) -> None:
    from dali_pipes.writing import replacing

    try:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
