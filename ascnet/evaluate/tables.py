"""Scores as a table for people and as JSON for programs, with published figures beside one's own where they compare."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ascnet.files import written_whole

Recalls = Mapping[int, float]

PUBLISHED: tuple[tuple[str, dict[int, float]], ...] = (
    ("OPN, CaffeNet", {1: 19.9, 10: 34.0, 50: 51.6}),
    ("Buchler et al., CaffeNet", {1: 25.7, 10: 42.2, 50: 59.5}),
    ("ClipOrder, 3D R18", {1: 14.1, 10: 40.0, 50: 66.5}),
    ("SpeedNet, S3D-G", {1: 13.0, 10: 37.5, 50: 65.0}),
    ("VCP, 3D R18", {1: 18.6, 10: 42.5, 50: 68.1}),
    ("VCP, R(2+1)D", {1: 19.9, 10: 42.0, 50: 64.4}),
    ("Pace, 3D R18", {1: 23.8, 10: 46.4, 50: 69.8}),
    ("Pace, C3D", {1: 31.9, 10: 59.2, 50: 80.2}),
    ("RSPNet, C3D", {1: 36.0, 5: 56.7, 10: 66.5, 20: 76.3, 50: 87.7}),
    ("RSPNet, 3D R18", {1: 41.1, 5: 59.4, 10: 68.4, 20: 77.8, 50: 88.7}),
    ("ASCNet, 3D R18", {1: 58.9, 10: 82.2, 50: 93.4}),
)
"""Nearest-neighbour retrieval on UCF-101, percent (ASCNet paper's table; k = 5 and 20 from RSPNet's release)."""


def recall_table(
    scores: Mapping[str, Recalls],
    *,
    title: str,
    queries: int,
    gallery: int,
    caption: str = "",
    published: bool = False,
) -> Group:
    """One row of R@k per name.

    Args:
        scores: R@k in percent, by name, in the order to show.
        title: What was scored.
        queries: Number of queries; the caption says what one of them weighs.
        gallery: Size of the gallery; a k that reaches it is marked.
        caption: The protocol.
        published: Whether UCF-101's published rows stand below.
    """
    ks = sorted({k for recalls in scores.values() for k in recalls})
    table = Table(title=title, title_justify="left")
    table.add_column("features", no_wrap=True)
    for k in ks:
        table.add_column(f"R@{k}{'*' if k >= gallery else ''}", justify="right")
    for name, recalls in scores.items():
        table.add_row(name, *_cells(recalls, ks))
    if published:
        table.add_section()
        for name, recalls in PUBLISHED:
            table.add_row(f"{name} (UCF-101, published)", *_cells(recalls, ks), style="dim")
    # Not the table's own caption, which would be wrapped to the width of a narrow table.
    return Group(table, Text(_caption(ks, queries, gallery, caption)))


def write_json(path: str | os.PathLike[str], content: Mapping[str, Any]) -> Path:
    """Write JSON under a temporary name and rename it, so that no half-written file is ever found."""
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return Path(path)


def _cells(recalls: Recalls, ks: Sequence[int]) -> list[str]:
    return [f"{recalls[k]:.1f}" if k in recalls else "-" for k in ks]


def _caption(ks: Sequence[int], queries: int, gallery: int, caption: str) -> str:
    lines = [f"{queries} queries (one is {100 / queries:.2g} points), {gallery} in the gallery"]
    if ks and ks[-1] >= gallery:
        lines[0] += "; * the whole gallery"
    return "\n".join([*lines, caption] if caption else lines)
