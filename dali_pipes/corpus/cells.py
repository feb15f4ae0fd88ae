"""Single cells of a column, read from Arrow's own memory.

A loader asks for one row at a time. Arrow makes an object for each cell on the way, and takes several times as long,
the more so with a processor whose caches are full of pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa


def reader(column: pa.ChunkedArray) -> Callable[[int], Any]:
    """A function from a row number to the cell: int, float, bool, str, numpy array (a list), or None where it is null.

    Args:
        column: Of numbers, text or lists of numbers. Quick in one piece, as a corpus has them; else Arrow is asked.
    """
    if column.num_chunks != 1:
        return lambda row: _plain(column[row])
    array = column.chunk(0)
    if pa.types.is_list(array.type):
        return _lists(array)
    if array.null_count:
        return lambda row: _plain(array[row])
    if pa.types.is_string(array.type):
        return _texts(array)
    return array.to_numpy(zero_copy_only=False).item


def _plain(cell: pa.Scalar) -> Any:
    if pa.types.is_list(cell.type):
        return cell.values.to_numpy(zero_copy_only=False) if cell.is_valid else None
    return cell.as_py()


def _lists(array: pa.ListArray) -> Callable[[int], np.ndarray | None]:
    offsets, values = array.offsets.to_numpy(), array.values.to_numpy(zero_copy_only=False)
    if array.null_count == len(array):
        return lambda row: None
    valid = array.is_valid().to_numpy(zero_copy_only=False) if array.null_count else None

    def read(row: int) -> np.ndarray | None:
        if valid is not None and not valid.item(row):
            return None
        return values[offsets.item(row) : offsets.item(row + 1)]

    return read


def _texts(array: pa.StringArray) -> Callable[[int], str]:
    _, ends, letters = array.buffers()
    offsets = np.frombuffer(ends, np.int32)[array.offset :]
    memory = memoryview(letters)

    def read(row: int) -> str:
        return str(memory[offsets.item(row) : offsets.item(row + 1)], "utf-8")

    return read
