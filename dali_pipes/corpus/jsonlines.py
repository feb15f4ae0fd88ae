"""A growing file of JSON objects, one a line, that survives whatever ends the process: at most the last line is lost.

One process holds it at a time, by a lock that ends with the process.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from dali_pipes.errors import DataError
from dali_pipes.writing import replacing


class JsonLines:
    """An open file of records.

    Args:
        path: The file; made if need be.
        owner: What the user knows it as, for messages: the output that it belongs to.
        take: Given each record that is there, in order; says whether it counts. The first one that does not, and a
            line that was not written to its end, are cut off with all that follows.

    Raises:
        DataError: Another process holds it.
        OSError: It cannot be opened.
    """

    def __init__(self, path: Path, owner: Path, take: Callable[[dict[str, Any]], bool]) -> None:
        self.path = path
        self._owner = owner
        self._file = self._held()
        try:
            self._file.truncate(self._read(take))
        except BaseException:
            self._file.close()
            raise

    def _held(self) -> IO[bytes]:
        while True:
            file = self.path.open("a+b")
            try:
                self._lock(file)
                # The one before may have replaced or removed the file after it was opened here.
                with suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(file.fileno()), os.stat(self.path)):
                        return file
            except BaseException:
                file.close()
                raise
            file.close()

    def _lock(self, file: IO[bytes]) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"{self._owner}: another process is writing it") from error

    def _read(self, take: Callable[[dict[str, Any]], bool]) -> int:
        """Hand out the records; returns the bytes of those that count."""
        self._file.seek(0)
        kept = 0
        for line in self._file:
            try:
                record = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                break
            if not isinstance(record, dict) or not take(record):
                break
            kept += len(line)
        return kept

    def add(self, record: dict[str, Any]) -> None:
        """Keep one more, at once.

        Raises:
            OSError: The disk is full, or the file cannot be written for another reason.
        """
        self._file.write(_line(record))
        self._file.flush()

    def rewrite(self, records: Iterable[dict[str, Any]]) -> None:
        """Replace all, whole or not at all, without letting go of the file.

        Raises:
            OSError: It cannot be written.
        """
        with replacing(self.path) as temporary:
            file = temporary.open("ab")
            try:
                self._lock(file)
                file.writelines(map(_line, records))
                file.flush()
            except BaseException:
                with suppress(OSError):
                    file.close()
                raise
        self._file, old = file, self._file
        old.close()

    def remove(self) -> None:
        """The file is not needed any more."""
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the file; its records stay."""
        # Of a full disk `add` has told already.
        with suppress(OSError):
            self._file.close()


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record).encode() + b"\n"
