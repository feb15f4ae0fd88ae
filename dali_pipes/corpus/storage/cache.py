"""A folder of blocks that were fetched from remote files, bounded in size, shared by threads and processes.

Each block is a file of its own that appears whole or not at all; the time of a file is the time of its last use. No
lock is needed: whoever finds a block removed fetches it again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import threading
import time
from pathlib import Path

from dali_pipes.errors import DataError

_TEMPORARY = ".tmp-"
# Seconds after which an unfinished block was left behind by a process that ended.
_ABANDONED = 3600.0


class BlockCache:
    """Blocks on disk.

    Args:
        folder: Where; made if need be.
        limit: Bytes that the blocks may take. Several processes writing at once may exceed it for a moment, each by a
            sixteenth at most.

    Raises:
        DataError: The folder cannot be made.
    """

    def __init__(self, folder: str, limit: int) -> None:
        self.folder = Path(folder)
        self.limit = limit
        self._written = 0
        self._lock = threading.Lock()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"cache folder {folder}: cannot be made: {error.strerror}") from error

    def get(self, file: str, start: int, size: int) -> bytes | None:
        """A block, or None where it is not there.

        Args:
            file: What tells the remote file and its version from others.
            start: Byte where the block begins in it.
            size: Bytes of the block.
        """
        path = self._path(file, start)
        try:
            data = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        # A disk that was full, or another block size.
        return data if len(data) == size else None

    def put(self, file: str, start: int, data: bytes) -> None:
        """Keep a block. A disk that is full or cannot be written costs the cache, not the read."""
        if len(data) > self.limit:
            return
        path = self._path(file, start)
        with contextlib.suppress(OSError):
            path.parent.mkdir(exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=_TEMPORARY)
            try:
                with os.fdopen(handle, "wb") as out:
                    out.write(data)
                os.replace(name, path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(name)
                raise
        with self._lock:
            self._written += len(data)
            if self._written <= self.limit // 16:
                return
            self._written = 0
        self.trim()

    def trim(self) -> None:
        """Remove the blocks not used for longest until what this process may add before it looks again has room."""
        blocks, total, now = [], 0, time.time()
        for folder, _, names in os.walk(self.folder):
            for name in names:
                path = os.path.join(folder, name)
                try:
                    status = os.stat(path)
                except OSError:
                    continue
                if name.startswith(_TEMPORARY):
                    if now - status.st_mtime > _ABANDONED:
                        _remove(path)
                    continue
                blocks.append((status.st_mtime_ns, status.st_size, path))
                total += status.st_size
        room = self.limit - self.limit // 16
        if total <= room:
            return
        # A little more than needed, or every further block would have the folder walked again.
        goal = self.limit - self.limit // 8
        for _, size, path in sorted(blocks):
            if total <= goal:
                break
            _remove(path)
            total -= size

    def _path(self, file: str, start: int) -> Path:
        digest = hashlib.sha256(file.encode()).hexdigest()
        return self.folder / digest[:2] / f"{digest[2:40]}-{start:x}"


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
