"""`python -m bench size`: how a corpus of a million videos behaves: file, opening, sampler, and memory of a long run.

The videos are simulated: rows of a few real files, each with a path of its own that leads to one of them. Each
measurement runs in a fresh process (bench/size_steps.py), so that none sees the memory of another.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table

from bench.measure import environment
from bench.measure.options import open_corpus, positive
from bench.measure.output import write_json
from dali_pipes import Corpus, make_demo_corpus
from dali_pipes.errors import DataError

FORMAT = 1
# Names of folders on each of the two levels of simulated paths.
FAN = 1000
# What must hold at the default size: name -> (better, limit, unit).
GOALS: dict[str, tuple[str, float, str]] = {
    "open_seconds": ("<", 1.0, "s"),
    "sampler_requests_per_second": (">", 50_000.0, "/s"),
    "loader_growth_percent": ("<", 2.0, "%"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this sub-command."""
    parser.add_argument(
        "corpus", type=Path, nargs="?", metavar="CORPUS_OR_FOLDER", help="rows to repeat (default: small made videos)"
    )
    parser.add_argument("--videos", type=positive, default=1_000_000, help="rows of the corpus (default: %(default)s)")
    parser.add_argument(
        "--requests", type=positive, default=1_000_000, help="requests drawn from the sampler (default: %(default)s)"
    )
    parser.add_argument(
        "--clips", type=positive, default=20_000, help="clips that the loader delivers (default: %(default)s)"
    )
    parser.add_argument(
        "--warmup", type=positive, default=2_000, help="clips before the memory is read (default: %(default)s)"
    )
    parser.add_argument(
        "--every", type=positive, default=1_000, help="clips from one reading to the next (default: %(default)s)"
    )
    parser.add_argument("--frames", type=positive, default=16, help="frames of a clip (default: %(default)s)")
    parser.add_argument("--size", type=positive, default=32, help="side of the clips, pixels (default: %(default)s)")
    parser.add_argument("--batch-size", type=positive, default=16, help="pairs of a batch (default: %(default)s)")
    parser.add_argument("--runs", type=positive, default=5, help="times that it is opened (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="write the result here as JSON")


def run(args: argparse.Namespace) -> int:
    """Make the corpus, measure, print and save.

    Returns:
        0, or 1 where a goal is missed.

    Raises:
        DataError: For a user's mistake.
    """
    if args.clips < args.warmup + 3 * args.every:
        raise DataError(
            f"--clips {args.clips}: a trend needs three readings, so at least --warmup + 3 * --every = "
            f"{args.warmup + 3 * args.every}"
        )
    log = Console(stderr=True)
    surroundings = environment.describe()
    with tempfile.TemporaryDirectory(prefix="bench-size-") as name:
        folder = Path(name)
        base = open_corpus(args.corpus) if args.corpus else _made(folder / "videos")
        path = folder / "corpus.parquet"
        log.print(f"writing {args.videos:,} rows")
        simulate(base, args.videos, folder / "links").save(path)
        measured = _measured(path, args, log)
    goals = judge(measured)
    result = {
        "format": FORMAT,
        "benchmark": "size",
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": _command(args),
        "environment": surroundings,
        "base": {"videos": len(base), "fingerprint": base.fingerprint},
        "measured": measured,
        "goals": goals,
    }
    if args.output is not None:
        write_json(args.output, result)
    out = Console()
    print_table(measured, goals, out if out.is_terminal else Console(width=100))
    return 0 if all(goal["met"] for goal in goals) else 1


def _measured(path: Path, args: argparse.Namespace, log: Console) -> dict[str, Any]:
    log.print(f"opening it in {args.runs} processes")
    openings = [step("open", path) for _ in range(args.runs)]
    log.print(f"drawing {args.requests:,} requests")
    sampler = step("sampler", path, args.frames, args.requests)
    log.print(f"loading {args.clips:,} clips")
    loader = step(
        "loader", path, args.frames, args.size, args.batch_size, args.clips, args.warmup, args.every
    )  # fmt: skip
    return {
        "videos": args.videos,
        "bytes_on_disk": path.stat().st_size,
        **{name: float(np.median([opening[name] for opening in openings])) for name in openings[0]},
        **sampler,
        **loader,
        "loader_growth_percent": growth(loader["loader_readings"]),
    }


def simulate(base: Corpus, videos: int, folder: Path) -> Corpus:
    """A corpus of any size whose rows can all be decoded.

    Row i has the columns of row `i % len(base)`, a modification time of its own and the path `AAA/BBB/N.suffix`, where
    every folder is a link to the same one: a million paths, and a handful of links on the disk.

    Args:
        base: What to repeat; its usable rows are taken.
        videos: Number of rows.
        folder: Where to put the links; made.

    Raises:
        DataError: If no row is usable, or more rows are asked for than there are paths.
    """
    rows = base.select(None)
    if not len(rows):
        raise DataError(
            f"{base.path or 'the corpus'}: none of its {len(base)} videos is usable; see its column 'error'"
        )
    if videos > len(rows) * FAN * FAN:
        raise DataError(f"--videos {videos}: at most {len(rows) * FAN * FAN} from {len(rows)} files")
    turns, places = np.divmod(np.arange(videos), len(rows))
    outer, inner = np.divmod(turns, FAN)
    folder.mkdir(parents=True)
    for number in range(int(inner.max()) + 1 if outer.max() == 0 else FAN):
        (folder / f"{number:03d}").symlink_to(".")
    names = []
    for place, row in enumerate(rows.tolist()):
        names.append(f"{place}{Path(base[row].uri).suffix}")
        (folder / names[-1]).symlink_to(Path(base[row].uri).resolve())
    numbers = pa.array([f"{number:03d}" for number in range(FAN)])
    paths = pc.binary_join_element_wise(
        str(folder.resolve()), numbers.take(pa.array(outer)), numbers.take(pa.array(inner)),
        pa.array(names).take(pa.array(places)), "/",
    )  # fmt: skip
    table = base.table.take(pa.array(rows[places]))
    times = pc.add(table.column("mtime_ns"), pa.array(np.arange(videos)))
    for name, column in (("uri", paths), ("mtime_ns", times)):
        at = table.schema.get_field_index(name)
        table = table.set_column(at, table.schema.field(at), column)
    return Corpus(table)


def step(name: str, *arguments: object) -> dict[str, Any]:
    """Take one measurement in a fresh process.

    Raises:
        DataError: If the process fails; its own message is on stderr.
    """
    command = [sys.executable, "-m", "bench.size_steps", name, *map(str, arguments)]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise DataError(f"measuring {name!r} ended with exit code {done.returncode}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def growth(readings: Sequence[tuple[int, float]]) -> float:
    """Growth of memory over a run, percent of its beginning.

    The slope is the median of the slopes between all pairs of readings (Theil 1950, Sen 1968), which a few outliers
    among the readings do not move.

    Args:
        readings: (clips delivered, MiB), at least two.
    """
    clips, memory = np.array(readings, np.float64).T
    first, second = np.triu_indices(len(clips), k=1)
    slope = np.median((memory[second] - memory[first]) / (clips[second] - clips[first]))
    begin = np.median(memory - slope * (clips - clips[0]))
    return float(100 * slope * (clips[-1] - clips[0]) / begin)


def judge(measured: dict[str, Any]) -> list[dict[str, Any]]:
    """Hold what was measured against `GOALS`."""
    verdicts = []
    for name, (better, limit, unit) in GOALS.items():
        value = measured[name]
        met = bool(value < limit if better == "<" else value > limit)
        verdicts.append({"name": name, "value": value, "goal": f"{better} {limit:g} {unit}", "met": met})
    return verdicts


def print_table(measured: dict[str, Any], goals: Sequence[dict[str, Any]], console: Console) -> None:
    """One row a figure, with its goal where it has one."""
    by_name = {goal["name"]: goal for goal in goals}
    table = Table(title=f"a corpus of {measured['videos']:,} videos", title_justify="left")
    for title, justify in (("figure", "left"), ("value", "right"), ("goal", "left")):
        table.add_column(title, justify=justify)  # type: ignore[arg-type]
    for name, value in measured.items():
        if isinstance(value, (int, float)) and name != "videos":
            goal = by_name.get(name)
            said = "" if goal is None else f"{goal['goal']}: {'met' if goal['met'] else 'MISSED'}"
            shown = f"{value:,}" if isinstance(value, int) else f"{value:,.1f}" if abs(value) >= 100 else f"{value:.3f}"
            table.add_row(name.replace("_", " "), shown, said)
    console.print(table)


def _made(folder: Path) -> Corpus:
    # H.264 has a key frame now and then, as most collections; of MJPEG every frame would be listed.
    splits = make_demo_corpus(folder, videos=24, codec="h264", frames=64, size=64)
    return Corpus.build(folder, layout="ucf101", splits=splits, progress=False)


def _command(args: argparse.Namespace) -> str:
    names = ("videos", "requests", "clips", "warmup", "every", "frames", "size", "batch_size", "runs")
    options = [f"--{name.replace('_', '-')} {getattr(args, name)}" for name in names]
    return " ".join(["python -m bench size", *([args.corpus.name] if args.corpus else []), *options])
