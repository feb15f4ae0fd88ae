"""Damaged files through the index and the loader: nothing may crash, hang, eat memory or change a neighbour's pixels.

Each variant is probed in a guarded process, as ``dali-pipes index`` does. Where the probe calls it usable it is played
in a batch between two clean videos, in a guarded process too; where not, it is played with the row of the undamaged
file, as if the damage had come after the index. A worker of the index that dies is contained and only counted; a loader
that dies is a failure.
"""

from __future__ import annotations

import argparse
import resource
import shlex
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from bench.fuzz_variants import damaged, variant
from bench.measure.output import write_json
from dali_pipes.errors import DataError, VideoError
from dali_pipes.progress import Progress

LARGEST = 4 << 20  # bytes of a file that is taken: small ones give more variants a second
GROUP = 16  # variants between two looks at the clock
GROWTH = 512 << 10  # KiB that playing one variant may add to the loader's largest resident size
ADDRESSES = 16 << 30  # bytes of address space for torch, DALI and their threads
FRAMES, SIZE = 8, 64

_LABELS = {"label": "", "split": "", "group": ""}
_originals: dict[str, dict[str, Any]] = {}
_reference: dict[tuple[str, ...], Any] = {}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m bench fuzz``."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder of real videos to damage")
    parser.add_argument("--variants", type=int, default=2000, metavar="N", help="how many (default 2000)")
    parser.add_argument("--seconds", type=float, default=3600.0, help="stop after this time (default 3600)")
    parser.add_argument(
        "--seed", type=int, default=0, help="the same seed and files give the same variants (default 0)"
    )
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of the first variant (default 0)")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds for one variant (default 60)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the result there, as JSON")


def run(args: argparse.Namespace) -> int:
    """Damage, index, play; exit code 1 on any failure."""
    if min(args.variants, args.seconds, args.timeout) <= 0 or args.seed < 0 or args.first < 0:
        raise DataError("--variants, --seconds and --timeout must be more than 0, --seed and --first not negative")
    files = find_files(args.folder)
    begun = time.monotonic()
    counts: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    replaced: Counter[str] = Counter()
    failures: list[dict[str, Any]] = []
    numbers = range(args.first, args.first + args.variants)
    with (
        tempfile.TemporaryDirectory(prefix="fuzz-") as scratch,
        Progress("fuzz", args.variants, unit="variants") as bar,
    ):
        clean = make_clean(Path(scratch))
        for start in range(0, len(numbers), GROUP):
            if time.monotonic() - begun > args.seconds:
                break
            for kind, told, reason in _group(files, args, numbers[start : start + GROUP], Path(scratch), clean):
                counts[kind] += 1
                if kind in ("refused", "contained"):
                    refused[reason] += 1
                elif kind in ("replaced", "replaced late"):
                    replaced[reason] += 1
                elif kind not in ("played", "played late"):
                    failures.append({**told, "failure": kind, "reason": reason})
            bar.advance(len(numbers[start : start + GROUP]))
    result = {
        "command": shlex.join(["python", "-m", "bench", *sys.argv[1:]]),
        "files": len(files),
        "variants": bar.done,
        "seed": args.seed,
        "seconds": round(time.monotonic() - begun, 1),
        "counts": dict(counts),
        "refused": dict(refused.most_common()),
        "replaced": dict(replaced.most_common()),
        "failures": failures,
    }
    if args.output is not None:
        write_json(args.output, result)
    print(f"{bar.done} variants of {len(files)} files, seed {args.seed}, {result['seconds']} s")
    print(f"refused by the index {counts['refused']}, its worker ended and replaced {counts['contained']}")
    print(f"played to the end {counts['played']}, replaced while playing {counts['replaced']}")
    late = f"played to the end {counts['played late']}, replaced while playing {counts['replaced late']}"
    print(f"damaged after the index, so to say: {late}")
    for failure in failures:
        print("FAILED variant {variant}: {mutation} of {file}: {failure}: {reason}".format(**failure))
    print("no failures" if not failures else f"{len(failures)} failures")
    return 1 if failures else 0


def find_files(folder: Path) -> list[Path]:
    """The videos to damage, sorted, so that a seed means the same variants.

    Raises:
        DataError: There are none.
    """
    from dali_pipes.corpus.files import PATTERNS

    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    endings = tuple(pattern[1:] for pattern in PATTERNS)
    files = [path for path in sorted(folder.rglob("*")) if path.name.lower().endswith(endings) and path.is_file()]
    files = [path for path in files if 64 <= path.stat().st_size <= LARGEST]
    if not files:
        raise DataError(f"{folder}: no videos of 64 bytes to {LARGEST >> 20} MiB there")
    return files


def make_clean(folder: Path) -> list[dict[str, Any]]:
    """Rows of two undamaged videos: one that DALI decodes on the CPU and one that the host does."""
    import av

    from dali_pipes.corpus.probe import probe_row

    rows = []
    for name, codec, pixels in (("clean.avi", "mjpeg", "yuvj420p"), ("clean.mp4", "mpeg4", "yuv420p")):
        with av.open(str(folder / name), "w") as container:
            stream: Any = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 96, 80, pixels
            y, x = np.mgrid[0:80, 0:96]
            for i in range(40):
                picture = np.stack([(x * 2 + 5 * i) % 256, (y * 3 + i) % 256, (x + y + 3 * i) % 256], axis=-1)
                frame = av.VideoFrame.from_ndarray(picture.astype(np.uint8), format="rgb24").reformat(format=pixels)
                frame.pts, frame.time_base = i, Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        rows.append(probe_row(str(folder / name)) | _LABELS)
    return rows


def _group(
    files: list[Path], args: argparse.Namespace, numbers: range, scratch: Path, clean: list[dict[str, Any]]
) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Kind of outcome, what the variant is, reason: for each of some variants."""
    from dali_pipes.corpus.engine import Lost, run_all
    from dali_pipes.quarantine import general

    told, paths = [], []
    for number in numbers:
        which, mutation, rng = variant(args.seed, number, len(files))
        source = files[which]
        path = scratch / f"v{number}{source.suffix}"
        path.write_bytes(damaged(source.read_bytes(), mutation, rng))
        told.append({"variant": number, "file": str(source.relative_to(args.folder)), "mutation": mutation})
        paths.append(path)
    originals = _rows_of([args.folder / entry["file"] for entry in told], args.timeout)
    usable: list[tuple[int, dict[str, Any]]] = []
    late: set[int] = set()
    for i, row in run_all(_probe, [str(path) for path in paths], workers=1, timeout=args.timeout):
        if isinstance(row, Lost):
            yield "contained", told[i], row.reason
        elif row["error"]:
            yield "refused", told[i], general(row["error"])
        else:
            usable.append((i, row | _LABELS))
            continue
        original = originals[i]
        if original and not original["error"]:
            late.add(i)
            usable.append((i, original | _LABELS | {"uri": str(paths[i])}))
    items = [(row, clean, told[i]["variant"]) for i, row in usable]
    # One worker: it is the loader's process, and what one variant leaves behind meets the next.
    for at, outcome in run_all(play, items, workers=1, timeout=args.timeout, memory=ADDRESSES):
        which_told = told[usable[at][0]]
        ending = " late" if usable[at][0] in late else ""
        if isinstance(outcome, Lost):
            yield ("hang" if "longer" in outcome.reason else "crash") + ending, which_told, outcome.reason
        else:
            yield outcome[0] + ending, which_told, outcome[1]
    for path in paths:
        path.unlink()


def _rows_of(files: list[Path], timeout: float) -> list[dict[str, Any]]:
    """Rows of undamaged files, each probed once; {} for one that ends the probe."""
    from dali_pipes.corpus.engine import Lost, run_all

    new = sorted({str(path) for path in files} - set(_originals))
    for i, row in run_all(_probe, new, workers=1, timeout=timeout):
        _originals[new[i]] = {} if isinstance(row, Lost) else row
    return [_originals[str(path)] for path in files]


def _probe(uri: str) -> dict[str, Any]:
    import av

    from dali_pipes.corpus.probe import probe_row

    av.logging.set_level(None)
    return probe_row(uri)


def play(item: tuple[dict[str, Any], list[dict[str, Any]], int]) -> tuple[str, str]:
    """Play a damaged video between clean ones, with both decoders; returns kind of outcome and reason.

    Args:
        item: Row of the damaged video, rows of the clean ones, the variant's number.
    """
    import logging

    import av

    from dali_pipes.quarantine import general

    av.logging.set_level(None)
    logging.getLogger("dali_pipes").setLevel(logging.ERROR)
    row, clean, number = item
    reference = _clean_clips(clean)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    reasons: list[str] = []
    rng = np.random.default_rng(number)
    starts = [0, int(rng.integers(row["frames"])), row["frames"] - 1]
    try:
        for decoder in ("auto", "host"):
            for clips, bad in _clips([clean[0], row, clean[1]], starts, decoder):
                reasons += bad
                if clips.shape != (3, 1, 3, FRAMES, SIZE, SIZE):
                    return "shape", str(tuple(clips.shape))
                if not np.array_equal(clips[[0, 2]], reference[decoder]):
                    return "poisoned", f"clean neighbours differ (decoder {decoder})"
    except VideoError as error:
        return "error", error.reason
    except (DataError, RuntimeError, MemoryError) as error:
        return "error", f"{type(error).__name__}: {error}".splitlines()[0][:300]
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    if grown > GROWTH + 12 * FRAMES * 3 * row["width"] * row["height"] // 1024:
        return "memory", f"{grown >> 10} MiB more"
    return ("replaced", general(reasons[0])) if reasons else ("played", "")


def _clean_clips(clean: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    key = tuple(row["uri"] for row in clean)
    if key not in _reference:
        _reference[key] = {decoder: next(_clips(clean, [0], decoder))[0] for decoder in ("auto", "host")}
    known: dict[str, np.ndarray] = _reference[key]
    return known


def _clips(rows: list[dict[str, Any]], starts: list[int], decoder: Any) -> Iterator[tuple[np.ndarray, list[str]]]:
    """A batch of all rows for each start of the one in the middle; clips and the reasons of what was replaced."""
    from dali_pipes import ClipRequest, ClipStream, Corpus, Key, View

    corpus = Corpus.from_rows(rows)
    options: dict[str, Any] = {"frames": FRAMES, "size": SIZE, "batch_size": len(rows), "device": "cpu", "max_bad": 1}
    # Clean ones take the place of what cannot be decoded.
    spares = [0, len(rows) - 1]
    with ClipStream(corpus, dtype="uint8", threads=2, decoder=decoder, replacements=spares, **options) as stream:
        for n, start in enumerate(starts):
            places = [3] * len(rows)
            if len(rows) == 3:
                places[1] = start
            stream.submit([ClipRequest(i, (View(1, at),), Key(0, n, i)) for i, at in enumerate(places)])
            yield stream.get().clips.numpy(), list(stream.stats.bad.values())
