"""What can be had without learning: chance, mean colour, motion energy. A learned feature has to beat these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import comb

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from ascnet.errors import UserError
from ascnet.evaluate.features import Features
from ascnet.evaluate.retrieve import KS
from dali_pipes import Corpus, VideoError, read_frames, track

GRID = 32
"""Descriptors are made at GRID x GRID: coarse enough not to ask for the exact place."""


def chance(query_labels: ArrayLike, gallery_labels: ArrayLike, ks: Sequence[int] = KS) -> dict[int, float]:
    """R@k in percent of neighbours drawn at random without replacement, exactly.

    A query whose class has m of the gallery's N videos misses it in k draws with probability C(N - m, k) / C(N, k).
    Queries and gallery are taken as different videos. Labels of -1 are unknown: such queries do not count, such gallery
    videos are never right.

    Raises:
        UserError: If no query has a class.
    """
    queries, gallery = np.asarray(query_labels), np.asarray(gallery_labels)
    queries = queries[queries >= 0]
    if not len(queries):
        raise UserError("no query video has a label, so recall cannot be measured; the corpus needs labels")
    total = len(gallery)
    classes, counts = np.unique(queries, return_counts=True)
    scores = {}
    for k in ks:
        draws = min(k, total)
        hit = [1 - comb(total - int((gallery == c).sum()), draws) / comb(total, draws) for c in classes]
        scores[k] = 100.0 * float(np.average(hit, weights=counts))
    return scores


def colour(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The mean frame, ``(N, H, W, 3)`` -> ``(GRID * GRID * 3,)``: what a video looks like when nothing moves."""
    return _shrink(frames).mean(axis=0).ravel().astype(np.float32)


def motion(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Motion energy, ``(N, H, W, 3)`` -> ``(GRID * GRID,)``: mean absolute change of grey value between frames.

    One frame shows no motion: zeros.
    """
    grey = _shrink(frames).mean(axis=3)
    if len(grey) < 2:
        return np.zeros(GRID * GRID, np.float32)
    return np.abs(np.diff(grey, axis=0)).mean(axis=0).ravel().astype(np.float32)


DESCRIPTORS: dict[str, Callable[[NDArray[np.uint8]], NDArray[np.float32]]] = {"colour": colour, "motion": motion}
"""Descriptor by name; each takes the upright RGB frames of one video in order."""


def describe(corpus: Corpus, rows: Sequence[int], *, frames: int = 100, progress: bool = True) -> dict[str, Features]:
    """All descriptors of each video, from one read of it.

    Args:
        corpus: The videos.
        rows: Row numbers.
        frames: At most so many consecutive frames, from the middle of the video, are read.
        progress: Whether to show progress.

    Returns:
        Features by descriptor name; videos that cannot be decoded are left out and listed in `failed`.
    """
    vectors: dict[str, list[NDArray[np.float32]]] = {name: [] for name in DESCRIPTORS}
    kept: list[int] = []
    failed: dict[int, str] = {}
    for row in track([int(r) for r in rows], "describe", enabled=progress):
        total = int(corpus.frames[row])
        first = max(0, (total - frames) // 2)
        try:
            pictures = read_frames(corpus, row, range(first, min(total, first + frames)), short_side=2 * GRID)
        except VideoError as error:
            failed[row] = error.reason
            continue
        kept.append(row)
        for name, descriptor in DESCRIPTORS.items():
            vectors[name].append(descriptor(pictures))
    if not kept:
        reason = next(iter(failed.values()), "none was given")
        raise UserError(f"none of the {len(failed)} videos could be decoded; the first: {reason}")
    numbers = np.array(kept, np.int64)
    return {name: Features(numbers, np.stack(found), failed) for name, found in vectors.items()}


def _shrink(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(N, H, W, 3) uint8 -> (N, GRID, GRID, 3) in 0..1, by area."""
    small = [np.asarray(Image.fromarray(frame).resize((GRID, GRID), Image.Resampling.BOX)) for frame in frames]
    return np.stack(small).astype(np.float32) / np.float32(255)
