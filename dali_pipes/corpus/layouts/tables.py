"""Text files of lists, and tables with a header line that are read by the names of their columns."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dali_pipes.errors import DataError

_DELIMITERS = (",", ";", "\t")


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        path: Where it comes from, for messages.
        columns: Names of the columns, in lower case.
        rows: Line number and cells, stripped; as many cells as there are columns.
    """

    path: str
    columns: list[str]
    rows: list[tuple[int, list[str]]]

    def column(self, names: Sequence[str]) -> int | None:
        """Place of the first of some names among the columns; None where there is none."""
        return next((self.columns.index(name) for name in names if name in self.columns), None)


def parse_table(text: str, path: str) -> Table:
    """Read a table whose cells are separated by commas, semicolons or tabs, whichever the header has most of.

    Raises:
        DataError: It is empty, or a line has another number of cells than the header.
    """
    lines = text.splitlines()
    header = next((line for line in lines if line.strip()), "")
    if not header:
        raise DataError(f"{path}: the table is empty")
    delimiter = max(_DELIMITERS, key=header.count)
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    columns: list[str] = []
    rows = []
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if not any(stripped):
                continue
            if not columns:
                columns = [name.lower() for name in stripped]
            elif len(stripped) != len(columns):
                counts = f"{len(stripped)} cells, the header has {len(columns)}"
                raise DataError(f"{path}: line {reader.line_num}: {counts}")
            else:
                rows.append((reader.line_num, stripped))
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: {error}") from error
    return Table(path, columns, rows)


def read_text(path: Path) -> str:
    """A text file, whose encoding must be UTF-8.

    Raises:
        DataError: It cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8") from error
