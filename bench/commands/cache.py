"""`python -m bench cache`: epochs of a training loader with and without the cache that fills itself.

Both loaders deliver the same requests. Without the cache every epoch costs the same; with it the first one fills the
cache beside its own work, and later ones decode small copies.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bench.measure import environment
from bench.measure.options import open_corpus, positive
from bench.measure.output import write_json
from bench.measure.processes import cpu_seconds
from dali_pipes import Augment, Corpus, SpeedLoader, Video, VideoCache
from dali_pipes.errors import DataError

FORMAT = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this sub-command."""
    parser.add_argument("corpus", type=Path, metavar="CORPUS_OR_FOLDER", help="a .parquet index or a folder of videos")
    parser.add_argument("--epochs", type=positive, default=3, help="epochs of each loader (default: %(default)s)")
    parser.add_argument(
        "--visits", type=positive, default=8, help="visits of each video in an epoch (default: %(default)s)"
    )
    parser.add_argument("--frames", type=positive, default=16, help="frames of a clip (default: %(default)s)")
    parser.add_argument("--size", type=positive, default=112, help="side of the clips, pixels (default: %(default)s)")
    parser.add_argument("--batch-size", type=positive, default=5, help="pairs of a batch (default: %(default)s)")
    parser.add_argument("--threads", type=positive, help="threads of the loader (default: one for each core)")
    parser.add_argument("--share", type=float, default=0.5, help="of one core for encoding (default: %(default)s)")
    parser.add_argument("--augment", action="store_true", help="with the default augmentation")
    parser.add_argument("--folder", type=Path, help="the cache (default: a temporary one, empty)")
    parser.add_argument("--output", type=Path, help="write the result here as JSON")


def run(args: argparse.Namespace) -> int:
    """Time the epochs, compare pixels, print and save; 0.

    Raises:
        DataError: For a user's mistake.
    """
    surroundings = environment.describe()
    corpus = open_corpus(args.corpus)
    log = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="bench-cache-") as temporary:
        cache = VideoCache.for_clips(args.folder or temporary, args.size, crops=args.augment, share=args.share)
        try:
            without = _epochs(corpus, None, args, log)
            with_cache = _epochs(corpus, cache, args, log)
            if not cache.wait(600):
                raise DataError("the cache was not filled ten minutes after the last epoch; raise --share")
            quality = _psnr(corpus, cache)
            stats = vars(cache.stats)
            size = sum(path.stat().st_size for path in cache.folder.rglob("*.mp4"))
        finally:
            cache.close()
    result: dict[str, Any] = {
        "format": FORMAT,
        "benchmark": "cache",
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "arguments": {k: v for k, v in vars(args).items() if k not in ("corpus", "output", "folder", "command")},
        "environment": surroundings,
        "corpus": {"name": args.corpus.name, "fingerprint": corpus.fingerprint, "videos": len(corpus)},
        "without": without,
        "with": with_cache,
        "cache": {**stats, "failed": len(stats["failed"]), "bytes": size, "psnr": quality},
    }
    if args.output is not None:
        write_json(args.output, result)
    _print(result)
    return 0


def _epochs(corpus: Corpus, cache: VideoCache | None, args: argparse.Namespace, log: Console) -> list[dict[str, float]]:
    """Pairs/s of each epoch, wall time and CPU time; encoding included where it runs beside."""
    found = []
    with SpeedLoader(
        corpus,
        frames=args.frames,
        size=args.size,
        batch_size=args.batch_size,
        clips_per_video=args.visits,
        augment=Augment() if args.augment else None,
        threads=args.threads,
        device="cpu",
        cache=cache,
    ) as loader:
        for number in range(args.epochs):
            hits, misses = _visits(cache)
            begun, cpu, pairs = time.perf_counter(), cpu_seconds(), 0
            for batch in loader:
                pairs += len(batch)
            seconds = time.perf_counter() - begun
            # Some requests of the next epoch are prepared already, so the share is one of visits and not of pairs.
            hits, misses = (now - then for now, then in zip(_visits(cache), (hits, misses), strict=True))
            found.append(
                {
                    "pairs": pairs,
                    "seconds": seconds,
                    "pairs_per_second": pairs / seconds,
                    "cpu_seconds_per_pair": (cpu_seconds() - cpu) / pairs,
                    "from_copies": hits / max(hits + misses, 1),
                }
            )
            log.print(f"{'with' if cache else 'without'} cache, epoch {number + 1}: {pairs / seconds:.1f} pairs/s")
    return found


def _visits(cache: VideoCache | None) -> tuple[int, int]:
    """Requests served from copies and from the videos themselves so far."""
    return (cache.stats.hits, cache.stats.misses) if cache is not None else (0, 0)


def _psnr(corpus: Corpus, cache: VideoCache) -> dict[str, float]:
    """Of copies against the raw frames scaled to their size, RGB, dB: every tenth frame of every upright video."""
    values = []
    for row in corpus.select().tolist():
        copy = cache.copy_of(corpus[row])
        if copy is None or corpus[row].rotation:
            continue
        error, count = 0.0, 0
        for raw, small in zip(_pictures(corpus[row].uri, copy), _pictures(copy.uri, copy), strict=True):
            error, count = error + float(np.square(raw - small).mean()), count + 1
        values.append(10 * math.log10(255**2 / max(error / count, 1e-9)))
    return {"videos": len(values), "lowest": min(values), "median": float(np.median(values))} if values else {}


def _pictures(path: str, copy: Video) -> Iterator[NDArray[np.float64]]:
    """Every tenth frame of a sequential decode, scaled as the loader scales."""
    converter = VideoReformatter()
    with av.open(path, metadata_errors="ignore") as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number % 10 == 0:
                rgb = converter.reformat(frame, copy.width, copy.height, "rgb24", interpolation=Interpolation.AREA)
                yield rgb.to_ndarray().astype(np.float64)


def _print(result: dict[str, Any]) -> None:
    table = Table("epoch", "without, pairs/s", "with, pairs/s", "ratio", "from copies")
    for number, (a, b) in enumerate(zip(result["without"], result["with"], strict=True), start=1):
        x, y = a["pairs_per_second"], b["pairs_per_second"]
        table.add_row(str(number), f"{x:.1f}", f"{y:.1f}", f"{y / x:.2f}", f"{100 * b['from_copies']:.0f} %")
    out = Console()
    out.print(table)
    out.print(f"cache: {result['cache']}", soft_wrap=True)
