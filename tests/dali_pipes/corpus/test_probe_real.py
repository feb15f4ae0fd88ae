"""The probe on real and on broken files, beside a full decode of each."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from seeking import full_decode, wrong_key_frames

from dali_pipes.corpus import Corpus, Video
from dali_pipes.corpus.files import PATTERNS, find_videos
from dali_pipes.corpus.probe import probe_row

FOLDERS = ("ucf101", "hmdb51", "misc", "kinetics400", "weizmann", "odd")
# Files that a sequential decode gives some frames of and then fails in the middle, with more packets to come.
BROKEN_IN_THE_MIDDLE = {"decord__corrupted.mp4"}


@pytest.fixture(autouse=True)
def quiet() -> None:
    av.logging.set_level(None)


def rows(folder: Path, *, thorough: bool = False) -> list[Video]:
    names, _ = find_videos(folder, PATTERNS)
    return list(Corpus.from_rows([blank | probe_row(str(folder / name), thorough=thorough) for name in names]))


blank = {"label": "", "split": "", "group": ""}


@pytest.mark.parametrize("folder", FOLDERS)
def test_frames_and_key_frames_are_those_of_a_full_decode(videos: Path, folder: str) -> None:
    wrong = []
    for video in rows(videos / folder):
        frames = full_decode(video.uri)
        if Path(video.uri).name in BROKEN_IN_THE_MIDDLE:
            if not video.error:
                wrong.append(f"{video.uri}: no error")
            continue
        if video.frames != len(frames) or bool(video.error) != (not frames):
            wrong.append(f"{video.uri}: {video.frames} frames, a full decode has {len(frames)}; {video.error}")
            continue
        if not frames:
            continue
        first = frames[0]
        if (first.width, first.height, first.format.name) != (video.width, video.height, video.pixel_format):
            wrong.append(f"{video.uri}: picture {video.width} x {video.height} {video.pixel_format}")
        stamps = [frame.pts for frame in frames]
        if video.numbering == "pts":
            grid = video.timestamps
            if grid is None:
                grid = np.round((np.array(stamps) - video.start) / video.step)
                stamps = list(range(video.frames))
            if not np.array_equal(grid, stamps):
                wrong.append(f"{video.uri}: time stamps do not number the frames")
        wrong += wrong_key_frames(video, frames)
        if video.key_frames[0] != 0:
            wrong.append(f"{video.uri}: does not start at 0")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("folder", FOLDERS)
def test_counting_packets_says_the_same_as_decoding_everything(videos: Path, folder: str) -> None:
    for quick, sure in zip(rows(videos / folder), rows(videos / folder, thorough=True), strict=True):
        for name in ("frames", "start", "step", "constant", "numbering", "rotation", "error", "uniform", "duration"):
            assert getattr(quick, name) == getattr(sure, name), f"{quick.uri}: {name}"
        assert quick.key_frames.tolist() == sure.key_frames.tolist(), quick.uri


def test_avi_with_b_frames_is_numbered_by_counting_and_without_by_time_stamps(videos: Path) -> None:
    numbering = {Path(video.uri).name: video.numbering for video in rows(videos / "ucf101")}
    assert numbering["v_ApplyEyeMakeup_g01_c01.avi"] == "count"
    assert numbering["v_SoccerJuggling_g23_c01.avi"] == "pts"


def test_a_title_in_another_encoding_than_utf8_does_not_matter(videos: Path) -> None:
    name = "cartwheel/Turnk_r_Pippi_Michel_cartwheel_f_cm_np2_le_med_6.avi"
    assert probe_row(str(videos / "hmdb51" / name))["frames"] == 83


@pytest.mark.parametrize(
    ("name", "rotation"),
    [("decord__video_270.mov", 270), ("decord__video_0.mov", 0), ("fate__h264_displaymatrix.mp4", 90)],
)
def test_rotation_is_clockwise(videos: Path, name: str, rotation: int) -> None:
    assert probe_row(str(videos / "odd" / name))["rotation"] == rotation


def test_a_truncated_file_keeps_what_decodes_and_says_so(videos: Path) -> None:
    row = probe_row(str(videos / "odd" / "made__ucf_trunc_50pct.avi"))
    assert (row["error"], row["frames"]) == ("", 121)
    assert "the header says 240 frames, 121 are there" in row["notes"]


def test_damage_in_the_middle_is_an_error_that_says_where(videos: Path) -> None:
    row = probe_row(str(videos / "odd" / "decord__corrupted.mp4"))
    assert row["error"].startswith("decoding fails after 28 frames, with more to come")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("made__empty.avi", "the file is empty"),
        ("made__text.mp4", "cannot be opened"),
        ("exo__mp4_sample_ac3.mp4", "has no video stream"),
        ("fate__h264_mov-3elist-encrypted.mp4", "no frame can be decoded"),
        ("made__k400_zero_hole.mp4", "no frame can be decoded"),
    ],
)
def test_the_error_says_what_is_wrong(videos: Path, name: str, reason: str) -> None:
    assert probe_row(str(videos / "odd" / name))["error"].startswith(reason)


def test_frames_of_two_sizes_are_told(videos: Path) -> None:
    row = probe_row(str(videos / "odd" / "fate__hevc_extradata-reload-multi-stsd.mp4"))
    assert not row["uniform"]
    assert "128 x 128" in row["notes"] and "128 x 256" in row["notes"]
