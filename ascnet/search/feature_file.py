"""Files of features, written and read a part at a time.

FEATURES.parquet    row, uri, label, start, speed, feature; what they were made with stands in the metadata
FEATURES.npy        the vectors alone, (N, D) float32, with FEATURES.places.npy (row, start, speed) and FEATURES.json

The second kind can be mapped into memory by whatever reads numpy's format.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ascnet.errors import UserError
from ascnet.files import written_whole
from ascnet.search.parts import PLACE, Part, Parts
from ascnet.search.recipe import Recipe
from dali_pipes import Corpus

_KEY = b"ascnet.features"
# Vectors read at a time.
CHUNK_BYTES = 1 << 26


class FeatureFile:
    """Features on disk.

    Attributes:
        path: The file.
        recipe: What they were made with.
        count: Vectors, N.
        dim: Numbers in a vector, D.
        failed: Why, by address, for videos that are not in it.
    """

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        self.path = path
        self.recipe = Recipe.of(about, str(path))
        self.count, self.dim = int(about["count"]), int(about["dim"])
        self.failed: dict[str, str] = about["failed"]

    @classmethod
    def open(cls, path: str | Path) -> FeatureFile:
        """Open a file that `write` has written.

        Raises:
            UserError: There is none, or it is something else.
        """
        path = Path(path)
        suffix_of(path)
        if not path.is_file():
            raise UserError(f"{path}: no such file of features; `ascnet embed ... -o {path}` makes one")
        try:
            about = _about(path)
            if about is None:
                raise UserError(f"{path}: `ascnet embed` did not write it")
            found = cls(path, about)
            vectors, places = found._sizes()
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{path}: damaged, or not written by `ascnet embed` ({error})") from None
        if vectors != (found.count, found.dim) or places != found.count:
            raise UserError(f"{path}: damaged: {vectors} vectors, where {(found.count, found.dim)} were written")
        return found

    def _sizes(self) -> tuple[tuple[int, ...], int]:
        """Shape of the vectors and number of places, as they are on disk."""
        if self.path.suffix == ".npy":
            places = np.load(_places(self.path), mmap_mode="r", allow_pickle=False)
            if places.dtype != PLACE:
                raise ValueError(f"{_places(self.path)} holds {places.dtype}")
            return np.load(self.path, mmap_mode="r", allow_pickle=False).shape, len(places)
        with pq.ParquetFile(self.path) as file:
            rows = file.metadata.num_rows
            return (rows, file.schema_arrow.field("feature").type.list_size), rows

    def chunks(self) -> Iterator[NDArray[np.float32]]:
        """The vectors, ``(n, D)`` at a time, in order."""
        if self.path.suffix == ".npy":
            vectors = np.load(self.path, mmap_mode="r", allow_pickle=False)
            step = max(1, CHUNK_BYTES // (4 * self.dim))
            for first in range(0, self.count, step):
                yield np.array(vectors[first : first + step])
            return
        with pq.ParquetFile(self.path) as file:
            for number in range(file.num_row_groups):
                column = file.read_row_group(number, columns=["feature"]).column(0).combine_chunks()
                yield column.flatten().to_numpy().reshape(-1, self.dim)

    def vectors(self, first: int, end: int) -> NDArray[np.float32]:
        """Some consecutive vectors, ``(end - first, D)``."""
        if self.path.suffix == ".npy":
            return np.array(np.load(self.path, mmap_mode="r", allow_pickle=False)[first:end])
        found, at = [], 0
        with pq.ParquetFile(self.path) as file:
            for number in range(file.num_row_groups):
                size = file.metadata.row_group(number).num_rows
                if at < end and at + size > first:
                    column = file.read_row_group(number, columns=["feature"]).column(0).combine_chunks()
                    vectors = column.flatten().to_numpy().reshape(-1, self.dim)
                    found.append(vectors[max(first - at, 0) : end - at])
                at += size
        return np.concatenate(found)

    def places(self) -> NDArray[np.void]:
        """Which clip of which video each vector describes, ``(N,)`` of type `PLACE`."""
        if self.path.suffix == ".npy":
            return cast(NDArray[np.void], np.load(_places(self.path), allow_pickle=False))
        found = np.empty(self.count, PLACE)
        table = pq.read_table(self.path, columns=["row", "start", "speed"])
        for name in ("row", "start", "speed"):
            found[name] = table.column(name).to_numpy()
        return found


def suffix_of(path: Path) -> str:
    """The suffix of a file of features.

    Raises:
        UserError: It is neither.
    """
    if path.suffix not in (".parquet", ".npy") or path.name.endswith(".places.npy"):
        raise UserError(f"{path}: a file of features ends in .parquet or .npy")
    return path.suffix


def refuse_to_harm(path: Path) -> None:
    """Make sure that nothing but features is written over.

    Raises:
        UserError: `path` is something else than features, or its folder is not there.
    """
    suffix_of(path)
    if not path.resolve().parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}")
    if path.is_dir():
        raise UserError(f"{path}: a folder; choose another name")
    if not path.exists():
        return
    try:
        known = _about(path) is not None
    except (OSError, ValueError, pa.ArrowException):
        known = False
    if not known:
        raise UserError(f"{path}: would be overwritten, and holds no features; remove it or choose another name")


def write(path: Path, recipe: Recipe, corpus: Corpus, parts: Parts) -> FeatureFile:
    """Make one file of all parts, read one after another; what was there before is replaced at the end.

    Args:
        path: The file.
        recipe: What the features were made with.
        corpus: The videos, for their addresses and labels.
        parts: All of them.

    Raises:
        UserError: No video could be decoded, or a part is damaged.
    """
    numbers = range(len(parts))
    count, dim = 0, 0
    failed: dict[str, str] = {}
    for number in numbers:
        part = parts.load(number)
        count, dim = count + len(part.places), max(dim, part.vectors.shape[1])
        failed |= {corpus[row].uri: why for row, why in part.failed.items()}
    if not count:
        uri, why = next(iter(failed.items()))
        raise UserError(f"none of the {len(parts.rows)} videos could be decoded; the first: {uri}: {why}")
    about = {**recipe.as_dict(), "count": count, "dim": dim, "failed": failed}
    whole = (part for part in map(parts.load, numbers) if len(part.places))
    if path.suffix == ".npy":
        _write_npy(path, about, whole)
    else:
        _write_parquet(path, about, whole, corpus)
    return FeatureFile.open(path)


def _write_npy(path: Path, about: dict[str, Any], parts: Iterable[Part]) -> None:
    # The description gets its name last, and without it nothing is taken for features: old and new never pass for one.
    with (
        written_whole(path.with_suffix(".json")) as for_about,
        written_whole(_places(path)) as for_places,
        written_whole(path) as for_vectors,
    ):
        shape = (about["count"], about["dim"])
        vectors = np.lib.format.open_memmap(for_vectors, mode="w+", dtype=np.float32, shape=shape)
        places = np.lib.format.open_memmap(for_places, mode="w+", dtype=PLACE, shape=shape[:1])
        at = 0
        for part in parts:
            vectors[at : at + len(part.places)] = part.vectors
            places[at : at + len(part.places)] = part.places
            at += len(part.places)
        vectors.flush()
        places.flush()
        for_about.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        path.with_suffix(".json").unlink(missing_ok=True)


def _write_parquet(path: Path, about: dict[str, Any], parts: Iterable[Part], corpus: Corpus) -> None:
    schema = pa.schema(
        [
            ("row", pa.int64()),
            ("uri", pa.string()),
            ("label", pa.string()),
            ("start", pa.int64()),
            ("speed", pa.float32()),
            ("feature", pa.list_(pa.float32(), about["dim"])),
        ],
        metadata={_KEY: json.dumps(about)},
    )
    with written_whole(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for part in parts:
            # Each column straight from numpy: no Python object for a number.
            rows = part.places["row"]
            columns = [
                pa.array(rows),
                pa.array(corpus.column("uri")[rows], pa.string()),
                pa.array(corpus.column("label")[rows], pa.string()),
                pa.array(part.places["start"]),
                pa.array(part.places["speed"]),
                pa.FixedSizeListArray.from_arrays(pa.array(part.vectors.ravel()), about["dim"]),
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def _places(path: Path) -> Path:
    return path.with_name(f"{path.stem}.places.npy")


def _about(path: Path) -> dict[str, Any] | None:
    """What stands with the features; None where nothing does."""
    if path.suffix == ".npy":
        beside = path.with_suffix(".json")
        if not beside.is_file():
            return None
        about = json.loads(beside.read_text(encoding="utf-8"))
        return about if isinstance(about, dict) and "weights" in about else None
    metadata = pq.read_metadata(path).metadata or {}
    return dict(json.loads(metadata[_KEY])) if _KEY in metadata else None
