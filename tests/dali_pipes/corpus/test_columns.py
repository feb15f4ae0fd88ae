"""Columns are read from the file when they are first asked for."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from make_videos import make_video

from dali_pipes import Corpus, DataError
from dali_pipes.corpus.columns import Columns, joined

SCHEMA = pa.schema([("name", pa.string()), ("count", pa.int64()), ("marks", pa.list_(pa.int64()))])


@pytest.fixture
def table() -> pa.Table:
    rows = [{"name": f"v{i}", "count": i, "marks": [0, i] if i % 3 else None} for i in range(1000)]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


@pytest.fixture
def path(table: pa.Table, tmp_path: Path) -> Path:
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=100)
    return tmp_path / "t.parquet"


def test_a_file_and_a_table_give_the_same_columns_in_one_piece(table: pa.Table, path: Path) -> None:
    columns = Columns(pq.ParquetFile(path), SCHEMA, path)
    assert columns.rows == 1000 and columns.table().equals(table)
    assert all(columns[name].num_chunks == 1 for name in SCHEMA.names)
    assert Columns(table, SCHEMA, None).table().equals(table)


def test_a_column_of_another_width_is_made_what_the_schema_says(table: pa.Table) -> None:
    narrow = table.set_column(1, "count", table.column("count").cast(pa.int32()))
    assert Columns(narrow, SCHEMA, None)["count"].type == pa.int64()


def test_threads_that_ask_at_once_get_the_same_column(path: Path) -> None:
    columns = Columns(pq.ParquetFile(path), SCHEMA, path)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: id(columns["marks"]), range(64)))
    assert len(set(found)) == 1


def test_a_file_written_anew_does_not_change_what_is_open(table: pa.Table, path: Path, tmp_path: Path) -> None:
    columns = Columns(pq.ParquetFile(path), SCHEMA, path)
    pq.write_table(table.slice(0, 3), tmp_path / "new.parquet")
    (tmp_path / "new.parquet").replace(path)
    assert columns.table().equals(table)


def test_a_damaged_column_is_named_with_its_file(path: Path) -> None:
    file = pq.ParquetFile(path)
    chunk = file.metadata.row_group(0).column(1)
    at = chunk.dictionary_page_offset or chunk.data_page_offset
    with path.open("r+b") as handle:
        handle.seek(at)
        handle.write(b"\xff" * chunk.total_compressed_size)
    columns = Columns(pq.ParquetFile(path), SCHEMA, path)
    assert columns["name"][0].as_py() == "v0"
    with pytest.raises(DataError, match=r"t\.parquet: column 'count' is damaged"):
        columns["count"]


def test_an_opened_corpus_reaches_another_process_whole(tmp_path: Path) -> None:
    make_video(tmp_path / "videos" / "a" / "one.avi", codec="mjpeg", frames=5, size=(32, 32))
    corpus = Corpus.build(tmp_path / "videos", "folders", progress=False)
    corpus.save(tmp_path / "c.parquet")
    opened = Corpus.open(tmp_path / "c.parquet")
    again = pickle.loads(pickle.dumps(opened))
    assert again.table.equals(opened.table) and again.fingerprint == opened.fingerprint
    assert again.path == opened.path and again[0].key_frames.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("words", [[], [""], ["", ""], ["a", "", "Fußball", "跳"], ["x" * 1000] * 50])
def test_strings_are_joined_as_python_joins_them(words: list[str]) -> None:
    wanted = "\0".join(words).encode()
    assert joined(pa.chunked_array([pa.array(words, pa.string())])) == wanted
    inside = pa.array(["before", *words, "behind"], pa.string()).slice(1, len(words))
    assert joined(pa.chunked_array([inside])) == wanted
    assert joined(pa.chunked_array([inside, pa.array(["z"])])) == "\0".join([*words, "z"]).encode()


def test_combinations_count_usable_videos_and_name_the_first_row_of_each(tmp_path: Path) -> None:
    for name, codec, size in (
        ("0.avi", "mjpeg", 32),
        ("1.mp4", "h264", 32),
        ("2.avi", "mjpeg", 32),
        ("4.avi", "mjpeg", 48),
    ):
        make_video(tmp_path / "a" / name, codec=codec, frames=3, size=(size, 32))
    (tmp_path / "a" / "3.avi").write_bytes(b"no video")
    corpus = Corpus.build(tmp_path, "folders", progress=False)
    assert len(corpus) == 5 and corpus.usable.tolist() == [True, True, True, False, True]
    assert corpus.combinations(["codec"]) == [(0, 3), (1, 1)]
    assert corpus.combinations(["codec", "width"]) == [(0, 2), (1, 1), (4, 1)]
    assert Corpus(corpus.table.slice(3, 1)).combinations(["codec"]) == []
