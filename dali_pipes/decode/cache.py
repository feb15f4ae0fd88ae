"""Small short-GOP copies of visited videos, made in the background: a cache that fills itself.

A clip of a raw video with a key frame every ten seconds costs a hundred frames that nobody looks at, at every visit.
The first visit to a video therefore queues one re-encode, and later visits decode the copy. Frame i of the copy is
frame i of the video, so that requests, time stamps and everything drawn stay what they were.

Ranks and runs share a folder of copies (`dali_pipes.decode.cache_folder`); a lock for each copy keeps two from making
the same one.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from dali_pipes.corpus.probe import probe
from dali_pipes.corpus.transcode import Preset, Stopped, encode
from dali_pipes.decode.cache_folder import CopyFolder, is_cheap, preset_for
from dali_pipes.errors import DataError, VideoError

if TYPE_CHECKING:
    from dali_pipes.corpus import Video

logger = logging.getLogger("dali_pipes")

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
        self.limit, self.share = limit, share
        self.preset = preset or Preset()
        if self.preset.fps is not None:
            raise DataError(f"cache preset fps={self.preset.fps:g}: copies keep every frame; leave fps None")
        self._copies = CopyFolder(folder, self.preset, limit)
        self._copies.open()
        self.folder = self._copies.path
        self.stats = CacheStats(0, 0, 0, {}, 0, self._copies.evicted, 0.0)
        self._rows: dict[str, Video] = {}
        self._waiting: deque[Video] = deque()
        self._queued: set[str] = set()
        self._wake = threading.Condition()
        self._closed = False
        self._full = False
        self._thread: threading.Thread | None = None

    @classmethod
    def for_clips(
        cls,
        folder: str | os.PathLike[str],
        size: int,
        *,
        crops: bool = True,
        limit: int = 100 << 30,
        share: float = 0.5,
    ) -> VideoCache:
        """A cache for clips of ``size`` pixels: its copies have the size that random ``crops`` are taken from (128 for
        112), or without them that of the clips."""
        return cls(folder, limit=limit, preset=preset_for(size, crops=crops), share=share)

    def copy_of(self, video: Video) -> Video | None:
        """The row to decode in place of a video's own, or None where there is no copy yet, which queues one."""
        if is_cheap(video, self.preset):
            return None
        key = self._copies.key(video)
        try:
            self._copies.mark(key)
            row = self._rows.get(key) or self._copies.find(video)
        except OSError:
            row = None
        if row is None:
            self._rows.pop(key, None)
            self.stats.misses += 1
            self._queue(video, key)
            return None
        self._rows[key] = row
        self.stats.hits += 1
        return row

    def find(self, video: Video) -> Video | None:
        """The row that `copy_of` would give, but nothing is queued, counted or marked as used."""
        return None if is_cheap(video, self.preset) else self._copies.find(video)

    def forget(self, video: Video) -> None:
        """Removes the copy of a video, which turned out not to be usable."""
        key = self._copies.key(video)
        self._rows.pop(key, None)
        with suppress(OSError):  # the video itself can still be read
            self._copies.remove(key)

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
            key = self._copies.key(video)
            try:
                # What was queued before the folder was full would be encoded only to be refused.
                if not self._full:
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
        with self._copies.making(key) as mine:
            if not mine or self._copies.find(video) is not None:
                return  # another rank makes it, or has made it
            # What is there is not whole.
            self._copies.remove(key)
            path = self._copies.file(key)
            pace = _Pace(self.share, lambda: self._closed)
            try:
                encoded = encode(video, path, self.preset, stop=pace)
            finally:
                self.stats.cpu_seconds += pace.used()
            try:
                if encoded.frames != video.frames:
                    raise VideoError(video.uri, f"its copy has {encoded.frames} frames, it has {video.frames}")
                found = asdict(probe(str(path)))
            except BaseException:
                path.unlink(missing_ok=True)
                raise
            admitted = self._copies.admit(key, encoded.bytes, found, video.uri)
            self.stats.evicted = self._copies.evicted
            if admitted:
                self.stats.made += 1
                return
            self.stats.refused += 1
            self._full = True
            logger.warning("cache %s: full; no more copies are made (limit %d bytes)", self.folder, self.limit)


class _Pace:
    """Asked at every frame; sleeps so that the thread takes no more than its share of a core."""

    def __init__(self, share: float, closed: Callable[[], bool]) -> None:
        self._share, self._closed = share, closed
        self._cpu, self._wall = time.thread_time(), time.monotonic()

    def used(self) -> float:
        """CPU seconds since the start."""
        return time.thread_time() - self._cpu

    def __call__(self) -> bool:
        ahead = self.used() / self._share - (time.monotonic() - self._wall)
        if ahead > 0 and self._share < 1:
            time.sleep(min(ahead, 0.5))
        return self._closed()
