"""From a folder of videos, or another root, to a corpus: find them, probe what is new or changed, place each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dali_pipes.corpus.engine import Lost, run_all
from dali_pipes.corpus.files import PATTERNS
from dali_pipes.corpus.journal import Journal
from dali_pipes.corpus.manifest import SCHEMA, VERSION, Corpus
from dali_pipes.corpus.probe import MAX_FRAMES, MAX_SIDE, Probed, probe_row
from dali_pipes.corpus.quarantine import PREFIX, Quarantined
from dali_pipes.corpus.sources import Source, find_sources
from dali_pipes.corpus.storage import Stat, StorageOptions, configure_storage, stat_source, storage_options
from dali_pipes.errors import DataError, VideoError
from dali_pipes.progress import Progress


def build(
    root: str | os.PathLike[str],
    layout: str = "folders",
    *,
    splits: str | os.PathLike[str] | None = None,
    fold: int = 1,
    output: str | os.PathLike[str] | None = None,
    patterns: Sequence[str] = PATTERNS,
    workers: int | None = None,
    timeout: float = 60.0,
    engine: str = "local",
    address: str | None = None,
    thorough: bool = False,
    again: bool = False,
    progress: bool = True,
    warnings: list[str] | None = None,
    quarantine: str | os.PathLike[str] | None = None,
    max_side: int = MAX_SIDE,
    max_frames: int = MAX_FRAMES,
) -> Corpus:
    """Index videos.

    Args:
        root: Folder, whose subfolders are searched too, hidden files and folders not; address of a remote one; tar
            shard; folder of tar shards; or list of addresses (docs/corpus.md).
        layout: How label and split are said: a name of `dali_pipes.corpus.layouts.NAMES`.
        splits: Official split lists, for layouts that have such: the folder that holds them, or a CSV file.
        fold: Which of several official splits.
        output: Corpus file to write. What it already says about unchanged files (same size and modification time) is
            taken over; an interrupted run goes on where it stopped.
        patterns: File names to take, as shell patterns; capitals do not matter.
        workers: Processes; None for one per core.
        timeout: Seconds for one file, after which it gets an error.
        engine: `local` for processes of this machine, `ray` for those of a Ray cluster, whose machines must all find
            the files under the same paths.
        address: Of the Ray cluster; see `dali_pipes.corpus.engine.run_all`.
        thorough: Decode every frame of every video, even where packets suffice; files are probed again.
        again: Probe files again that have not changed.
        progress: Whether to report progress on standard error.
        warnings: A list to which lines about what does not fit together are added.
        quarantine: File of videos that a run could not decode; those that have not changed since get an error.
        max_side: Largest width or height accepted, pixels.
        max_frames: Largest number of frames or packets accepted.

    Returns:
        The corpus, sorted by path; also written to `output`.

    Raises:
        DataError: There is no such root, no video in it, the server does not answer, or `output` is something else
            than a corpus or cannot be written.
    """
    target = None if output is None else Path(output)
    lists = None if splits is None else Path(splits)
    found = find_sources(root, layout, patterns, splits=lists, fold=fold, progress=progress)
    if warnings is not None:
        warnings += found.warnings

    sources = found.sources
    uris = [source.uri for source in sources]
    earlier = None if target is None else _earlier(target)
    journal = None if target is None else Journal(target, {"version": VERSION, "thorough": thorough})
    with closing(journal) if journal is not None else nullcontext():
        kept = _unchanged(earlier, sources) if earlier is not None and not (thorough or again) else {}
        rows = _resumed(journal, sources) if journal is not None else {}
        if quarantine is not None:
            listed = Quarantined(quarantine)
            if warnings is not None:
                warnings += listed.warnings
            for i, source in enumerate(sources):
                row = listed.row(source.uri, _state(source) if source.uri in listed else None)
                if row is not None:
                    rows[i] = row
                    kept.pop(i, None)
        todo = [i for i in range(len(uris)) if i not in kept and i not in rows]
        options = {"thorough": thorough, "storage": storage_options(), "max_side": max_side, "max_frames": max_frames}
        with (
            Progress("probe", len(todo), enabled=progress) as bar,
            closing(
                run_all(
                    _probe,
                    [sources[i] for i in todo],
                    options=options,
                    workers=workers,
                    timeout=timeout,
                    engine=engine,
                    address=address,
                )
            ) as results,
        ):
            for done, result in results:
                i = todo[done]
                row = _lost_row(uris[i], result.reason) if isinstance(result, Lost) else result
                # A file that took its process down gets another chance the next time: perhaps with more time.
                if journal is not None and not isinstance(result, Lost):
                    journal.add(row)
                rows[i] = row
                bar.advance()
        corpus = _assemble(uris, kept, rows, earlier)
        corpus = _with_columns(
            corpus,
            label=[p.label for p in found.places],
            split=[p.split for p in found.places],
            group=[p.group for p in found.places],
        ).with_listing(found.listing)
        if target is not None and journal is not None:
            try:
                corpus.save(target)
            except OSError as error:
                raise DataError(f"{target}: cannot be written: {error.strerror or error}") from error
            corpus.path = target
            journal.remove()
    return corpus


def _probe(source: Source, *, storage: StorageOptions, **options: Any) -> dict[str, Any]:
    configure_storage(storage)
    # Whatever FFmpeg has to say about a broken file is in the row, once.
    av.logging.set_level(None)
    return probe_row(source.uri, known=source.known, **options)


def _lost_row(uri: str, reason: str) -> dict[str, Any]:
    # No size and time: such a row never passes for that of an unchanged file.
    return vars(Probed(uri, error=reason))


def _earlier(target: Path) -> Corpus | None:
    """The corpus at the place to be written to, where there is one in this format."""
    if not target.exists():
        if not target.parent.is_dir():
            raise DataError(f"{target}: there is no folder {target.parent}")
        return None
    try:
        return Corpus.open(target)
    except DataError as error:
        if "corpus format" in str(error):  # of another version: to be made anew
            return None
        message = f"{target}: would be overwritten, and is no corpus; remove it or choose another name"
        raise DataError(message) from error


def _state(source: Source) -> Stat | None:
    try:
        return source.known or stat_source(source.uri)
    except VideoError:
        return None


def _unchanged(earlier: Corpus, sources: Sequence[Source]) -> dict[int, int]:
    """Rows of an earlier corpus that still hold: place in `sources` -> row there."""
    known = {uri: row for row, uri in enumerate(earlier.column("uri").tolist())}
    sizes, times, offsets = (earlier.column(name) for name in ("bytes", "mtime_ns", "offset"))
    # Whether a video is still quarantined is decided anew each time.
    freed = pc.starts_with(earlier.table.column("error"), PREFIX).to_numpy()
    kept = {}
    for i, source in enumerate(sources):
        row = known.get(source.uri)
        if row is not None and not freed[row] and Stat(sizes[row], times[row], offsets[row]) == _state(source):
            kept[i] = row
    return kept


def _resumed(journal: Journal, sources: Sequence[Source]) -> dict[int, dict[str, Any]]:
    rows = {}
    for i, source in enumerate(sources):
        row = journal.rows.get(source.uri)
        if row is not None and Stat(row["bytes"], row["mtime_ns"], row.get("offset", -1)) == _state(source):
            rows[i] = row
    return rows


def _assemble(
    uris: Sequence[str], kept: dict[int, int], rows: dict[int, dict[str, Any]], earlier: Corpus | None
) -> Corpus:
    """Rows taken over and rows probed, in the order of `uris`."""
    rows = {i: row for i, row in rows.items() if i not in kept}
    blank = {"label": "", "split": "", "group": "", "offset": -1}
    tables = [pa.Table.from_pylist([blank | row for row in rows.values()], schema=SCHEMA)]
    if earlier is not None and kept:
        tables.append(earlier.table.take(pa.array(list(kept.values()), pa.int64())))
    order = np.argsort(np.array([*rows, *kept], np.int64))
    return Corpus(pa.concat_tables(tables).take(pa.array(order)))


def _with_columns(corpus: Corpus, **columns: list[str]) -> Corpus:
    table = corpus.table
    for name, values in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values, pa.string()))
    return Corpus(table, corpus.path)
