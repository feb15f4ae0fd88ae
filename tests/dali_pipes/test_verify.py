"""Verifying: right videos pass; changed and missing ones and wrong rows are found."""

from __future__ import annotations

from pathlib import Path

import pytest
from make_videos import make_video

from dali_pipes.cli import main
from dali_pipes.corpus import Corpus


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        make_video(tmp_path / "videos" / f"{name}.mp4", frames=40, gop=10, bframes=2)
    Corpus.build(tmp_path / "videos", output=tmp_path / "c.parquet", progress=False, workers=1)
    return tmp_path / "c.parquet"


def verify(path: Path, *options: str) -> int:
    return main(["verify", str(path), "--workers", "1", *options])


def test_right_videos_pass_and_the_table_is_the_same_each_time(corpus: Path, tmp_path: Path) -> None:
    tables = [tmp_path / "1.md", tmp_path / "2.md"]
    assert [verify(corpus, "--deep", "--table", str(table)) for table in tables] == [0, 0]
    assert tables[0].read_text() == tables[1].read_text()
    assert "| a.mp4 |" in tables[0].read_text() and str(tmp_path) not in tables[0].read_text()


def test_changed_and_missing_files_are_found(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_video(corpus.parent / "videos" / "a.mp4", frames=20)
    assert verify(corpus) == 1
    assert "a.mp4: now another file" in capsys.readouterr().out
    (corpus.parent / "videos" / "b.mp4").unlink()
    assert verify(corpus) == 1
    assert "b.mp4: now " in capsys.readouterr().out


@pytest.mark.parametrize("column", ["frames", "key_timestamps", "start"])
def test_wrong_rows_are_found(corpus: Path, column: str) -> None:
    rows = Corpus.open(corpus).table.to_pylist()
    value = rows[0][column]
    step = round(rows[0]["step"])
    shifted = {"frames": 39, "start": rows[0]["start"] + step, "key_timestamps": [*rows[0]["key_timestamps"][1:], 0]}
    assert shifted[column] != value
    rows[0][column] = shifted[column]
    Corpus.from_rows(rows).save(corpus)
    if column == "key_timestamps":  # a late seek is read from the start again on the host, but cannot be cut out
        assert verify(corpus, "--deep") == 1
    else:
        assert verify(corpus) == 1
