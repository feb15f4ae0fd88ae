"""Encodes a whole corpus anew: in parallel, each copy verified, and going on where it stopped.

What was encoded stands in a ledger beside the copies, one JSON line each. A copy is taken over as long as its source,
the preset and the copy itself are what they were then.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import av

from dali_pipes.corpus.engine import Lost, run_all
from dali_pipes.corpus.jsonlines import JsonLines
from dali_pipes.corpus.manifest import Corpus, Video
from dali_pipes.corpus.probe import Probed, probe_row
from dali_pipes.corpus.storage import Stat, StorageOptions, configure_storage, stat_source, storage_options
from dali_pipes.corpus.storage.address import local_path, scheme, split_tar
from dali_pipes.corpus.transcode import TRANSCODE_VERSION, UNWRITABLE, Preset, encode
from dali_pipes.corpus.transcode_names import copy_names
from dali_pipes.errors import DataError, VideoError
from dali_pipes.progress import Progress
from dali_pipes.writing import temporary_prefix

MANIFEST = "corpus.parquet"
LEDGER = "transcode.jsonl"
# Frames of each video compared with the source.
_SAMPLES = 5


@dataclass
class Outcome:
    """What a run did.

    Attributes:
        corpus: Of the copies, in the order of the sources.
        encoded: Videos encoded by this run.
        kept: Videos taken over from an earlier one.
        failed: (uri, reason) of videos left out.
        bytes_before: Size of the sources that have a copy.
        bytes_after: Size of the copies.
        psnr: Of every copy, dB, see `dali_pipes.corpus.transcode.Encoded`.
        seconds: That the run took.
    """

    corpus: Corpus
    encoded: int = 0
    kept: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    bytes_before: int = 0
    bytes_after: int = 0
    psnr: list[float] = field(default_factory=list)
    seconds: float = 0.0


class FolderFullError(Exception):
    """The copies cannot be written; the message says why."""


def transcode(
    corpus: Corpus,
    output: Path,
    preset: Preset,
    *,
    engine: dict[str, Any] | None = None,
    progress: bool = True,
) -> Outcome:
    """Encode every usable video of a corpus and write the corpus of the copies.

    Args:
        corpus: The sources.
        output: Folder for the copies, `corpus.parquet` and the ledger; made if need be.
        preset: How to encode.
        engine: Keyword arguments for `dali_pipes.corpus.engine.run_all`: workers, timeout, ...
        progress: Whether to report progress on standard error.

    Returns:
        What was done. Rows of videos that have no copy keep the source's uri, with the reason as error.

    Raises:
        DataError: The folder cannot be made or is in use by another run, or a copy would overwrite a source.
        FolderFullError: The disk is full, or writing fails for another reason. What is done so far is kept.
    """
    begun = time.monotonic()
    uris = corpus.column("uri").tolist()
    targets = [str(Path(os.path.abspath(output)) / name) for name in copy_names(uris, corpus.classes)]
    over = set(targets) & {os.path.abspath(path) for path in map(_local_file, uris) if path is not None}
    if over:
        raise DataError(f"{output}: {min(over)} is a source and would be overwritten; choose another folder")
    try:
        output.mkdir(parents=True, exist_ok=True)
        earlier: dict[str, dict[str, Any]] = {}
        ledger = JsonLines(output / LEDGER, output, lambda entry: _take(earlier, entry))
    except OSError as error:
        raise DataError(f"{output}: cannot be written: {error.strerror}") from error
    with closing(ledger):
        _sweep(output)
        how = {"version": TRANSCODE_VERSION, **asdict(preset)}
        entries: dict[int, dict[str, Any]] = {}
        todo = []
        for i in corpus.select(None).tolist():
            entry = earlier.get(uris[i])
            if entry is not None and _holds(entry, corpus, i, targets[i], how):
                entries[i] = entry
            else:
                todo.append(i)
        outcome = Outcome(corpus, kept=len(entries), encoded=0)
        try:
            failed = _encode_all(corpus, todo, targets, preset, how, entries, ledger, engine or {}, progress)
            outcome.encoded = len(entries) - outcome.kept
            outcome.corpus = _manifest(corpus, entries, failed)
            outcome.corpus.save(output / MANIFEST)
            outcome.corpus.path = output / MANIFEST
            # Only lines that count: a ledger that grows with every change would be read in full each time.
            ledger.rewrite(entries[i] for i in sorted(entries))
        except OSError as error:
            raise FolderFullError(f"{output}: {error.strerror or error}") from error
    outcome.failed = [(uris[i], reason) for i, reason in sorted(failed.items())]
    outcome.bytes_before = sum(entry["source_bytes"] for entry in entries.values())
    outcome.bytes_after = sum(entry["row"]["bytes"] for entry in entries.values())
    outcome.psnr = [entry["psnr"] for entry in entries.values()]
    outcome.seconds = time.monotonic() - begun
    return outcome


def _encode_all(
    corpus: Corpus,
    todo: list[int],
    targets: list[str],
    preset: Preset,
    how: dict[str, Any],
    entries: dict[int, dict[str, Any]],
    ledger: JsonLines,
    engine: dict[str, Any],
    progress: bool,
) -> dict[int, str]:
    """Encode what is to do, adding to `entries` and the ledger; returns why the others failed."""
    failed: dict[int, str] = {}
    items = _Items(corpus, todo, targets)
    options: dict[str, Any] = {"timeout": 600.0} | engine
    try:
        with (
            Progress("transcode", len(todo), enabled=progress) as bar,
            closing(
                run_all(_job, items, options={"preset": preset, "storage": storage_options()}, **options)
            ) as results,
        ):
            for place, result in results:
                i = todo[place]
                items.out.discard(place)
                if isinstance(result, Lost):
                    _sweep_one(Path(targets[i]))
                    failed[i] = result.reason
                elif "full" in result:
                    raise OSError(result["number"], result["full"])
                elif "error" in result:
                    failed[i] = result["error"]
                else:
                    entries[i] = _source(corpus, i) | {"preset": how} | result
                    ledger.add(entries[i])
                bar.advance()
    finally:
        # Workers that were ended had no chance to tidy up.
        for place in items.out:
            _sweep_one(Path(targets[todo[place]]))
    return failed


def _job(item: tuple[Video, str], *, preset: Preset, storage: StorageOptions) -> dict[str, Any]:
    """Encode and verify one video; what goes wrong is in the answer."""
    configure_storage(storage)
    # Whatever FFmpeg has to say about a broken file is in the answer, once.
    av.logging.set_level(None)
    video, name = item
    target = Path(name)
    begun = time.monotonic()
    try:
        if not _current(video.uri, video.bytes, video.mtime_ns):
            return {"error": "has changed since it was indexed; index it again"}
        target.parent.mkdir(parents=True, exist_ok=True)
        encoded = encode(video, target, preset, samples=_SAMPLES)
        row = probe_row(name)
        if row["error"] or row["frames"] != encoded.frames:
            target.unlink(missing_ok=True)
            return {"error": f"the copy is not sound: {row['error'] or str(row['frames']) + ' frames'}"}
    except DataError as error:
        return {"error": error.reason if isinstance(error, VideoError) else str(error)}
    except MemoryError:
        return {"error": "needs more memory than a worker may take"}
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno not in UNWRITABLE:
            return {"error": f"its copy cannot be written: {reason}"}
        return {"number": error.errno, "full": reason}
    return {"row": row, "psnr": round(encoded.psnr_sample or 0.0, 2), "seconds": round(time.monotonic() - begun, 3)}


class _Items(Sequence[tuple[Video, str]]):
    """Videos and where their copies go, made when a worker asks: a million at once would be too many.

    Attributes:
        out: Places handed out and not yet answered.
    """

    def __init__(self, corpus: Corpus, todo: list[int], targets: list[str]) -> None:
        self.corpus, self.todo, self.targets = corpus, todo, targets
        self.out: set[int] = set()

    def __len__(self) -> int:
        return len(self.todo)

    def __getitem__(self, place: int) -> tuple[Video, str]:  # type: ignore[override]
        i = self.todo[place]
        self.out.add(place)
        return self.corpus[i], self.targets[i]

    def __iter__(self) -> Iterator[tuple[Video, str]]:
        return (self[place] for place in range(len(self)))


def _source(corpus: Corpus, i: int) -> dict[str, Any]:
    return {
        "source": corpus.column("uri")[i],
        "source_bytes": int(corpus.column("bytes")[i]),
        "source_mtime_ns": int(corpus.column("mtime_ns")[i]),
    }


def _holds(entry: dict[str, Any], corpus: Corpus, i: int, target: str, how: dict[str, Any]) -> bool:
    """Whether a copy made earlier still is the one to be made."""
    if {name: entry[name] for name in _source(corpus, i)} != _source(corpus, i) or entry["preset"] != how:
        return False
    row = entry["row"]
    try:
        if not _current(entry["source"], entry["source_bytes"], entry["source_mtime_ns"]):
            return False
        copy = stat_source(target)
    except VideoError:
        return False
    return row["uri"] == target and Stat(row["bytes"], row["mtime_ns"]) == copy


def _current(uri: str, size: int, mtime_ns: int) -> bool:
    """Whether a source still is the file that was indexed; of a remote one that is not asked.

    Raises:
        VideoError: A local one is gone.
    """
    path = _local_file(uri)
    if path is None:
        return True
    found = stat_source(path)
    # Of a shard the time alone: where the member lies and how large it is would cost a pass over its headers.
    return found.mtime_ns == mtime_ns and (scheme(uri) == "tar" or found.bytes == size)


def _local_file(uri: str) -> str | None:
    """The local file that a source is or lies in; None where that is remote, or the address is malformed."""
    if scheme(uri) != "tar":
        return local_path(uri)
    with suppress(VideoError):
        return local_path(split_tar(uri)[1])
    return None


def _take(entries: dict[str, dict[str, Any]], entry: dict[str, Any]) -> bool:
    """Put a line of the ledger in its place; of one source the last counts."""
    if "source" not in entry:
        return False
    entries[entry["source"]] = entry
    return True


def _manifest(corpus: Corpus, entries: dict[int, dict[str, Any]], failed: dict[int, str]) -> Corpus:
    """The rows of the copies, in the order of the sources, with their labels, splits and groups."""
    rows = []
    columns = (corpus.column(name).tolist() for name in ("uri", "label", "split", "group", "error"))
    for i, (uri, label, split, group, error) in enumerate(zip(*columns, strict=True)):
        reason = error or (f"not transcoded: {failed[i]}" if i in failed else "holds no frames")
        row = entries[i]["row"] if i in entries else asdict(Probed(uri, error=reason))
        rows.append(row | {"label": label, "split": split, "group": group})
    return Corpus.from_rows(rows).with_listing(corpus.listing)


def _sweep(folder: Path) -> None:
    """Remove what runs that were killed left half-written."""
    for place, _, names in os.walk(folder):
        for name in names:
            if name.startswith(".") and name.endswith(".tmp"):
                with suppress(OSError):
                    os.unlink(os.path.join(place, name))


def _sweep_one(target: Path) -> None:
    with suppress(OSError):
        for entry in os.scandir(target.parent):
            if entry.name.startswith(temporary_prefix(target)) and entry.name.endswith(".tmp"):
                os.unlink(entry.path)
