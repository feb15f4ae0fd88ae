"""From time stamps to frame numbers and back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from loader_checks import corpus_of
from make_videos import decode_all, make_video

from dali_pipes import Video
from dali_pipes.decode.numbering import numberer


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Video:
    return corpus_of([make_video(tmp_path_factory.mktemp("numbers") / "v.mp4", frames=30, size=(64, 64))])[0]


def test_decoded_frames_are_numbered_by_their_time_stamps(video: Video) -> None:
    assert [numberer(video)(frame.pts) for frame in decode_all(video.uri)] == list(range(30))


def test_time_stamps_rounded_to_coarse_ticks_still_number_frames(video: Video) -> None:
    # 30000/1001 frames/s in milliseconds, as Matroska stores it.
    rounded = replace(video, start=33, step=1001 / 30, frames=100_000)
    for number in (0, 1, 2, 59, 60, 61, 99_999):
        assert numberer(rounded)(33 + round(number * 1001 / 30)) == number


def test_what_has_no_frame_has_the_number_minus_one(video: Video) -> None:
    assert numberer(video)(None) == -1
    assert numberer(video)(video.start - round(video.step)) == -1
    assert numberer(video)(video.start + 30 * round(video.step)) == -1


def test_a_variable_rate_is_numbered_by_exact_time_stamps(video: Video) -> None:
    uneven = replace(video, constant=False, frames=4, timestamps=np.array([-5, 0, 90, 100], np.int64))
    assert [numberer(uneven)(pts) for pts in (-5, 0, 90, 100)] == [0, 1, 2, 3]
    assert [numberer(uneven)(pts) for pts in (-6, 1, 99, 101)] == [-1] * 4


def test_a_single_frame_has_no_step(video: Video) -> None:
    single = replace(video, frames=1, step=0.0, start=12)
    assert [numberer(single)(pts) for pts in (11, 12, 13)] == [-1, 0, -1]
