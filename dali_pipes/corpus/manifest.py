"""The corpus: one Parquet row per video, with all that sampling and decoding need to know about it.

The columns and their meaning are in docs/corpus.md. Rows stay in Arrow and numpy: opening a corpus of a million videos
builds no Python object per row, and `corpus[i]` makes one `Video` when it is asked for.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dali_pipes.corpus.cells import reader
from dali_pipes.corpus.columns import Columns, joined
from dali_pipes.corpus.listing import Listing
from dali_pipes.errors import DataError, first_line
from dali_pipes.writing import replacing

VERSION = 2
_VERSION_KEY = b"dali_pipes.corpus.version"
_LISTING_KEY = b"dali_pipes.corpus.listing"

SCHEMA = pa.schema(
    [
        ("uri", pa.string()),
        ("label", pa.string()),
        ("split", pa.string()),
        ("group", pa.string()),
        ("codec", pa.string()),
        ("pixel_format", pa.string()),
        ("width", pa.int64()),
        ("height", pa.int64()),
        ("rotation", pa.int64()),
        ("frames", pa.int64()),
        ("time_base_num", pa.int64()),
        ("time_base_den", pa.int64()),
        ("start", pa.int64()),
        ("step", pa.float64()),
        ("rate", pa.float64()),
        ("constant", pa.bool_()),
        ("key_frames", pa.list_(pa.int64())),
        ("key_timestamps", pa.list_(pa.int64())),
        ("timestamps", pa.list_(pa.int64())),
        ("numbering", pa.string()),
        ("uniform", pa.bool_()),
        ("sliceable", pa.bool_()),
        ("duration", pa.float64()),
        ("bytes", pa.int64()),
        ("offset", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("error", pa.string()),
        ("notes", pa.string()),
    ],
    metadata={_VERSION_KEY: str(VERSION).encode()},
)
# What a corpus is, apart from where its files lie and when they were copied there.
_CONTENT: tuple[str, ...]
_CONTENT = ("label", "split", "group", "codec", "pixel_format", "numbering", "width", "height", "rotation", "frames")
_CONTENT += ("time_base_num", "time_base_den", "start", "step", "constant", "uniform", "sliceable", "bytes")


@dataclass(frozen=True, eq=False)
class Video:
    """One row of a corpus.

    Attributes:
        index: Row number in the corpus.
        uri: Absolute path, address, or ``tar://MEMBER::SHARD`` (docs/storage.md).
        label: Class name, "" where unknown.
        split: "train", "test", "val" or "".
        group: Videos of one group are cut from one recording or show one person; "" where unknown.
        codec: FFmpeg's codec name (h264, hevc, vp9, av1, mpeg4, mjpeg, ...).
        pixel_format: FFmpeg's name of the decoded pixel format.
        width: Of the decoded picture, pixels, before rotation.
        height: Of the decoded picture, pixels, before rotation.
        rotation: Degrees clockwise that show the picture upright: 0, 90, 180 or 270.
        frames: Number of frames that a sequential decode yields.
        time_base_num: Seconds per tick, numerator.
        time_base_den: Seconds per tick, denominator.
        start: Time stamp of frame 0, ticks.
        step: Mean ticks per frame.
        rate: Average frames/s.
        constant: Whether frame i lies at `start + i * step`, to within max(1 tick, 5 % of a step).
        key_frames: Display numbers of the frames where decoding can start, ascending, the first one 0; int64 (K,).
        key_timestamps: Time stamps to seek to for these, ticks; int64 (K,).
        timestamps: Time stamp of every frame, ascending, int64 (frames,); None where `constant`.
        numbering: "pts": a decoded frame's number follows from its time stamp; "count": only by counting from a key
            frame on.
        uniform: Whether all frames have one size and pixel format, as far as the packets tell.
        sliceable: Whether every packet shows one frame and says which, so that a run of packets cut out of the video
            decodes to the frames it holds and to no others.
        duration: Seconds.
        bytes: Size of the video file.
        offset: Byte where it begins in its tar shard; -1 where it is a file of its own.
        mtime_ns: Modification time of the file, or of the shard, nanoseconds; for remote files without one a number
            made of their ETag, else 0.
        error: Why the video cannot be used; "" where it can.
        notes: What is unusual about it, in words; "" where nothing is.
    """

    index: int
    uri: str
    label: str
    split: str
    group: str
    codec: str
    pixel_format: str
    width: int
    height: int
    rotation: int
    frames: int
    time_base_num: int
    time_base_den: int
    start: int
    step: float
    rate: float
    constant: bool
    key_frames: np.ndarray
    key_timestamps: np.ndarray
    timestamps: np.ndarray | None
    numbering: str
    uniform: bool
    sliceable: bool
    duration: float
    bytes: int
    offset: int
    mtime_ns: int
    error: str
    notes: str

    def __reduce__(self) -> tuple[Any, ...]:
        # Numpy's own way takes several times as long for arrays as short as these, and a video is sent for each clip.
        return _unpacked, tuple(_packed(cell) for cell in vars(self).values())

    @property
    def time_base(self) -> Fraction:
        """Seconds per tick."""
        return Fraction(self.time_base_num, self.time_base_den)

    @property
    def shown_width(self) -> int:
        """Width after rotation, pixels."""
        return self.height if self.rotation in (90, 270) else self.width

    @property
    def shown_height(self) -> int:
        """Height after rotation, pixels."""
        return self.width if self.rotation in (90, 270) else self.height


def _packed(cell: Any) -> Any:
    return np.asarray(cell, np.int64).tobytes() if isinstance(cell, np.ndarray) else cell


def _unpacked(*cells: Any) -> Video:
    unpacked: list[Any] = [np.frombuffer(cell, np.int64) if isinstance(cell, bytes) else cell for cell in cells]
    return Video(*unpacked)


class Corpus(Sequence[Video]):
    """The videos that there are, with their labels and splits.

    Args:
        table: Rows with the columns of `SCHEMA`, or a file of them, read column by column when they are needed.
        path: The file that the rows come from, for messages; None where they come from none.

    Attributes:
        listing: What the official lists name beside what is there; None where there were no lists. It stands in the
            metadata of the rows.
    """

    def __init__(self, table: pa.Table | pq.ParquetFile, path: Path | None = None) -> None:
        schema = table.schema if isinstance(table, pa.Table) else table.schema_arrow
        missing = [name for name in SCHEMA.names if name not in schema.names]
        if missing:
            raise DataError(f"{path or 'corpus'}: not a corpus: column {missing[0]!r} is missing")
        self._arrow = Columns(table, SCHEMA, path)
        self.path = path
        self.listing = Listing.loads((schema.metadata or {}).get(_LISTING_KEY))
        self._columns: dict[str, np.ndarray] = {}

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Corpus:
        """Read a corpus file.

        Raises:
            DataError: The file is missing, is no Parquet file, or was written in another format version.
        """
        path = Path(path)
        if path.is_dir():
            name = f"{path.resolve().name or 'corpus'}.parquet"
            raise DataError(f"{path} is a folder, not a corpus file; `dali-pipes index {path} -o {name}` makes one")
        if not path.is_file():
            raise DataError(f"{path}: no such corpus file; `dali-pipes index FOLDER -o {path}` makes one")
        try:
            file = pq.ParquetFile(path)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path}: not a Parquet file ({first_line(error)})") from error
        version = (file.schema_arrow.metadata or {}).get(_VERSION_KEY)
        if version is None:
            raise DataError(f"{path}: not a corpus: `dali-pipes index` did not write it")
        if version != str(VERSION).encode():
            raise DataError(
                f"{path}: corpus format {version.decode()}, this version reads {VERSION}; index the folder again"
            )
        return cls(file, path)

    @classmethod
    def build(
        cls,
        root: str | os.PathLike[str],
        layout: str = "folders",
        *,
        output: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> Corpus:
        """Index a folder of videos; see `dali_pipes.corpus.build.build` for the options."""
        from dali_pipes.corpus.build import build

        return build(root, layout, output=output, **options)

    @classmethod
    def from_rows(cls, rows: Sequence[Mapping[str, Any]]) -> Corpus:
        """Make a corpus of dictionaries with the columns as keys; without `offset`, a video is a file of its own."""
        return cls(pa.Table.from_pylist([{"offset": -1, **row} for row in rows], schema=SCHEMA))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the corpus; the file appears whole or not at all."""
        with replacing(path) as temporary:
            pq.write_table(self.table, temporary, compression="zstd")

    @property
    def table(self) -> pa.Table:
        """All rows and columns."""
        table = self._arrow.table()
        if self.listing is None:
            return table
        return table.replace_schema_metadata({**SCHEMA.metadata, _LISTING_KEY: self.listing.dumps()})

    def with_listing(self, listing: Listing | None) -> Corpus:
        """The same rows, with what official lists name beside them."""
        corpus = type(self)(self.table, self.path)
        corpus.listing = listing
        return corpus

    def __reduce__(self) -> tuple[Any, ...]:
        # An open file cannot be sent to another process.
        return type(self), (self.table, self.path)

    def __len__(self) -> int:
        return self._arrow.rows

    def __iter__(self) -> Iterator[Video]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Video:  # type: ignore[override]
        """The video in a row (negative numbers count from the end)."""
        row = int(index)
        if not -len(self) <= row < len(self):
            raise IndexError(f"video {index}: the corpus has {len(self)}")
        row %= len(self)
        return Video(row, *[cell(row) for cell in self._cells])

    @cached_property
    def _cells(self) -> list[Callable[[int], Any]]:
        return [reader(self._arrow[field.name]) for field in fields(Video)[1:]]

    def column(self, name: str) -> np.ndarray:
        """A whole column, (N,): numbers as int64, float64 or bool, text as objects."""
        if name not in self._columns:
            if name not in SCHEMA.names:
                raise DataError(f"column {name!r}: a corpus has {', '.join(SCHEMA.names)}")
            values = self._arrow[name]
            # Of a single chunk numpy can look at Arrow's own memory.
            array = values.chunk(0).to_numpy(zero_copy_only=False) if values.num_chunks == 1 else values.to_numpy()
            array.flags.writeable = False
            self._columns[name] = array
        return self._columns[name]

    @property
    def frames(self) -> np.ndarray:
        """Frames of each video, int64 (N,)."""
        return self.column("frames")

    @property
    def rate(self) -> np.ndarray:
        """Average frames/s of each video, float64 (N,)."""
        return self.column("rate")

    @property
    def duration(self) -> np.ndarray:
        """Seconds of each video, float64 (N,)."""
        return self.column("duration")

    @property
    def step(self) -> np.ndarray:
        """Ticks per frame of each video, float64 (N,)."""
        return self.column("step")

    @property
    def start(self) -> np.ndarray:
        """Time stamp of each video's frame 0, int64 (N,)."""
        return self.column("start")

    @property
    def width(self) -> np.ndarray:
        """Decoded width of each video, pixels before rotation, int64 (N,)."""
        return self.column("width")

    @property
    def height(self) -> np.ndarray:
        """Decoded height of each video, pixels before rotation, int64 (N,)."""
        return self.column("height")

    @property
    def constant(self) -> np.ndarray:
        """Whether each video has a constant frame rate, bool (N,)."""
        return self.column("constant")

    @cached_property
    def usable(self) -> np.ndarray:
        """Videos that can be sampled: no error and at least one frame, bool (N,)."""
        return np.asarray(pc.equal(self._arrow["error"], "").to_numpy() & (self.frames > 0), dtype=np.bool_)

    @cached_property
    def classes(self) -> list[str]:
        """Names of the classes, sorted."""
        return _distinct(self._arrow["label"])

    @cached_property
    def labels(self) -> np.ndarray:
        """Number of each video's class in `classes`, -1 where unknown, int64 (N,)."""
        found = pc.index_in(self._arrow["label"], pa.array(self.classes, pa.string()))
        return pc.fill_null(found, -1).to_numpy().astype(np.int64)

    @cached_property
    def groups(self) -> np.ndarray:
        """Group number of each video, int64 (N,); a video without a group has a number of its own."""
        names = self._arrow["group"]
        known = _distinct(names)
        found = pc.fill_null(pc.index_in(names, pa.array(known, pa.string())), -1).to_numpy().astype(np.int64)
        alone = found < 0
        found[alone] = len(known) + np.arange(int(alone.sum()))
        return found

    @cached_property
    def splits(self) -> list[str]:
        """Names of the splits that occur, sorted, without ""."""
        return _distinct(self._arrow["split"])

    def select(self, split: Literal["train", "test", "val"] | str | None = None) -> np.ndarray:
        """Row numbers of the usable videos, int64 (n,).

        Args:
            split: Only those of this split; None for all.

        Raises:
            DataError: No video has that split.
        """
        if split is None:
            return np.flatnonzero(self.usable).astype(np.int64)
        if split not in self.splits:
            raise DataError(f"split {split!r}: {self.path or 'the corpus'} has {', '.join(self.splits) or 'no splits'}")
        return np.flatnonzero(self.usable & pc.equal(self._arrow["split"], split).to_numpy()).astype(np.int64)

    def combinations(self, names: Sequence[str]) -> list[tuple[int, int]]:
        """First row and number of the usable videos of each combination of values in some columns, by row."""
        table = pa.table({**{name: self._arrow[name] for name in names}, "row": pa.array(np.arange(len(self)))})
        groups = table.filter(pa.array(self.usable)).group_by(list(names))
        found = groups.aggregate([("row", "min"), ("row", "count")])
        return sorted(zip(found["row_min"].to_pylist(), found["row_count"].to_pylist(), strict=True))

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that tell corpora apart by content, wherever and whenever files were copied."""
        digest = hashlib.sha256(str(VERSION).encode())
        # Only base names: the same videos under another root are the same corpus.
        names = pc.replace_substring_regex(self._arrow["uri"], r"^tar://(.*)::.*$", r"\1")
        names = pc.replace_substring_regex(names, r"^.*/", "")
        usable = self.usable.tobytes()
        for text in (names, *(self._arrow[name] for name in _CONTENT if SCHEMA.field(name).type == pa.string())):
            digest.update(joined(text))
        for name in _CONTENT:
            if SCHEMA.field(name).type != pa.string():
                digest.update(self.column(name).data)
        for name in ("key_frames", "key_timestamps", "timestamps"):
            for chunk in self._arrow[name].chunks:
                digest.update(chunk.flatten().to_numpy(zero_copy_only=False))
        digest.update(usable)
        return digest.hexdigest()[:16]


def _distinct(column: pa.ChunkedArray) -> list[str]:
    return sorted(name for name in pc.unique(column).to_pylist() if name)
