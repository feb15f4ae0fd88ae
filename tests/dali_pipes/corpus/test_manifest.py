"""The corpus file and what it answers."""

from __future__ import annotations

import dataclasses
import pickle
import tracemalloc
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dali_pipes.corpus import Corpus
from dali_pipes.corpus.manifest import SCHEMA
from dali_pipes.errors import DataError


def row(name: str, **columns: Any) -> dict[str, Any]:
    usual: dict[str, Any] = dict(
        uri=f"/videos/{name}.mp4", label="", split="", group="", codec="h264", pixel_format="yuv420p", width=340,
        height=256, rotation=0, frames=30, time_base_num=1, time_base_den=15360, start=0, step=512.0, rate=30.0,
        constant=True, key_frames=[0, 12], key_timestamps=[0, 6144], timestamps=None, numbering="pts", uniform=True,
        sliceable=True, duration=1.0, bytes=1000, mtime_ns=1, error="", notes="",
    )  # fmt: skip
    return usual | columns


@pytest.fixture
def corpus() -> Corpus:
    return Corpus.from_rows(
        [
            row("a", label="walk", split="train", group="g1"),
            row("b", label="run", split="train", group="g1", rotation=90),
            row("c", split="test", constant=False, frames=3, timestamps=[0, 512, 2000], key_frames=[0]),
            row("d", label="run", split="test", error="is empty", frames=0, key_frames=[], key_timestamps=[]),
            row("e", label="walk"),
        ]
    )


def test_saved_and_opened_it_is_the_same(corpus: Corpus, tmp_path: Path) -> None:
    corpus.save(tmp_path / "c.parquet")
    opened = Corpus.open(tmp_path / "c.parquet")
    assert opened.table.equals(corpus.table)
    assert opened.fingerprint == corpus.fingerprint
    assert [path.name for path in tmp_path.iterdir()] == ["c.parquet"]


def test_a_video_has_every_column_and_its_row_number(corpus: Corpus) -> None:
    video = corpus[2]
    assert [field.name for field in dataclasses.fields(video)] == ["index", *SCHEMA.names]
    assert (video.index, video.uri, video.frames) == (2, "/videos/c.mp4", 3)
    assert video.timestamps is not None and video.timestamps.tolist() == [0, 512, 2000]
    assert corpus[0].timestamps is None
    assert corpus[0].key_timestamps.tolist() == [0, 6144]
    assert corpus[0].key_frames.dtype == np.int64
    assert corpus[0].time_base == Fraction(1, 15360)
    assert type(video.frames) is int and type(video.rate) is float and type(video.constant) is bool


def test_rows_count_from_the_end_too_and_no_further(corpus: Corpus) -> None:
    assert corpus[-1].index == 4
    assert corpus[np.int64(1)].index == 1
    for beyond in (5, -6):
        with pytest.raises(IndexError, match="the corpus has 5"):
            corpus[beyond]


def test_size_shown_follows_the_rotation(corpus: Corpus) -> None:
    assert (corpus[0].shown_width, corpus[0].shown_height) == (340, 256)
    assert (corpus[1].shown_width, corpus[1].shown_height) == (256, 340)


def test_labels_number_the_sorted_classes(corpus: Corpus) -> None:
    assert corpus.classes == ["run", "walk"]
    assert corpus.labels.tolist() == [1, 0, -1, 0, 1]
    assert corpus.labels.dtype == np.int64


def test_a_video_without_a_group_is_a_group_of_its_own(corpus: Corpus) -> None:
    groups = corpus.groups
    assert groups[0] == groups[1]
    assert len(set(groups.tolist())) == 4


def test_only_usable_videos_are_selected(corpus: Corpus) -> None:
    assert corpus.select().tolist() == [0, 1, 2, 4]
    assert corpus.select("train").tolist() == [0, 1]
    assert corpus.select("test").tolist() == [2]
    with pytest.raises(DataError, match="'val': the corpus has test, train"):
        corpus.select("val")


def test_numeric_columns_are_arrays_that_cannot_be_written_to(corpus: Corpus) -> None:
    assert corpus.frames.tolist() == [30, 30, 3, 0, 30]
    with pytest.raises(ValueError, match="read-only"):
        corpus.frames[0] = 1


def test_the_fingerprint_does_not_depend_on_where_and_when_but_on_what(corpus: Corpus) -> None:
    rows = corpus.table.to_pylist()
    moved = [one | {"uri": one["uri"].replace("/videos", "/elsewhere/deep"), "mtime_ns": 7} for one in rows]
    assert Corpus.from_rows(moved).fingerprint == corpus.fingerprint
    for change in ({"label": "sit"}, {"frames": 29}, {"key_frames": [0, 13]}, {"uri": "/videos/z.mp4"}):
        assert Corpus.from_rows([rows[0] | change, *rows[1:]]).fingerprint != corpus.fingerprint


def test_a_part_of_a_table_gives_its_own_rows(corpus: Corpus) -> None:
    part = Corpus(corpus.table.slice(2, 2))
    assert part[0].uri == "/videos/c.mp4"
    assert part[0].timestamps is not None and part[0].timestamps.tolist() == [0, 512, 2000]
    assert part[0].key_frames.tolist() == [0]


def test_rows_stay_in_arrow_when_a_large_corpus_is_opened(tmp_path: Path) -> None:
    few = pa.Table.from_pylist([row(str(i)) for i in range(1000)], schema=SCHEMA)
    Corpus(pa.concat_tables([few] * 100)).save(tmp_path / "c.parquet")
    corpus = Corpus.open(tmp_path / "c.parquet")
    assert len(corpus) == 100_000
    assert corpus[0].uri == "/videos/0.mp4"
    tracemalloc.start()
    try:
        assert corpus[99_999].uri == "/videos/999.mp4"
        # A Python object for each row, of one column alone, would be 5 MB and more.
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_errors_name_the_file_and_what_would_be_right(tmp_path: Path, corpus: Corpus) -> None:
    with pytest.raises(DataError, match=r"none\.parquet: no such corpus file; `dali-pipes index"):
        Corpus.open(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("hello")
    with pytest.raises(DataError, match="not a Parquet file"):
        Corpus.open(tmp_path / "text.parquet")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(DataError, match="not a corpus"):
        Corpus.open(tmp_path / "other.parquet")
    old = corpus.table.replace_schema_metadata({b"dali_pipes.corpus.version": b"0"})
    pq.write_table(old, tmp_path / "old.parquet")
    with pytest.raises(DataError, match="corpus format 0, this version reads 2; index the folder again"):
        Corpus.open(tmp_path / "old.parquet")
    with pytest.raises(DataError, match="column 'frames' is missing"):
        Corpus(corpus.table.drop_columns(["frames"]))
    with pytest.raises(DataError, match="column 'colour'"):
        corpus.column("colour")


def test_a_folder_given_for_a_corpus_file_says_how_to_index_it(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    with pytest.raises(DataError, match=r"clips is a folder.*`dali-pipes index .*clips -o clips\.parquet`"):
        Corpus.open(tmp_path / "clips")


def test_a_video_that_is_sent_to_another_process_arrives_as_it_is(corpus: Corpus) -> None:
    for video in corpus:
        arrived = pickle.loads(pickle.dumps(video))
        for field in dataclasses.fields(video):
            here, there = getattr(video, field.name), getattr(arrived, field.name)
            assert type(there) is type(here)
            assert np.array_equal(there, here)
