"""Single cells read from Arrow's memory: the same as what Arrow itself makes of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dali_pipes.corpus.cells import reader

COLUMNS: dict[str, tuple[pa.DataType, list[Any]]] = {
    "numbers": (pa.int64(), [3, -(2**62), 0, 7]),
    "fractions": (pa.float64(), [0.1, -2.5, 1e300, 0.0]),
    "yes or no": (pa.bool_(), [True, False, False, True]),
    "text": (pa.string(), ["a", "", "Z\u00fcrich \u97f3\u697d", "d" * 1000]),
    "empty text": (pa.string(), ["", "", "", ""]),
    "lists": (pa.list_(pa.int64()), [[1, 2], [], [5], list(range(100))]),
    "numbers, some missing": (pa.int64(), [3, None, 0, 7]),
    "text, some missing": (pa.string(), ["a", None, "c", ""]),
    "lists, some missing": (pa.list_(pa.int64()), [[1, 2], None, [], [4]]),
    "lists, all missing": (pa.list_(pa.int64()), [None, None, None, None]),
}


def equal(cell: Any, wanted: Any) -> bool:
    if isinstance(wanted, list):
        return isinstance(cell, np.ndarray) and cell.dtype == np.int64 and cell.tolist() == wanted
    return type(cell) is type(wanted) and bool(cell == wanted)


@pytest.mark.parametrize("name", COLUMNS)
def test_a_cell_is_what_arrow_says(name: str) -> None:
    kind, values = COLUMNS[name]
    read = reader(pa.chunked_array([pa.array(values, kind)]))
    assert all(equal(read(i), value) for i, value in enumerate(values))


@pytest.mark.parametrize("name", COLUMNS)
def test_a_part_of_a_column_begins_with_its_own_first_cell(name: str) -> None:
    kind, values = COLUMNS[name]
    read = reader(pa.chunked_array([pa.array(values, kind).slice(1, 3)]))
    assert all(equal(read(i), value) for i, value in enumerate(values[1:]))


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_in_pieces_is_read_across_them(name: str) -> None:
    kind, values = COLUMNS[name]
    read = reader(pa.chunked_array([pa.array(values[:2], kind), pa.array(values[2:], kind)]))
    assert all(equal(read(i), value) for i, value in enumerate(values))
