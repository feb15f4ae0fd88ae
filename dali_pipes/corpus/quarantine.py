"""Videos that a run could not decode, one JSON line each: what loaders append and the next index reads.

A line holds ``uri``, ``reason``, ``bytes`` and ``mtime_ns`` (of the file as it was indexed) and ``when`` (UTC).
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dali_pipes.corpus.probe import Probed
from dali_pipes.corpus.storage import Stat
from dali_pipes.errors import DataError

# How the error of a row begins that was not probed because it is listed; such a row is never taken over.
PREFIX = "quarantined: "


class Quarantined:
    """The lines of a quarantine file.

    Args:
        path: The file; a missing one is an empty one, for the first index comes before the first run.

    Attributes:
        warnings: What is odd about the file, in words.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.warnings: list[str] = []
        self._known: dict[tuple[str, int, int], str] = {}
        self._uris: set[str] = set()
        try:
            lines = Path(path).read_bytes().splitlines()
        except FileNotFoundError:
            self.warnings.append(f"{path}: no such quarantine file; nothing is quarantined")
            return
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
        torn = 0
        for line in lines:
            try:
                entry = json.loads(line)
                self._known[entry["uri"], entry["bytes"], entry["mtime_ns"]] = str(entry["reason"])
                self._uris.add(entry["uri"])
            except (ValueError, KeyError, TypeError):
                torn += bool(line.strip())
        if torn:
            self.warnings.append(f"{path}: {torn} lines are no quarantine entries and are passed over")

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, uri: str) -> bool:
        return uri in self._uris

    def row(self, uri: str, state: Stat | None) -> dict[str, Any] | None:
        """The row of a quarantined video; None where it is free.

        Args:
            uri: Path or address.
            state: Its size and modification time as they are now; None where they are not known.
        """
        if state is None:
            return None
        reason = self._known.get((uri, state.bytes, state.mtime_ns))
        if reason is None:
            return None
        return asdict(
            Probed(uri, bytes=state.bytes, mtime_ns=state.mtime_ns, offset=state.offset, error=PREFIX + reason)
        )
