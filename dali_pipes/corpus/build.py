"""From a folder of videos to a corpus: find the files, probe what is new or changed, place each by the layout."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Sequence
from contextlib import closing, nullcontext
from pathlib import Path, PurePath
from typing import Any

import av
import numpy as np
import pyarrow as pa

from dali_pipes.corpus.engine import Lost, run_all
from dali_pipes.corpus.journal import Journal
from dali_pipes.corpus.layouts import place
from dali_pipes.corpus.manifest import SCHEMA, VERSION, Corpus
from dali_pipes.corpus.probe import Probed, probe_row
from dali_pipes.errors import DataError
from dali_pipes.progress import Progress

SUFFIXES = (
    "3g2", "3gp", "asf", "avi", "divx", "dv", "f4v", "flv", "gif", "h264", "h265", "hevc", "ivf", "m2ts", "m2v", "m4v",
    "mj2", "mjpeg", "mjpg", "mkv", "mov", "mp4", "mpe", "mpeg", "mpg", "mts", "mxf", "nut", "ogm", "ogv", "qt", "rm",
    "rmvb", "ts", "vob", "webm", "wmv", "y4m",
)  # fmt: skip
PATTERNS = tuple(f"*.{suffix}" for suffix in SUFFIXES)


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
    thorough: bool = False,
    again: bool = False,
    progress: bool = True,
    warnings: list[str] | None = None,
) -> Corpus:
    """Index a folder of videos.

    Args:
        root: The folder; its subfolders are searched too, hidden files and folders are not.
        layout: How paths say label and split: a key of `dali_pipes.corpus.layouts.LAYOUTS`.
        splits: Folder of official split lists, for layouts that have such.
        fold: Which of several official splits.
        output: Corpus file to write. What it already says about unchanged files (same size and modification time) is
            taken over; an interrupted run goes on where it stopped.
        patterns: File names to take, as shell patterns; capitals do not matter.
        workers: Processes; None for one per core.
        timeout: Seconds for one file, after which it gets an error.
        thorough: Decode every frame of every video, even where packets suffice; files are probed again.
        again: Probe files again that have not changed.
        progress: Whether to report progress on standard error.
        warnings: A list to which lines about what does not fit together are added.

    Returns:
        The corpus, sorted by path; also written to `output`.

    Raises:
        DataError: There is no such folder, no video in it, or `output` is something else than a corpus.
    """
    root = Path(os.path.abspath(root))
    target = None if output is None else Path(output)
    files, lines = find_videos(root, patterns)
    if warnings is not None:
        warnings += lines
    lists = None if splits is None else Path(splits)
    found = place([PurePath(name) for name in files], layout, splits=lists, fold=fold)
    if warnings is not None:
        warnings += found.warnings

    uris = [str(root / name) for name in files]
    earlier = None if target is None else _earlier(target)
    journal = None if target is None else Journal(target, {"version": VERSION, "thorough": thorough})
    with closing(journal) if journal is not None else nullcontext():
        kept = _unchanged(earlier, uris) if earlier is not None and not (thorough or again) else {}
        rows = _resumed(journal, uris) if journal is not None else {}
        todo = [i for i in range(len(uris)) if i not in kept and i not in rows]
        options = {"thorough": thorough}
        with (
            Progress("probe", len(todo), enabled=progress) as bar,
            closing(
                run_all(_probe, [uris[i] for i in todo], options=options, workers=workers, timeout=timeout)
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
        )
        if target is not None and journal is not None:
            corpus.save(target)
            corpus.path = target
            journal.remove()
    return corpus


def find_videos(root: Path, patterns: Sequence[str] = PATTERNS) -> tuple[list[str], list[str]]:
    """Find the video files under a folder.

    Args:
        root: The folder; links to folders are followed.
        patterns: File names to take, as shell patterns; capitals do not matter.

    Returns:
        Paths relative to the folder, sorted; and warnings.

    Raises:
        DataError: There is no such folder, or no video in it.
    """
    if not root.is_dir():
        raise DataError(f"{root}: {'not a folder' if root.exists() else 'no such folder'}")
    wanted = [pattern.lower() for pattern in patterns]
    endings = {pattern[1:] for pattern in wanted if pattern.startswith("*.") and not set(pattern[2:]) & set("*?[.")}
    others = [pattern for pattern in wanted if pattern[1:] not in endings]
    files, unnameable, seen = [], 0, set()
    for folder, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # links that lead back up
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            low = name.lower()
            if low.startswith(".") or not (
                os.path.splitext(low)[1] in endings or any(fnmatch.fnmatchcase(low, pattern) for pattern in others)
            ):
                continue
            path = os.path.relpath(os.path.join(folder, name), root)
            try:
                path.encode()
            except UnicodeEncodeError:
                unnameable += 1
                continue
            files.append(path)
    if not files:
        shown = " ".join(patterns[:4]) + (" ..." if len(patterns) > 4 else "")
        raise DataError(f"{root}: no videos there (looked for {shown})")
    warnings = [f"{unnameable} files left out: their names are not UTF-8"] if unnameable else []
    return sorted(files), warnings


def _probe(uri: str, *, thorough: bool) -> dict[str, Any]:
    # Whatever FFmpeg has to say about a broken file is in the row, once.
    av.logging.set_level(None)
    return probe_row(uri, thorough=thorough)


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


def _state(uri: str) -> tuple[int, int] | None:
    try:
        status = os.stat(uri)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _unchanged(earlier: Corpus, uris: Sequence[str]) -> dict[int, int]:
    """Rows of an earlier corpus that still hold: place in `uris` -> row there."""
    known = {uri: row for row, uri in enumerate(earlier.column("uri").tolist())}
    sizes, times = earlier.column("bytes"), earlier.column("mtime_ns")
    kept = {}
    for i, uri in enumerate(uris):
        row = known.get(uri)
        if row is not None and (sizes[row], times[row]) == _state(uri):
            kept[i] = row
    return kept


def _resumed(journal: Journal, uris: Sequence[str]) -> dict[int, dict[str, Any]]:
    rows = {}
    for i, uri in enumerate(uris):
        row = journal.rows.get(uri)
        if row is not None and (row["bytes"], row["mtime_ns"]) == _state(uri):
            rows[i] = row
    return rows


def _assemble(
    uris: Sequence[str], kept: dict[int, int], rows: dict[int, dict[str, Any]], earlier: Corpus | None
) -> Corpus:
    """Rows taken over and rows probed, in the order of `uris`."""
    rows = {i: row for i, row in rows.items() if i not in kept}
    blank = {"label": "", "split": "", "group": ""}
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
