"""Verifying: right videos pass; changed and missing ones and wrong rows are found."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from make_videos import make_video
from storage_servers import http_server, make_tar

from dali_pipes.cli import main
from dali_pipes.corpus import Corpus
from dali_pipes.corpus.storage import StorageOptions, configure_storage


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


def test_folder_list_shard_and_single_file_are_verified_as_they_are(corpus: Path, tmp_path: Path) -> None:
    videos = sorted((tmp_path / "videos").iterdir())
    (tmp_path / "list.txt").write_text("".join(f"videos/{path.name}\twalk\n" for path in videos))
    make_tar(tmp_path / "shards" / "0.tar", {path.name: path for path in videos})
    expected = {"videos": 2, "list.txt": 2, "shards/0.tar": 2, "shards": 2, "videos/b.mp4": 1}
    for root, count in expected.items():
        assert verify(tmp_path / root, "--quiet", "--output", str(tmp_path / "o.json")) == 0
        outcomes = json.loads((tmp_path / "o.json").read_text())
        assert [one["outcome"] for one in outcomes] == ["right"] * count, root


def test_videos_behind_http_are_verified(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with http_server(tmp_path) as server:
        assert main(["verify", f"{server.url}videos", "--workers", "1"]) == 0
        assert "videos   2: right 2" in capsys.readouterr().out
        assert main(["verify", f"{server.url}videos/a.mp4", "--workers", "1"]) == 0
        assert "videos   1: right 1" in capsys.readouterr().out
        assert main(["verify", f"{server.url}videos/c.mp4", "--workers", "1"]) == 2
        assert "c.mp4: no such file" in capsys.readouterr().err
    configure_storage(StorageOptions(timeout=2, retries=0))
    try:
        # Listed before, so that only the videos are asked for; and a server that was never there.
        assert main(["verify", f"{server.url}videos", "--workers", "1", "--quiet"]) == 1
        assert capsys.readouterr().out.count("now server lost after 1 try") == 2
        assert main(["verify", "http://127.0.0.1:9/videos/"]) == 1
    finally:
        configure_storage(None)
    assert "server lost after 1 try" in (error := capsys.readouterr().err) and error.count("\n") == 1


def test_a_shard_that_changed_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shard = make_tar(tmp_path / "0.tar", {"a.mp4": make_video(tmp_path / "a.mp4", frames=20)})
    Corpus.build(shard, output=tmp_path / "c.parquet", progress=False, workers=1)
    os.utime(shard, (1, 1))
    assert verify(tmp_path / "c.parquet") == 1
    assert "a.mp4::" in (out := capsys.readouterr().out) and "now in another shard" in out


def test_a_sample_is_spread_over_the_corpus(tmp_path: Path) -> None:
    for name in "abcde":
        make_video(tmp_path / "videos" / f"{name}.mp4", frames=8)
    assert verify(tmp_path / "videos", "--sample", "3", "--output", str(tmp_path / "o.json")) == 0
    outcomes = json.loads((tmp_path / "o.json").read_text())
    assert [one["uri"][-5:] for one in outcomes] == ["a.mp4", "c.mp4", "e.mp4"]


def test_a_folder_to_write_to_that_is_missing_is_said_before_the_work(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(corpus, "--output", str(tmp_path / "none" / "o.json")) == 2
    error = capsys.readouterr().err
    assert "there is no folder" in error and "verify:" not in error
