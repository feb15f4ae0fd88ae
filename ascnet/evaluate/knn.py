"""Classification by nearest neighbours: how good features are, with nothing trained and no setting to tune.

Each of the k training videos nearest to a test video votes for its class: by exp(cosine / temperature), as InstDisc
(Wu et al., CVPR 2018) and DINO (Caron et al., ICCV 2021) do with k = 20 and temperature 0.07, or all alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import nn

from ascnet.errors import UserError
from ascnet.evaluate.features import Features, extract
from ascnet.evaluate.metrics import standard_error, top_k
from ascnet.evaluate.protocols import Protocol
from ascnet.evaluate.retrieve import Neighbours, neighbours
from ascnet.parallel.distributed import World
from dali_pipes import Corpus

K, TEMPERATURE = 20, 0.07


def votes(
    found: Neighbours, gallery_labels: ArrayLike, classes: int, *, temperature: float = TEMPERATURE
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores of the classes, (Q, classes) each, from the neighbours of each query: by weight, and by number.

    Equal numbers are settled by weight. Neighbours without a label do not vote.

    Args:
        found: The k nearest gallery videos of each query.
        gallery_labels: (N,) class numbers, -1 unknown.
        classes: How many classes there are.
        temperature: Of the weights; the smaller it is, the more the nearest ones count.
    """
    if not temperature > 0:
        raise UserError(f"temperature={temperature} must be positive")
    labels = np.where(found.places >= 0, np.asarray(gallery_labels, np.int64)[found.places], -1)
    there = labels >= 0
    # Relative to the nearest: the same votes, and no overflow at low temperatures.
    relative = np.where(there, found.scores.astype(np.float64) - found.scores[:, :1], -np.inf)
    weights = np.exp(relative / temperature)
    weighted, counted = np.zeros((2, len(labels), classes))
    queries, places = np.nonzero(there)
    np.add.at(weighted, (queries, labels[queries, places]), weights[queries, places])
    np.add.at(counted, (queries, labels[queries, places]), 1.0)
    share = weighted / np.maximum(weighted.sum(axis=1, keepdims=True), np.finfo(float).tiny)
    return weighted, counted + 0.5 * share


@dataclass(frozen=True)
class KnnResult:
    """Accuracies in percent.

    Attributes:
        top1: Of the weighted vote.
        top5: Of the weighted vote; None with five classes or fewer.
        majority: Top-1 of the plain vote.
        error: Standard error of `top1`.
        queries: How many videos were classified.
        gallery: How many could vote.
        failed: Why, by row number, for the videos left out.
    """

    top1: float
    top5: float | None
    majority: float
    error: float
    queries: int
    gallery: int
    failed: dict[int, str]


def classify(
    query: Features,
    gallery: Features,
    corpus: Corpus,
    *,
    k: int = K,
    temperature: float = TEMPERATURE,
    apart: bool = False,
) -> KnnResult:
    """Scores the vote of the k nearest gallery videos, over the queries whose class is known.

    Args:
        query: Features of the videos to classify.
        gallery: Features of the videos that vote; a video never votes on itself.
        corpus: Labels and groups.
        k: How many vote.
        temperature: Of their weights.
        apart: Whether videos of one group do not vote on each other, for a split that is compared with itself.

    Raises:
        UserError: If no query, or no video that votes, has a label.
    """
    names = corpus.groups if apart else np.arange(len(corpus))
    query = query.of(query.rows[corpus.labels[query.rows] >= 0])
    gallery = gallery.of(gallery.rows[corpus.labels[gallery.rows] >= 0])
    if not len(query.rows) or not len(gallery.rows):
        raise UserError("no video to classify, or none to vote, has a label; the corpus needs labels")
    found = neighbours(
        query.vectors, gallery.vectors, k, query_videos=names[query.rows], gallery_videos=names[gallery.rows]
    )
    labels, classes = corpus.labels[query.rows], len(corpus.classes)
    weighted, counted = votes(found, corpus.labels[gallery.rows], classes, temperature=temperature)
    best = top_k(weighted, labels)
    return KnnResult(
        best[1],
        best[5] if classes > 5 else None,
        top_k(counted, labels, [1])[1],
        standard_error(best[1], len(labels)),
        len(query.rows),
        len(gallery.rows),
        query.failed | gallery.failed,
    )


class KnnMonitor:
    """Classifies by nearest neighbours now and then while an encoder is being trained.

        monitor = KnnMonitor(corpus, config.to_dict(), world=world)
        ...
        if step % every == 0:
            log.record({..., **monitor(model.online.encoder)})

    All processes call it, each describes its share of the videos, and all get the same numbers. The encoder is in
    evaluation mode for the while; weights, statistics and random numbers are as before.
    """

    def __init__(
        self,
        corpus: Corpus,
        config: Mapping[str, Any],
        *,
        world: World,
        query_split: str | None = None,
        gallery_split: str = "train",
        videos: int | None = None,
        clips: int = 1,
        k: int = K,
        temperature: float = TEMPERATURE,
        precision: str = "fp32",
        batch_size: int = 40,
        threads: int | None = None,
        progress: bool = False,
    ) -> None:
        """
        Args:
            corpus: Videos with labels.
            config: The run's configuration as nested mappings; its frames, size, frame rate and colours are used.
            world: The processes of the run.
            query_split: Videos to classify; None: `val`, where the corpus has it, else the videos that vote, each
                without its own group. The test split is better not looked at while training.
            gallery_split: Videos that vote; None or a split that is not there: all.
            videos: At most so many of each, the same in every call; None: all.
            clips: Clips of a video.
            k: How many vote.
            temperature: Of their weights.
            precision: Number format of the forward pass.
            batch_size: Clips in a forward pass.
            threads: Decoding threads.
            progress: Whether to show progress.

        Raises:
            UserError: If there are no labels.
        """
        gallery = gallery_split if gallery_split in corpus.splits else None
        queries = query_split or ("val" if "val" in corpus.splits else gallery)
        self._apart = queries == gallery
        self._query = _some(corpus, queries, videos)
        self._gallery = self._query if self._apart else _some(corpus, gallery, videos)
        self._corpus, self._world, self._k, self._temperature = corpus, world, k, temperature
        data = config["data"]
        self._protocol = Protocol(
            frames=data["frames"],
            size=data["size"],
            clips=clips,
            fps=data["fps"],
            short="pad" if data["short"] == "pad" else "loop",
            mean=tuple(data["augment"]["mean"]),
            std=tuple(data["augment"]["std"]),
            precision=precision,  # type: ignore[arg-type]
        )
        self._options: dict[str, Any] = {"batch_size": batch_size, "threads": threads, "progress": progress}

    def __call__(self, encoder: nn.Module) -> dict[str, float]:
        """`knn/top1` and `knn/majority` in percent, `knn/top5` with more than five classes, and `knn/queries`."""
        rows = np.union1d(self._query, self._gallery)
        found = self._features(encoder, rows)
        result = classify(
            found.of(self._query),
            found.of(self._gallery),
            self._corpus,
            k=self._k,
            temperature=self._temperature,
            apart=self._apart,
        )
        top5 = {} if result.top5 is None else {"knn/top5": result.top5}
        return {"knn/top1": result.top1, **top5, "knn/majority": result.majority, "knn/queries": float(result.queries)}

    def _features(self, encoder: nn.Module, rows: NDArray[np.int64]) -> Features:
        world = self._world
        own = rows[world.rank :: world.size]
        part = None
        with world.together():
            if len(own):
                part = extract(encoder, self._corpus, own, self._protocol, device=world.device, **self._options)
        parts = [part for part in world.everyone(part) if part is not None]
        failed: dict[int, str] = {}
        for one in parts:
            failed |= one.failed
        kept, vectors = np.concatenate([p.rows for p in parts]), np.concatenate([p.vectors for p in parts])
        order = np.argsort(kept)
        return Features(kept[order], vectors[order], failed)


def _some(corpus: Corpus, split: str | None, most: int | None) -> NDArray[np.int64]:
    """Labelled videos of a split, at most so many of them, evenly drawn."""
    rows = np.asarray(corpus.select(split), np.int64)
    rows = rows[corpus.labels[rows] >= 0]
    if not len(rows):
        raise UserError(f"no video of split {split or 'all'!r} has a label, so its neighbours cannot classify")
    if most is not None and len(rows) > most:
        rows = np.sort(np.random.default_rng(0).choice(rows, most, replace=False))
    return rows
