"""What a corpus holds, and what of it was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape

import numpy as np

from ascnet.report.charts import bars, histogram
from ascnet.report.gallery import video_name
from ascnet.report.source import Source
from dali_pipes import Corpus

SHOWN = 50
"""Left-out videos named; the others are counted."""


def html(source: Source, corpus: Corpus) -> str:
    """The section's content."""
    usable = corpus.usable
    hours = float(corpus.duration[usable].sum()) / 3600
    told = [
        ("videos", f"{len(corpus)}, of which {int(usable.sum())} usable"),
        ("length", f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.1f} minutes"),
        ("frames", f"{int(corpus.frames[usable].sum())}"),
        ("classes", str(len(corpus.classes)) if corpus.classes else "none"),
        ("splits", _counts(corpus.column("split")[usable].tolist())),
        ("codecs", _counts(corpus.column("codec")[usable].tolist())),
        ("pictures", _counts(f"{w} x {h}" for w, h in zip(corpus.width[usable], corpus.height[usable], strict=True))),
        ("frame rates", _counts(f"{rate:.5g}/s" for rate in corpus.rate[usable])),
        ("variable rate", f"{int((~corpus.constant[usable]).sum())} videos"),
        ("fingerprint", corpus.fingerprint),
    ]
    if corpus.listing is not None:
        told.append(("official lists", corpus.listing.summary()))
    facts = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in told)
    labels = Counter(corpus.column("label")[usable].tolist())
    charts = [
        bars("Videos of each class", [(name or "class unknown", count) for name, count in sorted(labels.items())]),
        histogram("Length", corpus.duration[usable], "seconds"),
        histogram("Frames", corpus.frames[usable].astype(np.float64), "frames"),
        histogram("Frame rate", corpus.rate[usable], "frames/s"),
    ]
    return f'<dl class="facts">{facts}</dl><div class="charts">{"".join(charts)}</div>{_left_out(source, corpus)}'


def _left_out(source: Source, corpus: Corpus) -> str:
    errors = corpus.column("error")
    gone = [(video_name(corpus, int(row)), errors[row] or "no frames") for row in np.flatnonzero(~corpus.usable)]
    gone += [(f"{name} (in no folder)", "named by the official list") for name in _missing(corpus)]
    for what, content in (("retrieval", source.retrieval), ("recognition", source.recognition)):
        left = (content or {}).get("left_out") or {}
        gone += [(str(uri).rpartition("/")[2], f"{what}: {why}") for uri, why in left.items()]
    if not gone:
        return "<h3>Videos left out</h3><p>None.</p>"
    lines = "".join(f"<tr><td>{escape(name)}</td><td>{escape(str(why))}</td></tr>" for name, why in gone[:SHOWN])
    more = f"<p>and {len(gone) - SHOWN} more.</p>" if len(gone) > SHOWN else ""
    return (
        f'<h3>Videos left out: {len(gone)}</h3><div class="scroll" tabindex="0" role="region" aria-label="videos left '
        f'out"><table><thead><tr><th>video</th><th>why</th></tr></thead><tbody>{lines}</tbody></table></div>{more}'
    )


def _missing(corpus: Corpus) -> Sequence[str]:
    return () if corpus.listing is None else corpus.listing.missing_names


def _counts(values: object) -> str:
    found = Counter(values).most_common()  # type: ignore[call-overload]
    shown = ", ".join(f"{name or '(none)'} {count}" for name, count in found[:6])
    return f"{shown} and {len(found) - 6} more" if len(found) > 6 else shown or "none"
