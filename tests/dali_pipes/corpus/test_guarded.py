"""Files probed on the spot: a row for each, whatever is wrong with it, and none takes this process down."""

from __future__ import annotations

from pathlib import Path

import pytest
from make_videos import make_video

from dali_pipes import VideoError, probe_videos


def test_each_file_gets_a_row_in_the_order_asked_for(tmp_path: Path) -> None:
    good = make_video(tmp_path / "good.mkv", codec="mjpeg", frames=9, size=(64, 48))
    assert good is not None
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    uris = [str(tmp_path / "bad.mp4"), str(tmp_path / "good.mkv")]
    corpus = probe_videos(uris, workers=1)
    assert [video.uri for video in corpus] == uris
    assert corpus[0].error and not corpus[1].error and corpus[1].frames == 9


def test_limits_are_told_as_the_reason(tmp_path: Path) -> None:
    make_video(tmp_path / "long.mkv", codec="mjpeg", frames=30, size=(64, 48))
    uri = str(tmp_path / "long.mkv")
    assert "more than 20" in probe_videos([uri], max_frames=20, workers=1)[0].error
    assert probe_videos([uri], max_side=32, workers=1)[0].error
    assert "longer than 0.001 s" in probe_videos([uri], timeout=0.001, thorough=True, workers=1)[0].error


def test_a_file_that_is_not_there_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="nowhere"):
        probe_videos([str(tmp_path / "nowhere.mp4")])
