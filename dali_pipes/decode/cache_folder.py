"""The folder of small copies: what they are called, which of them are whole, and how many bytes they take.

A copy is two files, `KEY.mp4` and `KEY.json` (its row, written last: where it is, the copy is whole). The key is made
of the video's address, size and time of change and of the settings, so a copy of anything else is never found. The time
of a copy's file is the time of its last use.

How many bytes all copies take stands in the file `.bytes`, which every process that adds or removes one keeps right
under the folder's lock. The folder itself is looked through only when it is opened and when the limit is reached: files
removed by hand, and a process that ends between a file and its count, do not tell.
"""

from __future__ import annotations

import fcntl
import hashlib
import heapq
import json
import math
import os
import re
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dali_pipes.corpus.transcode_presets import TRANSCODE_VERSION, Preset
from dali_pipes.errors import DataError
from dali_pipes.writing import replacing

if TYPE_CHECKING:
    from dali_pipes.corpus import Video

# What the copy's own row says; label, split, time of the source and the like stay the video's.
_ROW = (
    *("codec", "pixel_format", "width", "height", "rotation", "frames", "time_base_num", "time_base_den", "start"),
    *("step", "rate", "constant", "key_frames", "key_timestamps", "timestamps", "numbering", "uniform", "sliceable"),
    *("bytes", "mtime_ns"),
)
_LOCK, _COUNT = ".evict.lock", ".bytes"
# Copies to give up next that are kept in mind from one look through the folder. Any number would do; all of them could
# be half a million.
_OLDEST = 4096
# Seconds after which an unfinished file was left behind by a process that ended.
_ABANDONED = 86400.0


def preset_for(size: int, *, crops: bool = True) -> Preset:
    """How copies for clips of ``size`` pixels are encoded: in the size that the clips are made from.

    With random ``crops`` that is larger (128 for 112); else no frame of a copy has to be scaled, which costs as much as
    decoding it.
    """
    # Encoders want even numbers.
    return Preset(short_side=max(-(-size * 8 // 14) * 2 if crops else -(-size // 2) * 2, 16))


def is_cheap(video: Video, preset: Preset) -> bool:
    """Whether a video itself is about as cheap to decode as its copy would be; then none is made."""
    side = preset.short_side
    small = side is None or min(video.width, video.height) <= 1.25 * side
    gop = video.frames / max(len(video.key_frames), 1)
    return bool(small and gop <= 2 * preset.gop and video.sliceable)


def source_of(path: str | os.PathLike[str]) -> str | None:
    """The video that a file is the cache's copy of, "" where its row does not say; None where it is no such copy."""
    path = Path(path)
    if re.fullmatch(r"[0-9a-f]{32}\.mp4", path.name) is None:
        return None
    try:
        row = json.loads(path.with_suffix(".json").read_text())
    except (OSError, ValueError):
        return None
    return str(row.get("source", "")) if isinstance(row, dict) and "frames" in row else None


class CopyFolder:
    """Copies of videos in one folder. Looking copies up changes nothing there; `open` comes before anything else.

    Args:
        path: The folder.
        preset: How copies are encoded.
        limit: Most bytes that they may take.

    Attributes:
        evicted: Copies that this process removed to make room.
    """

    def __init__(self, path: str | os.PathLike[str], preset: Preset, limit: int) -> None:
        self.path = Path(os.path.abspath(path))
        self.preset, self.limit = preset, limit
        self.evicted = 0
        self._settings = repr((TRANSCODE_VERSION, astuple(preset))).encode()
        self._begun = time.time()
        self._oldest: deque[Path] = deque()

    def open(self) -> None:
        """Makes the folder where it is absent, counts what is in it, and removes what is over the limit.

        Raises:
            DataError: It cannot be made or written to.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
            with _locked(self.path / _LOCK, wait=True):
                # No copy is in use by a run that has yet to begin.
                self._note(self._make_room(self._look(math.inf), 0, math.inf))
                self._oldest.clear()
        except OSError as error:
            raise DataError(f"cache {self.path}: cannot be written: {error.strerror}") from error

    def key(self, video: Video) -> str:
        """What the copy of a video is called."""
        what = f"{video.uri}\0{video.bytes}\0{video.mtime_ns}\0{video.offset}\0".encode()
        return hashlib.sha256(what + self._settings).hexdigest()[:32]

    def file(self, key: str) -> Path:
        """Where the copy of that key is, if there is one."""
        return self.path / key[:2] / f"{key}.mp4"

    def find(self, video: Video) -> Video | None:
        """The row of a video's copy, or None where there is none that is whole."""
        path = self.file(self.key(video))
        try:
            row: dict[str, Any] = json.loads(path.with_suffix(".json").read_text())
            if row["frames"] != video.frames or row["bytes"] != path.stat().st_size:
                return None
            row = {name: row[name] for name in _ROW}
            for name in ("key_frames", "key_timestamps", "timestamps"):
                row[name] = None if row[name] is None else np.asarray(row[name], np.int64)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return replace(video, uri=str(path), offset=-1, error="", notes="", **row)

    def mark(self, key: str) -> None:
        """Tells all ranks and later runs that a copy is in use, by its time of access.

        The time of change stays what its row says, by which decoders know that it is the file they were told of.

        Raises:
            OSError: If there is no such copy.
        """
        path = self.file(key)
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))

    @contextmanager
    def making(self, key: str) -> Iterator[bool]:
        """Holds the lock of one copy; yields whether it was free, which means that nobody else makes this copy."""
        path = self.file(key)
        path.parent.mkdir(exist_ok=True)
        with _locked(path.with_suffix(".lock")) as mine:
            yield mine

    def admit(self, key: str, size: int, found: dict[str, Any], source: str) -> bool:
        """Makes a new file a copy if there is room, and removes it if there is none; whether there was.

        Args:
            key: Of the copy, whose file is there.
            size: Bytes of the file.
            found: What the probe found in it.
            source: Address of the video.

        Raises:
            OSError: The folder cannot be written to.
        """
        path = self.file(key)
        row = json.dumps({"source": source} | {name: found[name] for name in _ROW})
        try:
            with _locked(self.path / _LOCK, wait=True):
                total = self._make_room(self._count(path), size, self._begun, path)
                fits = total + size <= self.limit
                # Counted before it is a copy, so that no copy is ever left out of the count.
                self._note(total + size if fits else total)
                if fits:
                    _write(path.with_suffix(".json"), row)
                else:
                    path.unlink(missing_ok=True)
                return fits
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def remove(self, key: str) -> None:
        """Removes a copy, or what there is of it.

        Raises:
            OSError: It cannot be removed.
        """
        path = self.file(key)
        if not path.exists():
            return
        # Where it is gone by then, another process was first, and has counted it off.
        with _locked(self.path / _LOCK, wait=True), suppress(FileNotFoundError):
            total, size = self._count(), path.stat().st_size
            _remove(path)
            self._note(max(total - size, 0))

    def _make_room(self, total: int, wanted: int, before: float, but: Path | None = None) -> int:
        """Removes copies last used before a time, the longest unused first, until `wanted` more bytes fit or there are
        no more such copies; bytes that are left. The folder is locked."""
        while total + wanted > self.limit:
            if not self._oldest:
                # The count may be too high: the truth, before anything is given up or refused.
                total = self._look(before, but)
                if not self._oldest:
                    break
                continue
            path = self._oldest.popleft()
            with suppress(FileNotFoundError):
                status = path.stat()
                # It may have come into use since it was seen.
                if status.st_atime < before:
                    _remove(path)
                    total -= status.st_size
                    self.evicted += 1
        return total

    def _look(self, before: float, but: Path | None = None) -> int:
        """Looks through the folder: bytes of all copies except `but`. Keeps in mind the ones longest unused."""
        total, unused, now = 0, [], time.time()
        for folder in os.scandir(self.path):
            if len(folder.name) != 2 or not folder.is_dir():
                continue
            for entry in os.scandir(folder):
                with suppress(FileNotFoundError):
                    status = entry.stat()
                    if entry.name.endswith(".mp4") and entry.path != str(but):
                        total += status.st_size
                        if status.st_atime < before:
                            unused.append((status.st_atime, entry.path))
                    elif entry.name.endswith(".tmp") and status.st_mtime < now - _ABANDONED:
                        os.unlink(entry.path)
        self._oldest = deque(Path(path) for _, path in heapq.nsmallest(_OLDEST, unused))
        return total

    def _count(self, but: Path | None = None) -> int:
        """Bytes of all copies as they were noted; where that is not legible, as they are, except `but`."""
        try:
            noted = int((self.path / _COUNT).read_text())
        except (FileNotFoundError, ValueError):
            noted = -1
        return noted if noted >= 0 else self._look(self._begun, but)

    def _note(self, total: int) -> None:
        _write(self.path / _COUNT, str(total))


@contextmanager
def _locked(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Holds a lock that ends with the process; yields whether it was free."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
        if not wait:
            path.unlink(missing_ok=True)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    # The row first: a copy without its row is as good as none.
    path.with_suffix(".json").unlink(missing_ok=True)
    path.unlink()


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text)
