"""A flat map of the features: videos with like features lie side by side."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ascnet.report.described import Described, by_class, evenly
from ascnet.report.gallery import label_of, video_name
from ascnet.report.moving import Level, Moving, of_video
from dali_pipes import Corpus, track

EDGE, MARGIN = 480, 14
SHAPES = (
    "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0",
    "M-3.6,-3.6h7.2v7.2h-7.2z",
    "M0,-4.8L4.4,3.4H-4.4z",
    "M0,-5L5,0L0,5L-5,0z",
)
"""Circle, square, triangle and diamond: classes differ by more than their colour."""
STILL = 72


@dataclass(frozen=True)
class Map:
    """Places of videos, from 0 to 1, and their thumbnails by row number."""

    corpus: Corpus
    rows: NDArray[np.int64]
    places: NDArray[np.float64]
    method: str
    thumbs: Mapping[int, Moving | None]
    queries: frozenset[int]

    def html(self, level: Level) -> str:
        """The section's content; hovering and keys are the page's script's."""
        names = sorted({label_of(self.corpus, int(row)) for row in self.rows})
        number = {name: at for at, name in enumerate(names)}
        points = []
        for row, (x, y) in zip(self.rows.tolist(), self.places, strict=True):
            label = label_of(self.corpus, row)
            at = number[label]
            left, down = (MARGIN + value * (EDGE - 2 * MARGIN) for value in (x, y))
            thumb = self.thumbs.get(row)
            address = thumb.thumb(level) if thumb is not None else ""
            still = f' data-thumb="{address}"' if address else ""
            points.append(
                f'<path class="point{" query" if row in self.queries else ""}" d="{SHAPES[at % 4]}" data-class="{at}" '
                f'transform="translate({left:.1f} {down:.1f})" style="--hue:{_hue(at, len(names))}" '
                f'data-name="{escape(video_name(self.corpus, row))}" data-label="{escape(label)}" '
                f'data-split="{escape(self.corpus[row].split)}"{still}/>'
            )
        keys = "".join(
            f'<li><button type="button" data-class="{at}" aria-pressed="false" style="--hue:{_hue(at, len(names))}">'
            f'<svg viewBox="-6 -6 12 12" aria-hidden="true"><path class="point" d="{SHAPES[at % 4]}"/></svg>'
            f"{escape(name)}</button></li>"
            for name, at in number.items()
        )
        return (
            f'<div class="map"><div class="plane" id="plane"><svg viewBox="0 0 {EDGE} {EDGE}" tabindex="0" '
            f'role="application" aria-label="Map of {len(self.rows)} videos of {len(names)} classes; arrow keys go '
            f'from video to video" aria-describedby="tip">{"".join(points)}</svg>'
            '<div id="tip" class="tip" role="status" aria-live="polite" hidden></div></div>'
            f'<ul class="keys" aria-label="Classes">{keys}</ul></div>'
        )


def build(corpus: Corpus, described: Described, *, points: int, seed: int = 0, progress: bool = True) -> Map:
    """The map of at most so many videos, evenly spaced over the classes."""
    rows = np.sort(evenly(by_class(corpus, described.features.rows), points))
    kept = described.features.of(rows)
    places, method = project(kept.vectors, seed)
    thumbs = {
        int(row): of_video(corpus, int(row), frames=1, edge=STILL)
        for row in track(kept.rows.tolist(), "thumbnails", enabled=progress)
    }
    return Map(corpus, kept.rows, places, method, thumbs, frozenset(described.queries.tolist()))


def project(vectors: NDArray[np.float32], seed: int = 0) -> tuple[NDArray[np.float64], str]:
    """Places (N, 2) from 0 to 1 of feature vectors (N, D), scaled to length 1, and how they were found.

    t-SNE by scikit-learn; the two main components where it is not installed or there are fewer than ten videos.
    """
    wide = vectors.astype(np.float64)
    wide /= np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
    try:
        manifold: Any = importlib.import_module("sklearn.manifold")
    except ImportError:
        manifold = None
    if manifold is None or len(wide) < 10:
        reason = "with scikit-learn, pip install dali-pipes[report], it would be t-SNE" if manifold is None else ""
        centred = wide - wide.mean(axis=0)
        axes = np.linalg.svd(centred, full_matrices=False)[2][:2]
        # A vector may have a single number, and there may be a single video.
        flat = np.zeros((len(wide), 2))
        flat[:, : len(axes)] = centred @ axes.T
        method = "principal components" + (f" ({reason})" if reason else "")
    else:
        perplexity = min(30, max(2, len(wide) // 6))
        flat = manifold.TSNE(
            n_components=2, perplexity=perplexity, init="pca", learning_rate="auto", random_state=seed, n_jobs=1
        ).fit_transform(wide)
        flat, method = np.asarray(flat, np.float64), f"t-SNE, perplexity {perplexity}, seed {seed}"
    low, spread = flat.min(axis=0), np.ptp(flat, axis=0)
    return (flat - low) / np.where(spread > 0, spread, 1.0), method


def _hue(at: int, count: int) -> int:
    """Hues evenly spaced for few classes, by the golden angle for many."""
    return round(360 * at / count) % 360 if count <= 12 else round(137.508 * at) % 360
