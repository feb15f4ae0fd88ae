"""Frames of one video in any order, on the host."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from loader_checks import corpus_of, pictures
from make_videos import make_video

from dali_pipes import Corpus, DataError, VideoError, read_frames

pytest_plugins = ["loader_fixtures"]


def test_any_order_with_repeats_equals_a_sequential_decode(zoo: Corpus) -> None:
    order = [59, 3, 3, 40, 0, 17, 59]
    for video in zoo:
        assert np.array_equal(read_frames(zoo, video.index, order), pictures(video.uri)[order]), video.uri


def test_short_side_scales_down_and_keeps_the_aspect(tmp_path: Path) -> None:
    corpus = corpus_of([make_video(tmp_path / "wide.mp4", frames=3, size=(160, 96))])
    assert read_frames(corpus, 0, [1], short_side=48).shape == (1, 48, 80, 3)
    assert read_frames(corpus, 0, [1], short_side=500).shape == (1, 96, 160, 3)


def test_no_frames_asked_for_gives_none(zoo: Corpus) -> None:
    assert read_frames(zoo, 0, []).shape == (0, 96, 96, 3)


@pytest.mark.parametrize("indices", [[60], [-1], [0, 5, 1000]])
def test_frames_outside_the_video_are_refused_with_its_name_and_range(zoo: Corpus, indices: list[int]) -> None:
    with pytest.raises(DataError, match=r"vp9\.webm.*it has 0\.\.59"):
        read_frames(zoo, 0, indices)


def test_a_video_marked_as_unusable_is_refused_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_bytes(b"not a video")
    corpus = corpus_of([tmp_path / "text.mp4"])
    with pytest.raises(VideoError, match=r"text\.mp4") as caught:
        read_frames(corpus, 0, [0])
    assert caught.value.reason == corpus[0].error
