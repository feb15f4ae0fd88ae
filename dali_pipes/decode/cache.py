"""Small short-GOP copies of visited videos, made in the background: a cache that fills itself.

A clip of a raw video with a key frame every ten seconds costs a hundred frames that nobody looks at, at every visit.
The first visit to a video therefore queues one re-encode, and later visits decode the copy. Frame i of the copy is
frame i of the video, so that requests, time stamps and everything drawn stay what they were.

A copy is two files, `KEY.mp4` and `KEY.json` (its row, written last: where it is, the copy is whole). The key is made
of the video's address, size and time of change and of the settings, so a copy of anything else is never found. Ranks
and runs share a folder; a lock for each copy keeps two from making the same one.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dali_pipes.corpus.probe import probe
from dali_pipes.corpus.transcode import TRANSCODE_VERSION, Preset, Stopped, encode
from dali_pipes.errors import DataError, VideoError

if TYPE_CHECKING:
    from dali_pipes.corpus import Video

logger = logging.getLogger("dali_pipes")

# What the copy's own row says; label, split, time of the source and the like stay the video's.
_ROW = (
    *("codec", "pixel_format", "width", "height", "rotation", "frames", "time_base_num", "time_base_den", "start"),
    *("step", "rate", "constant", "key_frames", "key_timestamps", "timestamps", "numbering", "uniform", "sliceable"),
    *("bytes", "mtime_ns"),
)
# Videos waiting to be encoded. More would only hold memory: what is left out is queued by its next visit.
_MOST_WAITING = 4096


@dataclass
class CacheStats:
    """What a cache has done in this process.

    Attributes:
        hits: Requests served from a copy.
        misses: Requests served from the video itself.
        made: Copies made.
        failed: Address and reason of each video that could not be copied.
        refused: Copies not made for want of room.
        evicted: Copies removed to make room.
        cpu_seconds: CPU time spent on copies.
    """

    hits: int
    misses: int
    made: int
    failed: dict[str, str]
    refused: int
    evicted: int
    cpu_seconds: float


class VideoCache:
    """Copies of visited videos in one folder.

    Args:
        folder: Where the copies lie; made if absent.
        limit: Most bytes that the folder may hold. Copies that no run has used since this one began make room for new
            ones, the longest unused first; where all are in use, no more are made: in an epoch every video comes once,
            and giving one up for another would only cost an encode.
        preset: How copies are encoded.
        share: Largest share of one core that encoding may take, in (0, 1].

    Raises:
        DataError: The folder cannot be made or written to, or an argument is out of range.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        limit: int = 100 << 30,
        preset: Preset | None = None,
        share: float = 0.5,
    ) -> None:
        if limit < 1:
            raise DataError(f"cache limit={limit} must be a positive number of bytes")
        if not 0 < share <= 1:
            raise DataError(f"cache share={share} must lie in (0, 1], as a share of one core")
        self.folder = Path(os.path.abspath(folder))
        self.limit, self.share = limit, share
        self.preset = preset or Preset()
        if self.preset.fps is not None:
            raise DataError(f"cache preset fps={self.preset.fps:g}: copies keep every frame; leave fps None")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise DataError(f"cache {self.folder}: cannot be written: {error.strerror}") from error
        self.stats = CacheStats(0, 0, 0, {}, 0, 0, 0.0)
        self._settings = repr((TRANSCODE_VERSION, astuple(self.preset))).encode()
        self._rows: dict[str, Video] = {}
        self._waiting: deque[Video] = deque()
        self._queued: set[str] = set()
        self._wake = threading.Condition()
        self._closed = False
        self._full = False
        self._thread: threading.Thread | None = None
        self._begun = time.time()
        self._evict(0)

    @classmethod
    def for_clips(
        cls, folder: str | os.PathLike[str], size: int, *, limit: int = 100 << 30, share: float = 0.5
    ) -> VideoCache:
        """A cache whose copies have the size that random crops of ``size`` pixels are taken from (128 for 112)."""
        # Encoders want even numbers.
        return cls(folder, limit=limit, preset=Preset(short_side=max(-(-size * 8 // 14) * 2, 16)), share=share)

    def copy_of(self, video: Video) -> Video | None:
        """The row to decode in place of a video's own, or None where there is no copy yet, which queues one."""
        if self._is_cheap(video):
            return None
        key = self._key(video)
        row = self._rows.get(key)
        path = self.folder / key[:2] / f"{key}.mp4"
        try:
            # Told to all ranks and later runs by the time of change: in use.
            os.utime(path)
            row = row or self._read(video, path)
        except (OSError, ValueError, KeyError, TypeError):
            row = None
        if row is None:
            self._rows.pop(key, None)
            self.stats.misses += 1
            self._queue(video, key)
            return None
        self._rows[key] = row
        self.stats.hits += 1
        return row

    def forget(self, video: Video) -> None:
        """Removes the copy of a video, which turned out not to be usable."""
        key = self._key(video)
        self._rows.pop(key, None)
        self._remove(self.folder / key[:2] / f"{key}.mp4")

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until nothing is queued; whether that came to be in time."""
        with self._wake:
            return self._wake.wait_for(lambda: not self._queued or self._closed, timeout)

    def close(self) -> None:
        """Stops the encoder; an unfinished copy is dropped. May be called more than once."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _is_cheap(self, video: Video) -> bool:
        """Whether the video itself is about as cheap to decode as its copy would be."""
        side = self.preset.short_side
        small = side is None or min(video.width, video.height) <= 1.25 * side
        gop = video.frames / max(len(video.key_frames), 1)
        return bool(small and gop <= 2 * self.preset.gop and video.sliceable)

    def _key(self, video: Video) -> str:
        what = f"{video.uri}\0{video.bytes}\0{video.mtime_ns}\0{getattr(video, 'offset', -1)}\0".encode()
        return hashlib.sha256(what + self._settings).hexdigest()[:32]

    def _read(self, video: Video, path: Path) -> Video:
        row: dict[str, Any] = json.loads(path.with_suffix(".json").read_text())
        if row["frames"] != video.frames or row["bytes"] != path.stat().st_size:
            raise ValueError(f"{path}: not whole")
        for name in ("key_frames", "key_timestamps", "timestamps"):
            row[name] = None if row[name] is None else np.asarray(row[name], np.int64)
        if hasattr(video, "offset"):
            row["offset"] = -1
        return replace(video, uri=str(path), error="", notes="", duration=video.duration, **row)

    def _queue(self, video: Video, key: str) -> None:
        with self._wake:
            if self._full or self._closed or key in self._queued or video.uri in self.stats.failed:
                return
            if len(self._waiting) >= _MOST_WAITING:
                return
            self._queued.add(key)
            self._waiting.append(video)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="dali_pipes-cache", daemon=True)
                self._thread.start()
            self._wake.notify_all()

    def _run(self) -> None:
        with suppress(OSError, AttributeError):
            # Linux has a priority for each thread: decoding for the run comes first.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                video = self._waiting.popleft()
            key = self._key(video)
            try:
                self._make(video, key)
            except Stopped:
                return
            except (VideoError, OSError, MemoryError) as error:
                self._failed(video, error)
            finally:
                with self._wake:
                    self._queued.discard(key)
                    self._wake.notify_all()

    def _failed(self, video: Video, error: Exception) -> None:
        reason = error.reason if isinstance(error, VideoError) else (getattr(error, "strerror", "") or str(error))
        self.stats.failed[video.uri] = reason
        logger.warning("%s: no copy in the cache: %s", video.uri, reason)
        if isinstance(error, OSError) and not isinstance(error, VideoError):
            self._full = True  # the disk, not the video
            logger.warning("cache %s: no more copies are made: %s", self.folder, reason)

    def _make(self, video: Video, key: str) -> None:
        path = self.folder / key[:2] / f"{key}.mp4"
        path.parent.mkdir(exist_ok=True)
        with _locked(path.with_suffix(".lock")) as mine:
            if not mine or path.with_suffix(".json").exists():
                return  # another rank makes it, or has made it
            pace = _Pace(self.share, lambda: self._closed)
            try:
                encoded = encode(video, path, self.preset, stop=pace)
            finally:
                self.stats.cpu_seconds += pace.used()
            if encoded.frames != video.frames:
                path.unlink(missing_ok=True)
                raise VideoError(video.uri, f"its copy has {encoded.frames} frames, it has {video.frames}")
            if not self._evict(encoded.bytes, path):
                path.unlink(missing_ok=True)
                self.stats.refused += 1
                self._full = True
                logger.warning("cache %s: full; no more copies are made (limit %d bytes)", self.folder, self.limit)
                return
            found = asdict(probe(str(path)))
            _write(path.with_suffix(".json"), json.dumps({name: found[name] for name in _ROW}))
            self.stats.made += 1

    def _evict(self, wanted: int, but: Path | None = None) -> bool:
        """Removes what no run uses until `wanted` bytes fit; whether they do."""
        with _locked(self.folder / ".evict.lock", wait=True):
            files = []
            for folder in self.folder.iterdir():
                if len(folder.name) == 2 and folder.is_dir():
                    files += [(e.stat(), Path(e.path)) for e in os.scandir(folder) if e.name.endswith(".mp4")]
            total = sum(status.st_size for status, path in files if path != but)
            for status, path in sorted(files, key=lambda file: file[0].st_mtime):
                if total + wanted <= self.limit:
                    break
                if path != but and (status.st_mtime < self._begun or wanted == 0):
                    self._remove(path)
                    total -= status.st_size
                    self.stats.evicted += 1
            return total + wanted <= self.limit

    def _remove(self, path: Path) -> None:
        # The row first: a copy without its row is as good as none.
        path.with_suffix(".json").unlink(missing_ok=True)
        path.unlink(missing_ok=True)


class _Pace:
    """Asked at every frame; sleeps so that the thread takes no more than its share of a core."""

    def __init__(self, share: float, closed: Any) -> None:
        self._share, self._closed = share, closed
        self._cpu, self._wall = time.thread_time(), time.monotonic()

    def used(self) -> float:
        """CPU seconds since the start."""
        return time.thread_time() - self._cpu

    def __call__(self) -> bool:
        ahead = self.used() / self._share - (time.monotonic() - self._wall)
        if ahead > 0 and self._share < 1:
            time.sleep(min(ahead, 0.5))
        return bool(self._closed())


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


def _write(path: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
