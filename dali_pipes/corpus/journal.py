"""Results kept while an index is being made, so that an interrupted one goes on where it stopped.

One JSON line a video, appended next to the output as soon as the video is probed. It disappears once the corpus itself
is written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dali_pipes.corpus.jsonlines import JsonLines
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
        self.rows: dict[str, dict[str, Any]] = {}
        self._output, self._settings = output, settings
        self._same = False
        try:
            self._lines = JsonLines(output.with_name(output.name + ".partial"), output, self._take)
            if not self._same:
                self._lines.add(settings)
        except OSError as error:
            raise DataError(f"{output}: cannot be written: {error.strerror}") from error

    def _take(self, record: dict[str, Any]) -> bool:
        """Whether a record counts: the settings come first, rows made with others are of no use."""
        if not self._same:
            self._same = record == self._settings
            return self._same
        self.rows[record["uri"]] = record
        return True

    def add(self, row: dict[str, Any]) -> None:
        """Keep one row, at once.

        Raises:
            DataError: It cannot be written.
        """
        try:
            self._lines.add(row)
        except OSError as error:
            raise DataError(f"{self._output}: cannot be written: {error.strerror}") from error

    def remove(self) -> None:
        """The corpus is written: the journal is not needed any more."""
        self._lines.remove()

    def close(self) -> None:
        """Let go of the file; its rows stay."""
        self._lines.close()
