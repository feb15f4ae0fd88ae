"""Frames decoded on the host equal those of a sequential decode, to the bit."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from loader_checks import FRAMES, ZOO, corpus_of, pictures
from make_videos import make_video, truncate

from dali_pipes import Corpus, VideoError
from dali_pipes.decode.host import decode_frames
from dali_pipes.decode.picture import working_size

pytest_plugins = ["loader_fixtures"]


@pytest.mark.parametrize("kind", ZOO)
def test_every_start_at_1x_and_2x_equals_the_sequential_decode(zoo: Corpus, kind: str) -> None:
    video = zoo[list(ZOO).index(kind)]
    truth = pictures(video.uri)
    assert len(truth) == video.frames == FRAMES
    for start in range(FRAMES):
        # Both speeds at once: the second window lies elsewhere, often in a range of its own.
        one, two = start + np.arange(6), (start + 31) % FRAMES + 2 * np.arange(6)
        frames = np.unique(np.concatenate([one, two]).clip(max=FRAMES - 1))
        assert np.array_equal(decode_frames(video, frames), truth[frames]), frames


@pytest.mark.parametrize("kind", ZOO)
def test_single_frames_and_pairs_around_key_frames_equal_the_sequential_decode(zoo: Corpus, kind: str) -> None:
    video = zoo[list(ZOO).index(kind)]
    truth = pictures(video.uri)
    around = np.unique(np.concatenate([video.key_frames + d for d in (-3, -1, 0, 1)])).clip(0, FRAMES - 1)
    for frame in around[:40]:
        for frames in ([frame], [frame, min(frame + 2, 59)], [0, frame], [frame, 59]):
            wanted = np.unique(frames)
            assert np.array_equal(decode_frames(video, wanted), truth[wanted]), wanted


def test_the_generated_videos_have_what_makes_them_awkward(zoo: Corpus) -> None:
    by_kind = dict(zip(ZOO, zoo, strict=True))
    for kind in ("h264_long_gop.mp4", "h264_open_gop.mkv", "hevc.mp4", "mpeg4.avi", "mpeg4.mp4"):
        with av.open(by_kind[kind].uri) as container:
            stamps = [packet.pts for packet in container.demux(video=0) if packet.pts is not None]
        assert stamps != sorted(stamps), f"{kind} has no B-frames"
    for kind in ("h264_open_gop.mkv", "hevc.mp4"):
        with av.open(by_kind[kind].uri) as container:
            packets = [(packet.pts, packet.is_keyframe) for packet in container.demux(video=0) if packet.size]
        keys = [pts for pts, key in packets if key]
        assert any(a[0] in keys and b[0] < a[0] for a, b in itertools.pairwise(packets)), kind
    with av.open(by_kind["vp9.webm"].uri) as container:
        # A superframe (VP9 bitstream specification, annex B) ends with a marker 110xxxxx: it holds a hidden frame.
        assert any(bytes(p)[-1] >> 5 == 0b110 for p in container.demux(video=0) if p.size), "no alt-ref frames"
    assert by_kind["h264_long_gop.mp4"].key_frames.tolist() == [0]
    assert by_kind["counted.h264"].numbering == "count"


def test_a_variable_rate_is_decoded_frame_by_frame(tmp_path: Path) -> None:
    stamps = np.cumsum([0] + [10, 90, 40, 25, 70] * 8).tolist()
    path = make_video(
        tmp_path / "vfr.mkv", codec="mpeg4", frames=len(stamps), size=(64, 64), rate=1000, timestamps=stamps, gop=7
    )
    video = corpus_of([path])[0]
    assert video.timestamps is not None
    truth = pictures(path)
    for start in range(0, len(stamps), 3):
        frames = np.arange(start, min(start + 5, len(stamps)))
        assert np.array_equal(decode_frames(video, frames), truth[frames])


def test_scaling_keeps_the_aspect_and_never_enlarges(tmp_path: Path) -> None:
    video = corpus_of([make_video(tmp_path / "v.mp4", frames=4, size=(160, 96))])[0]
    small = decode_frames(video, np.array([1, 2]), short_side=48)
    assert small.shape == (2, 48, 80, 3)
    averaged = pictures(video.uri)[1:3].reshape(2, 48, 2, 80, 2, 3).mean((2, 4))
    assert np.abs(small - averaged).mean() < 2
    assert decode_frames(video, np.array([0]), short_side=200).shape == (1, 96, 160, 3)


@pytest.mark.parametrize(
    ("given", "size"),
    [
        ((340, 256, 128), (170, 128)),
        ((256, 340, 128), (128, 170)),
        ((340, 256, 112), (148, 112)),
        ((320, 320, 115), (115, 115)),
        ((64, 48, 128), (64, 48)),
        ((1000, 2, 1), (500, 1)),
    ],
)
def test_working_size(given: tuple[int, int, int], size: tuple[int, int]) -> None:
    assert working_size(*given) == size


def test_a_rotated_video_comes_out_upright(videos: Path) -> None:
    path = videos / "odd" / "torchcodec__nasa_13013_rotated.mp4"
    video = corpus_of([path])[0]
    assert video.rotation
    frames = np.array([0, 5])
    turned = np.rot90(pictures(path)[frames], -video.rotation // 90, axes=(1, 2))
    got = decode_frames(video, frames)
    assert got.shape == (2, video.shown_height, video.shown_width, 3)
    assert np.array_equal(got, turned)


def test_a_file_cut_short_after_indexing_is_an_error_that_names_it(tmp_path: Path) -> None:
    whole = make_video(tmp_path / "whole.mkv", codec="mpeg4", frames=40, size=(64, 64))
    video = corpus_of([whole])[0]
    truncate(whole, tmp_path / "part.mkv", 0.5).replace(whole)
    with pytest.raises(VideoError, match=r"whole\.mkv"):
        decode_frames(video, np.array([0, 39]))
    truth = pictures(whole)
    assert np.array_equal(decode_frames(video, np.array([0, 3])), truth[[0, 3]])


def test_a_missing_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = make_video(tmp_path / "gone.mp4", frames=5, size=(64, 64))
    video = corpus_of([path])[0]
    path.unlink()
    with pytest.raises(VideoError, match=r"gone\.mp4: .*No such file"):
        decode_frames(video, np.array([0]))


def area(pictures: np.ndarray, width: int, height: int) -> np.ndarray:
    """Pictures (N, H, W, 3) averaged over the area of each new pixel, literally, in float64."""

    def shares(old: int, new: int) -> np.ndarray:
        edges, at = np.arange(new + 1) * old / new, np.arange(old)
        overlap = np.minimum(edges[1:, None], at + 1) - np.maximum(edges[:-1, None], at)
        return np.clip(overlap, 0, None) * new / old

    down, across = shares(pictures.shape[1], height), shares(pictures.shape[2], width)
    return np.einsum("yh,nhwc,xw->nyxc", down, pictures.astype(np.float64), across, optimize=True)


@pytest.mark.parametrize("side", [112, 113])
def test_scaled_pictures_are_averages_over_areas(videos: Path, side: int) -> None:
    corpus = Corpus.build(videos / "kinetics400", "folders", progress=False)
    frames = np.array([10, 40])
    for row in corpus.select()[:15:4]:
        video = corpus[int(row)]
        small = decode_frames(video, frames, short_side=side)
        truth = area(decode_frames(video, frames), small.shape[2], small.shape[1])
        assert min(small.shape[1:3]) == side
        # Colours are scaled at the resolution that the file has them in, half that of the picture; in another place by
        # half a pixel it would be 35.
        assert 10 * np.log10(255**2 / np.mean((truth - small) ** 2)) > 38, video.uri


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("size", [(128, 96), (96, 130), (97, 64), (64, 64)])
def test_the_centred_square_is_cut_out_of_the_same_picture(
    tmp_path: Path, size: tuple[int, int], rotation: int, apart: bool
) -> None:
    make_video(tmp_path / "a.avi", frames=12, codec="mjpeg", size=size)
    video = replace(Corpus.build(tmp_path, "folders", progress=False)[0], rotation=rotation)
    for short_side in (None, 48):
        whole = decode_frames(video, np.array([2, 9]), short_side=short_side, apart=apart)
        height, width = whole.shape[1:3]
        side = min(height, width)
        left, top = (width - side) // 2, (height - side) // 2
        square = decode_frames(video, np.array([2, 9]), short_side=short_side, square=True, apart=apart)
        assert np.array_equal(square, whole[:, top : top + side, left : left + side])
