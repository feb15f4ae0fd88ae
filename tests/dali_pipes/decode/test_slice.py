"""Packets cut out of a video decode, by themselves, to the frames that they were cut for."""

from __future__ import annotations

import io
import itertools
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from loader_checks import FRAMES, OPEN_GOP, ZOO, corpus_of, decode_slice, pictures
from make_videos import make_video, read_number, truncate

from dali_pipes import Corpus, Video, VideoError
from dali_pipes.corpus.probe import open_video
from dali_pipes.decode.slice import cut

pytest_plugins = ["loader_fixtures"]

# Only what can be numbered by time stamps is ever cut.
KINDS = [kind for kind in ZOO if kind != "counted.h264"]


def assert_cut_right(video: Video, truth: np.ndarray, frames: np.ndarray) -> None:
    shown = decode_slice(cut(video, frames))
    assert [read_number(frame) for frame in shown] == frames.tolist()
    assert np.array_equal(np.stack([frame.to_ndarray(format="rgb24") for frame in shown]), truth[frames])


@pytest.mark.parametrize("kind", KINDS)
def test_two_windows_anywhere_in_a_video(zoo: Corpus, kind: str) -> None:
    video = zoo[list(ZOO).index(kind)]
    truth = pictures(video.uri)
    for start in range(FRAMES):
        one, two = start + np.arange(6), (start + 31) % FRAMES + 2 * np.arange(6)
        assert_cut_right(video, truth, np.unique(np.concatenate([one, two]).clip(max=FRAMES - 1)))


@pytest.mark.parametrize("kind", ["h264_open_gop.mkv", "hevc.mp4", "mpeg4.avi", "vp9.webm"])
def test_frames_just_before_and_after_key_frames(zoo: Corpus, kind: str) -> None:
    video = zoo[list(ZOO).index(kind)]
    truth = pictures(video.uri)
    near = [int(key + d) for key in video.key_frames[1:] for d in (-2, -1, 0, 1) if key + d < FRAMES]
    for a, b in itertools.combinations(near, 2):
        assert_cut_right(video, truth, np.array([a, b]))
    assert_cut_right(video, truth, np.array(near))


@pytest.mark.parametrize(
    ("name", "coding"),
    [
        ("open.mkv", {"codec": "h264", "gop": 15, "bframes": 3, "options": OPEN_GOP}),
        ("closed.mp4", {"codec": "h264", "gop": 15, "bframes": 3}),
        ("open.mp4", {"codec": "hevc", "gop": 16, "bframes": 3}),
        ("mpeg4.avi", {"codec": "mpeg4", "gop": 12, "bframes": 2}),
    ],
)
def test_ranges_far_apart_keep_their_order(tmp_path: Path, name: str, coding: dict[str, object]) -> None:
    # Picture order counts of H.264 and HEVC are stored modulo a small number and wrap between the ranges.
    video = corpus_of([make_video(tmp_path / name, frames=400, size=(64, 64), **coding)])[0]
    truth = pictures(video.uri)
    rng = np.random.default_rng(0)
    for a, b in rng.integers(0, 400, (60, 2)):
        assert_cut_right(video, truth, np.unique([a, b]))
    for a, b, c in rng.integers(0, 380, (15, 3)):
        assert_cut_right(video, truth, np.unique(np.concatenate([np.arange(8) + a, np.arange(8) * 2 + b, [c]])))


def test_no_more_is_cut_out_than_decoding_needs(tmp_path: Path) -> None:
    path = make_video(tmp_path / "long.mkv", codec="mpeg4", frames=400, size=(64, 64), gop=10)
    video = corpus_of([path])[0]
    one = cut(video, np.array([205]))
    assert one.frames.tolist() == [5]
    assert len(one.data) < path.stat().st_size / 15
    two = cut(video, np.array([15, 305]))
    assert two.frames.tolist() == [5, 11]
    assert len(two.data) < path.stat().st_size / 10


def test_a_slice_has_the_types_that_the_graph_takes(zoo: Corpus) -> None:
    piece = cut(zoo[0], np.array([3, 50]))
    assert (piece.data.dtype, piece.data.ndim) == (np.uint8, 1)
    assert piece.frames.dtype == np.int32


def test_a_variable_rate_is_cut_by_its_time_stamps(tmp_path: Path) -> None:
    stamps = np.cumsum([0] + [10, 90, 40, 25, 70] * 8).tolist()
    path = make_video(
        tmp_path / "vfr.mkv", codec="vp9", frames=len(stamps), size=(64, 64), rate=1000, timestamps=stamps, gop=7
    )
    video = corpus_of([path])[0]
    assert video.timestamps is not None
    for start in range(0, 30, 4):
        assert_cut_right(video, pictures(path), start + np.array([0, 1, 8]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_slice_says_its_frame_rate_in_its_header(zoo: Corpus, kind: str) -> None:
    data = cut(zoo[list(ZOO).index(kind)], np.arange(3, 20)).data
    with av.open(io.BytesIO(data), options={"fflags": "nofillin+noparse", "probesize": "32"}) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == 25
        stamps = sorted(packet.pts * stream.time_base for packet in container.demux(stream) if packet.size)
    assert {after - before for before, after in itertools.pairwise(stamps)} == {Fraction(1, 25)}


def test_a_file_cut_short_or_removed_after_indexing_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.webm", codec="vp9", frames=40, size=(64, 64), gop=10)
    video = corpus_of([path])[0]
    truncate(path, tmp_path / "part.webm", 0.5).replace(path)
    with pytest.raises(VideoError, match=r"v\.webm: "):
        cut(video, np.array([0, 39]))
    path.unlink()
    with pytest.raises(VideoError, match=r"v\.webm: cannot be read: No such file"):
        cut(video, np.array([0]))


def test_packets_that_cannot_be_written_anew_are_an_error_that_names_the_video(videos: Path) -> None:
    corpus = Corpus.build(videos / "odd", patterns=["exo__mp4_sample_av1.mp4"], progress=False)
    with pytest.raises(VideoError, match=r"exo__mp4_sample_av1.mp4: packets of av1 cannot be cut out"):
        cut(corpus[0], np.arange(3))


def test_a_format_that_names_no_streams_in_front_is_read_whatever_its_file_is_called(tmp_path: Path) -> None:
    stream = make_video(tmp_path / "program.mpg", codec="mpeg2video", frames=30)
    named = stream.rename(tmp_path / "program.mp4")
    with open_video(str(named), undecoded=True) as container:
        assert len(container.streams.video) == 1
        assert sum(bool(packet.size) for packet in container.demux(video=0)) >= 30
