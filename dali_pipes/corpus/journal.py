"""Results kept while an index is being made, so that an interrupted one goes on where it stopped.

One JSON line a video, appended next to the output as soon as the video is probed: whatever ends the process, at most
the last line is lost. It disappears once the corpus itself is written.
"""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import IO, Any

from dali_pipes.errors import DataError


class Journal:
    """Rows probed so far for a corpus that is not yet written.

    Args:
        output: Where the corpus will be written; the journal lies beside it as `<name>.partial`.
        settings: What must be the same for earlier rows to count.

    Attributes:
        rows: Rows of an earlier, interrupted run, by uri.

    Raises:
        DataError: Another process is writing it, or the folder cannot be written to.
    """

    def __init__(self, output: Path, settings: dict[str, Any]) -> None:
        self.path = output.with_name(output.name + ".partial")
        self.rows: dict[str, dict[str, Any]] = {}
        try:
            self._file: IO[str] = self.path.open("a+", encoding="utf-8")
        except OSError as error:
            raise DataError(f"{output}: cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise DataError(f"{output}: another process is writing it") from error
        self._read(settings)

    def _read(self, settings: dict[str, Any]) -> None:
        self._file.seek(0)
        kept = 0
        for number, line in enumerate(self._file):
            try:
                row = json.loads(line)
            except ValueError:
                break
            if not line.endswith("\n") or (number == 0 and row != settings):
                break
            kept += len(line.encode())
            if number:
                self.rows[row["uri"]] = row
        # What follows a torn line, or was made with other settings, is of no use.
        self._file.truncate(kept)
        if kept == 0:
            self._write(settings)

    def add(self, row: dict[str, Any]) -> None:
        """Keep one row, at once."""
        self._write(row)

    def _write(self, record: dict[str, Any]) -> None:
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()

    def remove(self) -> None:
        """The corpus is written: the journal is not needed any more."""
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the file; its rows stay."""
        self._file.close()
