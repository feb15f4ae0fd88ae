"""Several corpora in one run, each with a weight: deterministic, and exactly resumable.

    python docs/examples/mix_corpora.py ucf101.parquet kinetics400.parquet --weights 1 3 --steps 100

Which corpus a step takes is a function of the seed and the step's number alone, so all ranks take the same one, and
the state is the step and what each loader says of itself.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dali_pipes import ClipBatch, Corpus, SpeedLoader


class MixedLoader:
    """An endless stream of batches, each of one corpus.

    Args:
        loaders: One for each corpus; each goes through its epochs at its own pace.
        weights: How often each is drawn, relative to the others.
        seed: Of the draws.
    """

    def __init__(self, loaders: Sequence[SpeedLoader], weights: Sequence[float], seed: int = 0) -> None:
        if len(loaders) != len(weights) or min(weights) < 0 or sum(weights) == 0:
            raise ValueError(
                f"weights {list(weights)}: one for each of {len(loaders)} corpora, not negative, not all 0"
            )
        self.loaders = list(loaders)
        self.shares = np.array(weights, np.float64) / sum(weights)
        self.seed = seed
        self.step = 0

    def source(self, step: int) -> int:
        """Number of the corpus that a step takes."""
        draw = np.random.Generator(np.random.Philox(key=self.seed, counter=[0, step, 0, 0])).random()
        return min(int(np.searchsorted(np.cumsum(self.shares), draw, side="right")), len(self.loaders) - 1)

    def __iter__(self) -> Iterator[tuple[int, ClipBatch]]:
        while True:
            source = self.source(self.step)
            batch = self._next(self.loaders[source])
            self.step += 1  # before the batch is handed out, so that a state taken in the loop is behind it
            yield source, batch

    @staticmethod
    def _next(loader: SpeedLoader) -> ClipBatch:
        while True:
            for batch in loader:  # goes on where the last such loop was left
                return batch
            # The loop had nothing left: the epoch is over, and the next loop begins the next one.

    def state_dict(self) -> dict[str, Any]:
        mix = {"step": self.step, "seed": self.seed, "shares": self.shares.tolist()}
        return {**mix, "loaders": [loader.state_dict() for loader in self.loaders]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if (state["seed"], state["shares"]) != (self.seed, self.shares.tolist()):
            raise ValueError("the state was saved with another seed or other weights")
        for loader, saved in zip(self.loaders, state["loaders"], strict=True):
            loader.load_state_dict(saved)
        self.step = state["step"]


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw batches from several corpora.")
    parser.add_argument("corpora", nargs="+", metavar="CORPUS", help="files that `dali-pipes index` wrote")
    parser.add_argument("--weights", type=float, nargs="+", help="one for each corpus (default: its videos)")
    parser.add_argument("--steps", type=int, default=100, help="steps of this run (default: %(default)s)")
    parser.add_argument("--state", type=Path, help="goes on from this file if it exists, and is written to it")
    parser.add_argument("--frames", type=int, default=16, help="frames of a clip (default: %(default)s)")
    parser.add_argument("--size", type=int, default=112, help="side of the clips, pixels (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=8, help="videos of a batch (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    args = parser.parse_args()

    loaders = [
        SpeedLoader(
            Corpus.open(path), frames=args.frames, size=args.size, batch_size=args.batch_size, device=args.device
        )
        for path in args.corpora
    ]
    mixed = MixedLoader(loaders, args.weights or [len(loader.sampler.videos) for loader in loaders])
    if args.state and args.state.exists():
        mixed.load_state_dict(json.loads(args.state.read_text()))
    last = mixed.step + args.steps
    for source, batch in mixed:
        print(f"step {mixed.step} corpus {source} epoch {batch.epoch} videos {batch.videos.tolist()}")
        if mixed.step == last:
            break
    if args.state:
        partial = args.state.with_name(f".{args.state.name}.part")
        partial.write_text(json.dumps(mixed.state_dict()))
        os.replace(partial, args.state)
    for loader in loaders:
        loader.close()


if __name__ == "__main__":
    main()
