"""The measurements of `python -m bench size`, each run as `python -m bench.size_steps NAME ...` in its own process.

Each prints one line of JSON. Memory is what the process holds in RAM (resident set), MiB.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable
from time import perf_counter
from typing import Any

from bench.measure.processes import resident

SPEEDS = (1, 2)


def measure_open(path: str) -> dict[str, Any]:
    """Opens the corpus, then uses it: which videos are usable, and all columns of the last row."""
    from dali_pipes.corpus import Corpus

    before, begun = resident(), perf_counter()
    corpus = Corpus.open(path)
    opened, held = perf_counter() - begun, resident() - before
    corpus.select(None)
    corpus[len(corpus) - 1]
    # Columns are read when they are first asked for, so opening alone would not tell the whole cost.
    return {
        "open_seconds": opened,
        "open_mib": held,
        "open_and_read_all_columns_seconds": perf_counter() - begun,
        "open_and_read_all_columns_mib": resident() - before,
    }


def measure_sampler(path: str, frames: str, requests: str) -> dict[str, Any]:
    """Draws requests from a new sampler, epoch after epoch."""
    from dali_pipes import ClipSampler, Corpus

    corpus = Corpus.open(path)
    begun = perf_counter()
    sampler = ClipSampler(corpus, frames=int(frames), speeds=SPEEDS)
    sampler.request(0, 0)
    first = perf_counter() - begun
    before, begun = resident(), perf_counter()
    for number in range(int(requests)):
        sampler.request(*divmod(number, len(sampler)))
    seconds = perf_counter() - begun
    return {
        "sampler_first_request_seconds": first,
        "sampler_requests_per_second": int(requests) / seconds,
        "sampler_mib_before": before,
        "sampler_mib_after": resident(),
    }


def measure_loader(
    path: str, frames: str, size: str, batch_size: str, clips: str, warmup: str, every: str
) -> dict[str, Any]:
    """Delivers clips, reading the memory now and then after the warm-up."""
    from dali_pipes import Corpus, Progress, SpeedLoader

    corpus = Corpus.open(path)
    begun = perf_counter()
    loader = SpeedLoader(
        corpus, frames=int(frames), size=int(size), speeds=SPEEDS, batch_size=int(batch_size), device="cpu"
    )
    built, begun = perf_counter() - begun, perf_counter()
    loader.state_dict()
    first_state, begun = perf_counter() - begun, perf_counter()
    loader.state_dict()
    next_state, begun = perf_counter() - begun, perf_counter()
    readings: list[tuple[int, float]] = []
    done, due, first_batch = 0, int(warmup), 0.0
    with loader, Progress("loading", int(clips), unit="clips") as progress:
        while done < int(clips):
            for batch in loader:
                first_batch = first_batch or perf_counter() - begun
                delivered = batch.clips.shape[0] * batch.clips.shape[1]
                done += delivered
                progress.advance(delivered)
                if done >= due:
                    gc.collect()
                    readings.append((done, resident()))
                    due += int(every)
                if done >= int(clips):
                    break
        stats = loader.stats
    return {
        "loader_construction_seconds": built,
        "loader_first_state_dict_seconds": first_state,
        "loader_next_state_dict_seconds": next_state,
        "loader_first_batch_seconds": first_batch,
        "loader_replaced": stats.replaced,
        "loader_mib_begin": readings[0][1],
        "loader_mib_end": readings[-1][1],
        "loader_readings": readings,
    }


STEPS: dict[str, Callable[..., dict[str, Any]]] = {
    "open": measure_open,
    "sampler": measure_sampler,
    "loader": measure_loader,
}

if __name__ == "__main__":
    print(json.dumps(STEPS[sys.argv[1]](*sys.argv[2:])))
