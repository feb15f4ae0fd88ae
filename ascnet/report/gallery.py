"""Queries and their nearest neighbours as looping clips, right and wrong marked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import PurePosixPath

import numpy as np

from ascnet.report.described import Described, by_class, evenly
from ascnet.report.moving import Level, Moving, of_video
from dali_pipes import Corpus, track


@dataclass(frozen=True)
class Found:
    """One neighbour of a query; `right` is None where a class is unknown."""

    row: int
    score: float
    right: bool | None


@dataclass(frozen=True)
class Gallery:
    """Queries with their neighbours, and the clips of all of them by row number (None: cannot be decoded)."""

    corpus: Corpus
    lines: list[tuple[int, list[Found]]]
    clips: Mapping[int, Moving | None]
    right: int
    judged: int

    def html(self, level: Level) -> str:
        """The section's content."""
        lines = []
        for query, found in self.lines:
            cards = "".join(self._card(one, place, level) for place, one in enumerate(found, start=1))
            lines.append(
                f'<li class="line"><div class="query">{self._clip(query, level, "query")}</div>'
                f'<ol class="found">{cards}</ol></li>'
            )
        return f'<ul class="gallery">{"".join(lines)}</ul>'

    def _card(self, one: Found, place: int, level: Level) -> str:
        kind, mark = {True: ("right", "✓ right"), False: ("wrong", "✗ wrong"), None: ("unknown", "class unknown")}[
            one.right
        ]
        return f'<li class="{kind}">{self._clip(one.row, level, f"{mark} · {one.score:.3f}", place)}</li>'

    def _clip(self, row: int, level: Level, text: str, place: int | None = None) -> str:
        name, label = video_name(self.corpus, row), label_of(self.corpus, row)
        what = "Query" if place is None else f"Neighbour {place}"
        return (
            f"<figure>{picture(self.clips.get(row), level, f'{what}: {name}, {label}')}"
            f'<figcaption><b title="{escape(name)}">{escape(label)}</b><span>{escape(text)}</span></figcaption>'
            "</figure>"
        )


def build(corpus: Corpus, described: Described, *, queries: int, neighbours: int, progress: bool = True) -> Gallery:
    """Queries evenly spaced over the classes, and the clips that the page shows.

    Args:
        corpus: The videos.
        described: Their features.
        queries: At most so many.
        neighbours: Of each.
        progress: Whether to show progress.
    """
    place = {int(row): at for at, row in enumerate(described.queries)}
    right = described.found.right(corpus.labels[described.queries], corpus.labels[described.gallery])
    lines = []
    for row in evenly(by_class(corpus, described.queries), queries):
        at, found = place[int(row)], []
        for column in range(min(neighbours, described.found.places.shape[1])):
            where = int(described.found.places[at, column])
            if where < 0:
                continue
            other = int(described.gallery[where])
            known = corpus.labels[row] >= 0 and corpus.labels[other] >= 0
            score = float(described.found.scores[at, column])
            found.append(Found(other, score, bool(right[at, column]) if known else None))
        lines.append((int(row), found))
    wanted = sorted({row for query, found in lines for row in (query, *(one.row for one in found))})
    clips = {row: of_video(corpus, row) for row in track(wanted, "clips of the gallery", enabled=progress)}
    judged = corpus.labels[described.queries] >= 0
    return Gallery(corpus, lines, clips, int(np.sum(right[judged, 0])) if len(right) else 0, int(judged.sum()))


def picture(clip: Moving | None, level: Level, text: str) -> str:
    """A looping clip, or words in its place."""
    if clip is None:
        return (
            f'<div class="lost" style="--edge:{level.edge}px" role="img" aria-label="{escape(text)}">not decoded</div>'
        )
    edge = level.edge
    return f'<img class="clip" src="{clip.address(level)}" width="{edge}" height="{edge}" alt="{escape(text)}">'


def video_name(corpus: Corpus, row: int) -> str:
    """Base name of a video's file."""
    return PurePosixPath(corpus[row].uri.removeprefix("tar://").partition("::")[0]).name


def label_of(corpus: Corpus, row: int) -> str:
    """Name of a video's class."""
    label = int(corpus.labels[row])
    return corpus.classes[label] if label >= 0 else "class unknown"
