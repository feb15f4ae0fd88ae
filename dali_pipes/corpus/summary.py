"""What a corpus holds, in a few lines of text."""

from __future__ import annotations

from collections import Counter

import numpy as np

from dali_pipes.corpus.manifest import Corpus

_NAMES = 3


def summary(corpus: Corpus) -> list[str]:
    """Describe a corpus: videos, hours, codecs, classes, splits, and errors by reason with the first few names.

    Args:
        corpus: Any corpus.

    Returns:
        Lines of text.
    """
    usable = corpus.usable
    hours = float(corpus.duration[usable].sum()) / 3600
    lines = [
        f"videos   {len(corpus)}, of which {int(usable.sum())} usable: "
        f"{_duration(hours)}, {int(corpus.frames[usable].sum())} frames"
    ]
    if usable.any():
        lines.append(f"codecs   {_counts(corpus.column('codec')[usable])}")
        lines.append(f"sizes    {_sizes(corpus)}")
        varying = int((~corpus.constant[usable]).sum())
        counted = int((corpus.column("numbering")[usable] == "count").sum())
        if varying or counted:
            lines.append(f"timing   {varying} of variable frame rate, {counted} without usable time stamps")
        if corpus.classes:
            lines.append(f"labels   {len(corpus.classes)} classes: {_some(corpus.classes)}")
        if corpus.splits:
            lines.append(f"splits   {_counts(corpus.column('split')[usable])}")
        groups = len({name for name in corpus.column("group").tolist() if name})
        if groups:
            lines.append(f"groups   {groups}")
    if corpus.listing is not None:
        lines.append(f"lists    {corpus.listing.summary()}")
    errors = corpus.column("error")
    names: dict[str, list[str]] = {}
    for row in np.flatnonzero(~usable):
        names.setdefault(errors[row] or "no frames", []).append(corpus.column("uri")[row].rpartition("/")[2])
    if names:
        lines.append(f"errors   {int((~usable).sum())} videos that will never be sampled:")
        for reason, files in sorted(names.items(), key=lambda pair: (-len(pair[1]), pair[0])):
            lines.append(f"  {len(files):6d}  {reason}: {_some(files)}")
    return lines


def _duration(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 1 else f"{hours * 60:.1f} minutes"


def _counts(values: np.ndarray) -> str:
    return ", ".join(f"{name or '(none)'} {count}" for name, count in Counter(values.tolist()).most_common())


def _sizes(corpus: Corpus) -> str:
    width, height = corpus.width[corpus.usable], corpus.height[corpus.usable]
    small, large = np.argmin(width * height), np.argmax(width * height)
    if width[small] * height[small] == width[large] * height[large]:
        return f"{width[small]} x {height[small]}"
    return f"{width[small]} x {height[small]} to {width[large]} x {height[large]}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:_NAMES]) + (f" and {len(names) - _NAMES} more" if len(names) > _NAMES else "")
