"""Writing down which videos a run could not decode, so that the next index leaves them out.

Several ranks append to one file: each line is one write to a file opened for appending, which the operating system does
not mix with another's.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from dali_pipes.errors import DataError

if TYPE_CHECKING:
    from dali_pipes.corpus import Video

logger = logging.getLogger("dali_pipes")

# Faults of the way to a file and not of the file: it is listed for people, but the next index tries it again.
_PASSING = ("server lost", "No such file", "Stale file handle", "Transport endpoint", "Too many open files")
# What this process has written, whichever of its streams found it.
_WRITTEN: set[tuple[str, str, int, int]] = set()
_LOCK = threading.Lock()


class Quarantine:
    """A file that undecodable videos are appended to; `dali_pipes.corpus.quarantine` says what is in it.

    Args:
        path: The file; made where it does not exist, its folder must.

    Raises:
        DataError: If the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(os.path.abspath(path))
        try:
            os.close(self._opened())
        except OSError as error:
            raise DataError(f"quarantine={path}: cannot be written: {error.strerror or error}") from error

    def add(self, video: Video, reason: str) -> None:
        """Append a video, unless this process has done so. A disk that is full is logged and ends no training."""
        key = (str(self.path), video.uri, video.bytes, video.mtime_ns)
        with _LOCK:
            if key in _WRITTEN:
                return
            _WRITTEN.add(key)
        # The state that the index saw: had the file changed since, the next index probes it anew.
        passing = any(words in reason for words in _PASSING)
        entry = {
            "uri": video.uri,
            "reason": reason,
            "bytes": -1 if passing else video.bytes,
            "mtime_ns": -1 if passing else video.mtime_ns,
            "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        try:
            handle = self._opened()
            try:
                os.write(handle, (json.dumps(entry) + "\n").encode())
            finally:
                os.close(handle)
        except OSError as error:
            logger.warning("%s: cannot be written: %s", self.path, error.strerror or error)

    def _opened(self) -> int:
        return os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)


def general(reason: str) -> str:
    """A reason without the numbers and paths in it, so that the same fault of many videos is counted together.

    >>> general("12 frames could not be decoded; the first is 3 of 60")
    'N frames could not be decoded; the first is N of N'
    """
    reason = re.sub(r"'[^']*/[^']*'|\"[^\"]*/[^\"]*\"|\S*/\S*\w", "PATH", reason)
    return re.sub(r"\d+(?:\.\d+)?", "N", reason)[:200]
