"""`dali-pipes verify`: is every video what the corpus says, to the pixel?"""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from dali_pipes.commands.engine_options import add_engine_options, engine_options, positive_int

if TYPE_CHECKING:
    from dali_pipes.corpus import Corpus

_PAGE = """# Awkward files, and what becomes of them

Made by `dali-pipes verify FOLDER --deep --table FILE.md`; the figures of a corpus are made the same way.

- **right**: every frame compared (with `--deep` every frame there is, else three clips of eight), fetched from
  anywhere, equals that of a sequential decode of the file, to the bit. Packets cut out for DALI are compared where
  DALI decodes the video on the CPU or the GPU.
- **right with limit**: so too, and something about the file is to be known.
- **error**: never sampled; the index says why. With *now*, the file is not, or not any more, what the index says.

"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of this command."""
    parser = commands.add_parser(
        "verify",
        help="compare the videos of a corpus with their rows and with a sequential decode",
        description="Compare every video with its row and with a sequential decode of it, to the pixel. Exit code 1 "
        "where one is missing, has changed, or gives other pictures.",
    )
    parser.add_argument("corpus", type=Path, metavar="CORPUS", help="corpus file, or a folder of videos")
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

    from dali_pipes.corpus import Corpus
    from dali_pipes.corpus.engine import Lost, run_all
    from dali_pipes.corpus.storage import storage_options
    from dali_pipes.progress import Progress
    from dali_pipes.verify import verify_video

    where = engine_options(arguments)
    if arguments.corpus.is_dir():
        corpus = Corpus.build(arguments.corpus, progress=not arguments.quiet, **where)
    else:
        corpus = Corpus.open(arguments.corpus)
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
    if arguments.output is not None:
        listed = [{"uri": corpus[row].uri, "outcome": outcomes[row]} for row in rows]
        _write(arguments.output, json.dumps(listed, indent=1, ensure_ascii=False) + "\n")
    if arguments.table is not None:
        _write(arguments.table, _PAGE + _table(corpus, outcomes))
    wrong = {row: text for row, text in sorted(outcomes.items()) if text.startswith("error: now ")}
    for row, text in wrong.items():
        print(f"{corpus[row].uri}: {text.removeprefix('error: ')}")
    if not arguments.quiet:
        kinds = Counter("not as indexed" if row in wrong else text.partition(":")[0] for row, text in outcomes.items())
        print(f"videos   {len(rows)}: " + ", ".join(f"{kind} {n}" for kind, n in sorted(kinds.items())))
    return 1 if wrong else 0


def _table(corpus: Corpus, outcomes: dict[int, str]) -> str:
    from dali_pipes.decode.choice import choose

    lines = []
    for row, outcome in outcomes.items():
        video = corpus[row]
        name = video.uri.rpartition("/")[2]
        kind, decoders = "", ["", ""]
        if not video.error:
            kind = f"{video.codec}, {video.pixel_format}, {video.width} x {video.height}"
            decoders = [choose(video, device).decoder for device in ("cpu", "gpu")]
        cells = [name, name.rpartition(".")[2], kind, str(video.frames), *decoders, outcome]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    head = "| file | suffix | codec, format, size | frames | on the CPU | on the GPU | outcome |\n" + "|---" * 7 + "|\n"
    return head + "\n".join(sorted(lines)) + "\n"


def _write(path: Path, text: str) -> None:
    from dali_pipes.errors import DataError

    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}") from error
