"""The columns of a corpus, each read from its file when it is first asked for.

Of a million videos the numbers and names take some hundred megabytes, the lists of key frames as much again. Opening a
corpus reads none of it, and counting its videos or drawing clips reads the few columns that it needs.
"""

from __future__ import annotations

import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dali_pipes.errors import DataError, first_line


class Columns:
    """Columns with the types of a schema, in one piece each.

    Args:
        source: A table, or an open file. The file stays open: a corpus that is written anew under the same name takes
            its place in the folder, not here.
        schema: The columns wanted.
        path: For messages.
    """

    def __init__(self, source: pa.Table | pq.ParquetFile, schema: pa.Schema, path: Path | None) -> None:
        self._source = source
        self._schema = schema
        self._path = path
        self._known: dict[str, pa.ChunkedArray] = {}
        # Threads that decode ask for the same lists at the same moment; they must be read, and kept, once.
        self._lock = threading.Lock()
        self.rows = int(source.num_rows if isinstance(source, pa.Table) else source.metadata.num_rows)

    def __getitem__(self, name: str) -> pa.ChunkedArray:
        """One column.

        Raises:
            DataError: If the file is damaged there.
        """
        column = self._known.get(name)
        if column is None:
            with self._lock:
                column = self._known.get(name)
                if column is None:
                    column = self._known[name] = self._read(name)
        return column

    def _read(self, name: str) -> pa.ChunkedArray:
        if isinstance(self._source, pa.Table):
            column = self._source.column(name)
        else:
            try:
                column = self._source.read(columns=[name]).column(0)
            except (pa.ArrowException, OSError) as error:
                what = f"column {name!r} is damaged ({first_line(error)})"
                raise DataError(f"{self._path}: {what}; index the videos anew") from error
        whole = column.cast(self._schema.field(name).type).combine_chunks()
        return whole if isinstance(whole, pa.ChunkedArray) else pa.chunked_array([whole])

    def table(self) -> pa.Table:
        """All columns."""
        return pa.Table.from_arrays([self[name] for name in self._schema.names], schema=self._schema)


def joined(text: pa.ChunkedArray) -> bytes:
    """The strings in UTF-8 with a zero byte between each two, without a Python object for each."""
    if text.num_chunks != 1 or text.nbytes > 2**30:  # Arrow's own join ends at 2 GiB
        return "\0".join(text.to_pylist()).encode()
    one = pa.ListArray.from_arrays(pa.array([0, len(text)], pa.int32()), text.chunk(0))
    return bytes(pc.binary_join(one, "\0")[0].as_buffer())
