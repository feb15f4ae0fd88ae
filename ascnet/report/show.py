"""Puts the page of a run together."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ascnet.errors import UserError
from ascnet.evaluate.provenance import command_line, commit
from ascnet.files import written_whole
from ascnet.report import cam, curves, embedding, gallery, scores, statistics
from ascnet.report.charts import confusion_chart
from ascnet.report.described import Described, describe
from ascnet.report.page import Page, Section
from ascnet.report.results import encoder_name, files_of, find
from ascnet.report.rows import tables
from ascnet.report.source import Source, open_run
from dali_pipes import Corpus


@dataclass(frozen=True)
class Options:
    """What of a run is shown.

    Attributes:
        corpus: Corpus file; None: the one that the run names.
        recognition: Folder with a classifier; None: the run itself, or one inside it, where there is such.
        queries: Queries in the gallery.
        neighbours: Of each query.
        maps: Clips with a class activation map.
        points: Videos in the flat map.
        videos: Queries, and gallery videos, that are compared.
        clips: Clips a video that its feature is the mean of; None: as in the run's retrieval, else 10.
        most: Bytes of the file.
        device: Where to compute.
        seed: Of the flat map.
        progress: Whether to show progress.
    """

    corpus: str | None = None
    recognition: str | None = None
    queries: int = 8
    neighbours: int = 7
    maps: int = 6
    points: int = 1000
    videos: int = 2000
    clips: int | None = None
    most: int = 8_000_000
    device: str = "cpu"
    seed: int = 0
    progress: bool = True

    def __post_init__(self) -> None:
        for name in ("queries", "neighbours", "maps", "points", "videos", "clips", "most"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name}={value} must be at least 1")


def write_page(folder: str | Path, out: str | Path, options: Options | None = None) -> Path:
    """Writes the page of a run.

    Args:
        folder: The run.
        out: The file; it appears whole or not at all.
        options: What is shown.

    Returns:
        The path written.

    Raises:
        UserError: If the folder is no run, or the page is too large.
    """
    options = options or Options()
    target = Path(out)
    if target.is_dir():
        raise UserError(f"--html {target} is a folder; give the name of a file, such as {target / 'report.html'}")
    source = open_run(folder, options.corpus, options.recognition)
    text = page_of(source, options).html(options.most)
    with written_whole(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return target


def page_of(source: Source, options: Options) -> Page:
    """The page of a run, with those sections that it has something for."""
    sections: list[Section] = []
    tiles: list[tuple[str, str]] = []
    _scores(source, sections, tiles)
    content = curves.html(source)
    if content:
        _add(
            sections,
            "curves",
            "Curves",
            "Faint: each step. Strong: a running mean, whose last value is named.",
            content,
        )
        tiles.append(("steps", str(source.steps[-1]["step"])))
    described = None
    if source.corpus is not None and source.encoder is not None:
        described = _described(source, source.corpus, options)
    if described is not None:
        assert source.corpus is not None
        _pictures(source, source.corpus, described, options, sections)
    if source.confusion is not None:
        classes, counts = source.confusion
        text = (
            f"Of {source.recognition_folder}. {int(counts.sum())} test videos; rows are true classes, columns "
            "what they were taken for; the shade is the share of the row. Point at a field for its numbers."
        )
        _add(sections, "confusion", "Confusion matrix", text, confusion_chart(classes, counts))
    if source.corpus is not None:
        tiles.append(("videos", str(len(source.corpus))))
        text = f"The videos of {source.corpus.path}." if source.corpus.path else "The videos."
        _add(sections, "data", "Data", text, statistics.html(source, source.corpus))
    if not sections:
        raise UserError(f"{source.folder}: nothing to show: no steps, no checkpoint, no scores and no corpus")
    about = ", ".join(part for part in (encoder_name(source.config), source.weights, f"folder {source.folder}") if part)
    footer = (
        f"Made by {command_line()}; commit {commit() or 'not known'}. The file needs no network and fetches nothing."
    )
    return Page(source.name, source.kind, about, tiles, sections, source.notes, footer)


def _add(sections: list[Section], key: str, title: str, text: str, content: str) -> None:
    sections.append(Section(key, title, text, lambda level: content))


_TOLD = {"recognition": "fine-tuned", "finetune": "fine-tuned", "linear": "linear", "retrieval": "retrieval"}


def _scores(source: Source, sections: list[Section], tiles: list[tuple[str, str]]) -> None:
    paths = [*files_of(source.folder), *filter(None, [source.retrieval_file, source.recognition_folder])]
    if not paths:
        return  # a run need not have been scored
    try:
        found = tables(find(paths))
    except UserError as error:
        source.notes.append(f"{error}, so the scores are not shown.")
        return
    own = [table for table in found if any(not row.published for row in table.rows)]
    for table in own:
        first = next((row for row in reversed(table.rows) if not row.published and row.cells), None)
        if first is not None:
            column = next(name for name in table.columns if name in first.cells)
            tiles.append((f"{column}, {_TOLD[table.key.partition('-')[0]]}", f"{first.cells[column].mean:.1f} %"))
    _add(sections, "scores", "Scores", "In percent, each with the protocol it was measured by.", scores.html(own))


def _described(source: Source, corpus: Corpus, options: Options) -> Described | None:
    try:
        return describe(
            source,
            corpus,
            videos=options.videos,
            neighbours_of_each=options.neighbours,
            clips=options.clips,
            device=torch.device(options.device),
        )
    except (ValueError, OSError) as error:
        # Videos that have moved away must not keep anybody from the curves.
        line = " ".join(str(error).split())
        source.notes.append(f"The videos cannot be described, so there are no clips and no map: {line}")
        print(f"ascnet: warning: {line}", file=sys.stderr)
        return None


def _pictures(source: Source, corpus: Corpus, described: Described, options: Options, sections: list[Section]) -> None:
    assert source.encoder is not None
    shown = gallery.build(
        corpus, described, queries=options.queries, neighbours=options.neighbours, progress=options.progress
    )
    judged = f" {shown.right} of {shown.judged} nearest neighbours share the query's class." if shown.judged else ""
    sections.append(
        Section(
            "retrieval",
            "Nearest neighbours",
            f"Left the query, then its nearest videos by cosine similarity, with a whole frame where the class is the "
            f"same and a dashed one where it is not. Queries are evenly spaced over the classes, not chosen."
            f"{judged} {described.note}.",
            shown.html,
        )
    )
    maps = cam.build(
        corpus,
        described.queries,
        source.encoder,
        source.seen or described.protocol,
        classifier=source.classifier,
        classes=source.classes,
        count=options.maps,
        device=torch.device(options.device),
        progress=options.progress,
    )
    if maps.shown:
        text = (
            "How much each place adds to the class that the classifier finds likeliest (Zhou et al., CVPR 2016); "
            "negative parts are not shown. Each clip has a scale of its own, and is judged alone."
            + f" The classifier is that of {source.recognition_folder}."
            if maps.by_classifier
            else "Root mean square over the channels of the last feature map: where the encoder responds at all. This "
            "is no class activation map, since there is no classifier. Each clip has a scale of its own."
        )
        sections.append(Section("maps", maps.title, text, maps.html))
    flat = embedding.build(corpus, described, points=options.points, seed=options.seed, progress=options.progress)
    text = (
        f"{len(flat.rows)} of {len(np.asarray(described.features.rows))} videos by {flat.method}; videos with like "
        "features lie side by side, distances between groups mean little. Point at one, or use the arrow keys, to see "
        "it. Outlined: queries. Buttons pick out classes."
    )
    sections.append(Section("map", "Map of the features", text, flat.html))
