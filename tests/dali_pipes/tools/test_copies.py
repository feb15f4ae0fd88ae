"""`dali-pipes inspect --cache`: whether a cache has a copy of a video, and whether a file is a copy itself."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from make_videos import make_video

from dali_pipes import Corpus, Video, VideoCache
from dali_pipes.cli import main


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Video:
    folder = tmp_path_factory.mktemp("videos")
    make_video(folder / "a.mp4", frames=60, gop=60, size=(192, 160))
    return Corpus.build(folder, progress=False)[0]


@pytest.fixture(scope="module")
def cached(video: Video, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Video]:
    """A cache for clips of 112 pixels, and the copy in it."""
    cache = VideoCache.for_clips(tmp_path_factory.mktemp("cache"), 112, share=1.0)
    cache.copy_of(video)
    assert cache.wait(30)
    copy = cache.find(video)
    cache.close()
    assert copy is not None
    return cache.folder, copy


def inspected(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    assert main(["inspect", *map(str, arguments), "--json"]) == 0
    return dict(json.loads(capsys.readouterr().out))


def printed(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert main(["inspect", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def test_a_copy_in_the_cache_is_described_and_the_video_itself_is_drawn(
    video: Video, cached: tuple[Path, Video], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, copy = cached
    report = inspected(capsys, video.uri, "--cache", folder)
    assert report["cache"] == {
        "copy_of": None,
        "folder": str(folder),
        "size": 112,
        "status": "copied",
        "copy": {"uri": copy.uri, "bytes": copy.bytes, "width": 154, "height": 128, "frames": 60, "gop": 8},
    }
    assert report["gop"]["key_frames"] == [0] and report["height"] == 160, "of the video itself"
    text = printed(capsys, video.uri, "--cache", folder)
    assert "later visits read" in text and copy.uri in text
    assert f"{copy.bytes} bytes, 154 x 128, 60 frames, a key frame every 8" in text
    assert "drawn above   the video itself" in text


def test_a_file_of_a_cache_says_that_it_is_a_copy_and_of_what(
    video: Video, cached: tuple[Path, Video], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, copy = cached
    text = printed(capsys, copy.uri)
    assert f"kind          a copy in a cache, of {video.uri}" in text and "drawn above   this file" in text
    report = inspected(capsys, copy.uri, "--cache", folder)
    assert (report["cache"]["copy_of"], report["cache"]["status"]) == (video.uri, "not needed")
    assert len(report["gop"]["key_frames"]) == 8


def test_copies_for_other_clips_and_of_other_files_are_not_taken_for_this_one(
    video: Video, cached: tuple[Path, Video], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = cached
    assert inspected(capsys, video.uri, "--cache", folder, "--size", "96")["cache"]["status"] == "absent"
    other = tmp_path / "a.mp4"
    other.write_bytes(Path(video.uri).read_bytes())
    text = printed(capsys, other, "--cache", folder)
    assert "no copy for clips of 112 pixels; a visit queues one, unless the cache is full" in text
    assert "the video itself, no copy in a cache" in text


def test_what_is_cheap_already_needs_no_copy_and_it_says_so(
    tmp_path: Path, cached: tuple[Path, Video], capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_video(tmp_path / "a.mp4", frames=32, gop=8, size=(128, 128))
    assert "as cheap to decode as its copy" in printed(capsys, path, "--cache", cached[0])


def test_without_a_cache_a_raw_video_is_reported_as_before(video: Video, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, video.uri)
    assert "cache" not in text and "drawn" not in text


def test_looking_changes_nothing_in_the_cache(
    video: Video, cached: tuple[Path, Video], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, copy = cached
    os.utime(copy.uri, (1000, 1000))

    def state() -> list[tuple[str, int, int]]:
        return sorted((str(p), p.stat().st_mtime_ns, p.stat().st_size) for p in folder.rglob("*"))

    before = state()
    inspected(capsys, video.uri, "--cache", folder)
    inspected(capsys, video.uri, "--cache", folder, "--size", "64")
    assert state() == before


def test_mistakes_with_the_cache_are_one_line_and_exit_code_2(
    video: Video, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, words in (
        (["--cache", str(tmp_path / "none")], "none: no such folder"),
        (["--cache", str(tmp_path), "--size", "0"], "--size 0: must be at least 1"),
        (["--size", "112"], "give --cache DIR with it"),
    ):
        assert main(["inspect", video.uri, *arguments]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1
    assert not (tmp_path / "none").exists()
