"""Retrieval from end to end: an encoder and a corpus in, neighbours and recall out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ascnet.encoders import build_encoder
from ascnet.errors import UserError
from ascnet.evaluate.features import Features, extract
from ascnet.evaluate.protocols import Protocol
from ascnet.evaluate.retrieve import Neighbours, neighbours, recall_at
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
    """

    recalls: dict[int, float]
    found: Neighbours
    queries: NDArray[np.int64]
    gallery: NDArray[np.int64]
    failed: dict[int, str]


def split_rows(corpus: Corpus, protocol: Protocol) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row numbers of the protocol's queries and gallery.

    Raises:
        UserError: If either does not exist or is empty.
    """
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


def retrieve(features: Features, corpus: Corpus, protocol: Protocol) -> Retrieval:
    """Compare queries with the gallery, from features of both."""
    query_rows, gallery_rows = split_rows(corpus, protocol)
    query, gallery = features.of(query_rows), features.of(gallery_rows)
    if not len(query.rows) or not len(gallery.rows):
        raise UserError("no query or no gallery video could be decoded")
    found = neighbours(
        query.vectors,
        gallery.vectors,
        max(protocol.ks),
        center=protocol.center,
        query_videos=query.rows,
        gallery_videos=gallery.rows,
    )
    recalls = recall_at(found, corpus.labels[query.rows], corpus.labels[gallery.rows], protocol.ks)
    return Retrieval(recalls, found, query.rows, gallery.rows, features.failed)


def evaluate(
    encoder: nn.Module,
    corpus: Corpus,
    protocol: Protocol,
    *,
    device: str | torch.device = "cpu",
    batch_size: int = 40,
    threads: int | None = None,
    progress: bool = True,
) -> Retrieval:
    """Features of all the protocol's videos, then retrieval; the arguments are those of `extract`."""
    rows = np.union1d(*split_rows(corpus, protocol))
    features = extract(
        encoder,
        corpus,
        rows,
        protocol,
        batch_size=batch_size,
        device=device,
        threads=threads,
        progress=progress,
    )
    return retrieve(features, corpus, protocol)


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
