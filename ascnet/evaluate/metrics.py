"""Scores of a classifier: top-k, accuracy of each class, the confusion matrix, and how far chance may carry them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ascnet.errors import UserError


def ranks(scores: ArrayLike, labels: ArrayLike) -> NDArray[np.int64]:
    """How many classes come before the right one, (N,); 0 where it is first.

    Equal scores are settled by class number (the smaller one first), as `argmax` does.

    Args:
        scores: (N, C), larger is likelier.
        labels: (N,) class numbers.

    Raises:
        UserError: If a score is not a number, or a label is no column of `scores`.
    """
    values, wanted = np.asarray(scores, np.float64), np.asarray(labels, np.int64)
    if values.ndim != 2 or len(values) != len(wanted) or not len(values):
        raise UserError(f"scores of shape {values.shape} for {len(wanted)} labels; expected (videos, classes)")
    if np.isnan(values).any():
        raise UserError(f"scores of {int(np.isnan(values).any(axis=1).sum())} videos are not numbers")
    if wanted.min() < 0 or wanted.max() >= values.shape[1]:
        raise UserError(f"labels {wanted.min()}..{wanted.max()}; the scores are of classes 0..{values.shape[1] - 1}")
    own = values[np.arange(len(values)), wanted][:, None]
    earlier = np.arange(values.shape[1])[None, :] < wanted[:, None]
    return ((values > own) | ((values == own) & earlier)).sum(axis=1).astype(np.int64)


def top_k(scores: ArrayLike, labels: ArrayLike, ks: Sequence[int] = (1, 5)) -> dict[int, float]:
    """Share of videos whose class is among the k likeliest, in percent."""
    found = ranks(scores, labels)
    return {k: 100.0 * float((found < k).mean()) for k in ks}


def confusion(predicted: ArrayLike, labels: ArrayLike, classes: int) -> NDArray[np.int64]:
    """Counts (classes, classes): a row for each true class, a column for each predicted one."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (np.asarray(labels, np.int64), np.asarray(predicted, np.int64)), 1)
    return counts


def per_class(counts: ArrayLike) -> list[float | None]:
    """Accuracy of each class in percent, from a confusion matrix; None where a class has no video."""
    table = np.asarray(counts, np.int64)
    totals = table.sum(axis=1)
    return [100.0 * int(right) / int(n) if n else None for right, n in zip(table.diagonal(), totals, strict=True)]


def standard_error(percent: float, count: int) -> float:
    """Of an accuracy in percent over so many independent videos: sqrt(p (1 - p) / n)."""
    share = percent / 100
    return 100 * math.sqrt(share * (1 - share) / count)


def summary(scores: ArrayLike, labels: ArrayLike, classes: Sequence[str]) -> dict[str, Any]:
    """All scores of one test, ready for JSON but for `confusion`, an (C, C) array.

    `top5` is left out where there are no more than five classes: it would be 100.
    """
    values, wanted = np.asarray(scores), np.asarray(labels)
    found = top_k(values, wanted)
    counts = confusion(values.argmax(axis=1), wanted, len(classes))
    by_class = per_class(counts)
    known = [accuracy for accuracy in by_class if accuracy is not None]
    return {
        "top1": found[1],
        **({"top5": found[5]} if len(classes) > 5 else {}),
        "standard_error": standard_error(found[1], len(wanted)),
        "mean_class": sum(known) / len(known),
        "videos": len(wanted),
        "per_class": dict(zip(classes, by_class, strict=True)),
        "confusion": counts,
    }
