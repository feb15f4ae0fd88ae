"""Nearest-neighbour retrieval: which gallery videos are most like a query, and how often one shares its class.

The measure is that of the video self-supervision literature: R@k is the share of queries with at least one video of
their own class among the k nearest gallery videos (UCF-101: test videos are queries, training videos the gallery).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ascnet.errors import UserError

KS = (1, 5, 10, 20, 50)
"""The k that published tables report."""


@dataclass(frozen=True)
class Neighbours:
    """The nearest gallery videos of each query, best first.

    Attributes:
        places: ``(Q, K)`` int64 places in the gallery; -1 where the gallery ran out.
        scores: ``(Q, K)`` float32 cosine similarities; -inf where the gallery ran out.
    """

    places: NDArray[np.int64]
    scores: NDArray[np.float32]

    def right(self, query_labels: ArrayLike, gallery_labels: ArrayLike) -> NDArray[np.bool_]:
        """Which neighbours share their query's class, ``(Q, K)``. A label of -1 is unknown and never right."""
        wanted = np.asarray(query_labels)[:, None]
        found = np.asarray(gallery_labels)[self.places]
        return (found == wanted) & (found >= 0) & (self.places >= 0)


def neighbours(
    query: ArrayLike,
    gallery: ArrayLike,
    k: int,
    *,
    center: bool = False,
    query_videos: ArrayLike | None = None,
    gallery_videos: ArrayLike | None = None,
    budget: int = 1 << 24,
) -> Neighbours:
    """Find the k gallery vectors nearest to each query by cosine similarity.

    Equal scores are settled by place in the gallery (first wins), so the answer does not depend on the machine's sort.

    Args:
        query: ``(Q, D)`` features.
        gallery: ``(N, D)`` features.
        k: Neighbours per query; at most N are found.
        center: Subtract the gallery's mean from queries and gallery first.
        query_videos: ``(Q,)`` which video each query is; a video is never its own neighbour.
        gallery_videos: ``(N,)`` which video each gallery vector is. Both or neither.
        budget: Scores held at a time.

    Raises:
        UserError: If a feature is not a finite number, or shapes do not fit.
    """
    queries, candidates = _matrix("query", query), _matrix("gallery", gallery)
    if queries.shape[1] != candidates.shape[1]:
        raise UserError(f"query features have {queries.shape[1]} numbers and gallery features {candidates.shape[1]}")
    if (query_videos is None) != (gallery_videos is None):
        raise UserError("give query_videos and gallery_videos, or neither")
    if k < 1:
        raise UserError(f"k={k} must be at least 1")
    if center:
        mean = candidates.mean(axis=0)
        queries, candidates = queries - mean, candidates - mean
    queries, candidates = _unit(queries), _unit(candidates)
    k = min(k, len(candidates))
    places = np.empty((len(queries), k), np.int64)
    scores = np.empty((len(queries), k), np.float32)
    rows = max(1, budget // len(candidates))
    for first in range(0, len(queries), rows):
        part = slice(first, first + rows)
        # In double precision and then rounded, equal vectors get equal scores wherever they stand in the matrix.
        similarity = (queries[part] @ candidates.T).astype(np.float32)
        if query_videos is not None:
            own = np.asarray(query_videos)[part, None] == np.asarray(gallery_videos)[None, :]
            similarity[own] = -np.inf
        places[part], scores[part] = _best(similarity, k)
    return Neighbours(places, scores)


def recall_at(
    found: Neighbours, query_labels: ArrayLike, gallery_labels: ArrayLike, ks: Iterable[int] = KS
) -> dict[int, float]:
    """R@k in percent, over the queries whose class is known.

    A k beyond the gallery counts the whole gallery, so that R@50 is defined for a gallery of 30 (and is then the share
    of queries whose class occurs in it at all).

    Args:
        found: From `neighbours`, with at least ``min(max(ks), N)`` of them.
        query_labels: ``(Q,)`` class numbers, -1 unknown.
        gallery_labels: ``(N,)`` class numbers, -1 unknown.
        ks: Which k.

    Raises:
        UserError: If no query has a class, or `found` holds too few neighbours for a k.
    """
    known = np.asarray(query_labels) >= 0
    if not known.any():
        raise UserError("no query video has a label, so recall cannot be measured; the corpus needs labels")
    ks = sorted(set(ks))
    size = len(np.asarray(gallery_labels))
    if min(ks[-1], size) > found.places.shape[1]:
        raise UserError(f"R@{ks[-1]} needs {min(ks[-1], size)} neighbours a query, {found.places.shape[1]} were found")
    right = found.right(query_labels, gallery_labels)[known]
    return {k: 100.0 * float(right[:, :k].any(axis=1).mean()) for k in ks}


def recall(
    query: ArrayLike,
    gallery: ArrayLike,
    query_labels: ArrayLike,
    gallery_labels: ArrayLike,
    ks: Sequence[int] = KS,
    *,
    center: bool = False,
    query_videos: ArrayLike | None = None,
    gallery_videos: ArrayLike | None = None,
) -> dict[int, float]:
    """R@k in percent, from features: `neighbours` followed by `recall_at`; the arguments are theirs."""
    found = neighbours(query, gallery, max(ks), center=center, query_videos=query_videos, gallery_videos=gallery_videos)
    return recall_at(found, query_labels, gallery_labels, ks)


def _matrix(name: str, values: ArrayLike) -> NDArray[np.float64]:
    matrix = np.asarray(values, np.float64)
    if matrix.ndim != 2 or not matrix.size:
        raise UserError(f"{name} features have shape {matrix.shape}; expected (videos, numbers), both above 0")
    broken = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
    if len(broken):
        raise UserError(f"{name} features of {len(broken)} videos are not finite (the first: number {broken[0]})")
    return matrix


def _unit(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    # A vector of zeros (which centring can make) is like nothing: similarity 0 with all.
    length = np.linalg.norm(matrix, axis=1, keepdims=True)
    return matrix / np.where(length > 0, length, 1.0)


def _best(similarity: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Places and scores of the k largest of each row, ties by place; (-1, -inf) for what was excluded."""
    places = np.empty((len(similarity), k), np.int64)
    scores = np.empty((len(similarity), k), np.float32)
    # A full sort of a long row for its few best is most of the time of a large gallery.
    least = np.partition(similarity, -k, axis=1)[:, -k]
    for row, (values, bound) in enumerate(zip(similarity, least, strict=True)):
        at = np.flatnonzero(values >= bound)
        at = at[np.argsort(-values[at], kind="stable")][:k]
        places[row], scores[row] = at, values[at]
    places[np.isneginf(scores)] = -1
    return places, scores
