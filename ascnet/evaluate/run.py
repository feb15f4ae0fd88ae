"""Retrieval from end to end: an encoder and a corpus in, neighbours and recall out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ascnet.encoders import build_encoder
from ascnet.errors import UserError
from ascnet.evaluate.clips import dropped
from ascnet.evaluate.features import Features, extract
from ascnet.evaluate.protocols import Protocol
from ascnet.evaluate.retrieve import Neighbours, neighbours, recall_at
from ascnet.parallel.distributed import World
from dali_pipes import Corpus, DataError


@dataclass(frozen=True)
class Retrieval:
    """What one kind of feature retrieves.

    Attributes:
        recalls: R@k in percent.
        found: The neighbours, as places in `gallery`.
        queries: ``(Q,)`` row numbers of the queries.
        gallery: ``(N,)`` row numbers of the gallery.
        failed: Why, by row number, for the videos left out.
        dropped: Row numbers that the protocol leaves out with an incomplete batch: of queries, of the gallery.
    """

    recalls: dict[int, float]
    found: Neighbours
    queries: NDArray[np.int64]
    gallery: NDArray[np.int64]
    failed: dict[int, str]
    dropped: dict[str, list[int]] = field(default_factory=dict)


def split_rows(corpus: Corpus, protocol: Protocol) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row numbers of the protocol's queries and gallery, without those in batches that it drops.

    Raises:
        UserError: If either does not exist or is empty.
    """
    rows = _all_rows(corpus, protocol)
    seed = protocol.seed if protocol.shuffled else None
    return dropped(rows[0], protocol.query_batch), dropped(rows[1], protocol.gallery_batch, seed=seed)


def _all_rows(corpus: Corpus, protocol: Protocol) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    rows = []
    for option, split in (("query-split", protocol.query_split), ("gallery-split", protocol.gallery_split)):
        try:
            chosen = corpus.select(split or None)
        except DataError as error:
            raise UserError(
                f"--{option}: {error} (`all` takes the whole corpus, each video against the others)"
            ) from None
        if not len(chosen):
            raise UserError(f"--{option} {split or 'all'}: the corpus has no usable video there")
        rows.append(np.asarray(chosen, np.int64))
    return rows[0], rows[1]


def retrieve(
    features: Features, corpus: Corpus, protocol: Protocol, gallery_features: Features | None = None
) -> Retrieval:
    """Compare queries with the gallery.

    Args:
        features: Of both; or of the queries.
        corpus: The videos.
        protocol: Splits, k and measure.
        gallery_features: Of the gallery, where a protocol treats it otherwise than the queries.
    """
    everything = _all_rows(corpus, protocol)
    query_rows, gallery_rows = split_rows(corpus, protocol)
    query = features.of(query_rows)
    gallery = (features if gallery_features is None else gallery_features).of(gallery_rows)
    if not len(query.rows) or not len(gallery.rows):
        raise UserError("no query or no gallery video could be decoded")
    query_vectors: NDArray[Any] = query.vectors
    gallery_vectors: NDArray[Any] = gallery.vectors
    if protocol.center == "split":
        query_vectors, gallery_vectors = _centred(query_vectors), _centred(gallery_vectors)
    found = neighbours(
        query_vectors,
        gallery_vectors,
        max(protocol.ks),
        center=protocol.center is True,
        query_videos=query.rows,
        gallery_videos=gallery.rows,
    )
    recalls = recall_at(found, corpus.labels[query.rows], corpus.labels[gallery.rows], protocol.ks)
    left = {
        "queries": sorted(set(everything[0].tolist()) - set(query_rows.tolist())),
        "gallery": sorted(set(everything[1].tolist()) - set(gallery_rows.tolist())),
    }
    return Retrieval(recalls, found, query.rows, gallery.rows, gallery.failed | query.failed, left)


def _centred(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = vectors.astype(np.float64)
    return np.asarray(wide - wide.mean(axis=0), np.float64)


def evaluate(
    encoder: nn.Module,
    corpus: Corpus,
    protocol: Protocol,
    *,
    device: str | torch.device = "cpu",
    batch_size: int = 40,
    threads: int | None = None,
    progress: bool = True,
    cache: str | os.PathLike[str] | None = None,
    world: World | None = None,
) -> Retrieval:
    """Features of all the protocol's videos, then retrieval; the arguments are those of `extract`.

    On all processes but the first the retrieval is empty.
    """
    queries, gallery = split_rows(corpus, protocol)
    options: dict[str, Any] = {"device": device, "batch_size": batch_size, "threads": threads}
    options |= {"progress": progress, "cache": cache, "world": world}
    if protocol.recipe("query") == protocol.recipe("gallery"):
        features = extract(encoder, corpus, np.union1d(queries, gallery), protocol, **options)
        of_gallery = None
    else:
        features = extract(encoder, corpus, queries, protocol, role="query", **options)
        of_gallery = extract(encoder, corpus, gallery, protocol, role="gallery", **options)
    if world is not None and not world.is_first:
        nothing = Neighbours(np.empty((0, 0), np.int64), np.empty((0, 0), np.float32))
        return Retrieval({}, nothing, features.rows, features.rows, {})
    return retrieve(features, corpus, protocol, of_gallery)


def untrained_encoder(config: Mapping[str, Any], seed: int | None = None) -> nn.Module:
    """The encoder that a run with this configuration starts from: same architecture, random weights.

    Args:
        config: A run's configuration as nested mappings.
        seed: Seed of the weights; None: the configuration's.
    """
    model = config["model"]
    with torch.random.fork_rng():
        torch.manual_seed(int(config["seed"]) if seed is None else seed)
        encoder = build_encoder(model["encoder"], width=model["width"], **model.get("options", {}))
    return encoder.eval()
