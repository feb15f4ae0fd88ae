"""The features that a page shows: of all videos that are compared, or of an even sample where they are many."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ascnet.errors import UserError
from ascnet.evaluate.features import Features, extract
from ascnet.evaluate.protocols import Protocol
from ascnet.evaluate.retrieve import Neighbours, neighbours
from ascnet.report.source import Source
from dali_pipes import Corpus


@dataclass(frozen=True)
class Described:
    """Videos and their features.

    Attributes:
        protocol: How the clips were taken.
        queries: ``(Q,)`` row numbers.
        gallery: ``(N,)`` row numbers.
        features: Of both.
        found: The gallery's nearest videos to each query.
        note: In words what was compared, and what was left out.
    """

    protocol: Protocol
    queries: NDArray[np.int64]
    gallery: NDArray[np.int64]
    features: Features
    found: Neighbours
    note: str


def describe(
    source: Source, corpus: Corpus, *, videos: int, neighbours_of_each: int, clips: int | None, device: torch.device
) -> Described:
    """Features of a run's videos by its encoder, from its cache where they are there.

    Args:
        source: A run with an encoder.
        corpus: Its videos.
        videos: At most so many of the queries and of the gallery each.
        neighbours_of_each: Found of each query.
        clips: Of each video; None: as in the run's retrieval, else 10.
        device: Where the encoder runs.

    Raises:
        UserError: If no video can be decoded.
    """
    assert source.encoder is not None
    # How a published protocol takes its clips is part of its scores; the page shows the plain way.
    told = source.protocol(clips)
    protocol = replace(
        told, name="clean", crop="centre", pool="average", rounding="nearest", center=False, augmented_gallery=False,
        query_batch=0, gallery_batch=0, shuffled=False,
    )  # fmt: skip
    splits = [protocol.query_split, protocol.gallery_split]
    if any(split and split not in corpus.splits for split in splits):
        splits = ["", ""]
    parts, told_of = [], []
    for split in splits:
        rows = np.asarray(corpus.select(split or None), np.int64)
        if not len(rows):
            raise UserError(f"{corpus.path or 'the corpus'}: no usable video in split {split or 'all'}")
        kept = evenly(by_class(corpus, rows), videos)
        parts.append(np.sort(kept))
        of = f"{len(kept)} of {len(rows)}" if len(kept) < len(rows) else f"{len(rows)}"
        told_of.append(f"{of} {split or ''} videos".replace("  ", " "))
    features = extract(
        source.encoder, corpus, np.union1d(*parts), protocol, device=device, cache=Path(source.folder) / "features"
    )
    queries, gallery = (features.of(part) for part in parts)
    if not len(queries.rows) or not len(gallery.rows):
        raise UserError(f"{corpus.path or 'the corpus'}: no query or no gallery video could be decoded")
    found = neighbours(
        queries.vectors, gallery.vectors, neighbours_of_each, query_videos=queries.rows, gallery_videos=gallery.rows
    )
    note = f"{told_of[0]} as queries against {told_of[1]}; {protocol.clips} clips a video"
    note += f"; {len(features.failed)} videos could not be decoded" if features.failed else ""
    return Described(protocol, queries.rows, gallery.rows, features, found, note)


def by_class(corpus: Corpus, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows in order of their class, then of the corpus."""
    return rows[np.argsort(corpus.labels[rows], kind="stable")]


def evenly(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """At most so many rows, evenly spaced: never chosen by how well they do."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int))]
