"""Copies of single videos: the same frames in the same order, whatever the source is like."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from make_videos import decode_all, make_video, read_number, truncate

from dali_pipes.corpus import Corpus, Video
from dali_pipes.corpus.probe import open_video, probe_row
from dali_pipes.corpus.transcode import PRESETS, Preset, Stopped, changed, copy_size, encode, psnr
from dali_pipes.decode.host import decode_frames
from dali_pipes.errors import DataError, VideoError

SMALL = Preset("h264", short_side=64, gop=8, quality=20)


def row(path: Path) -> Video:
    return Corpus.from_rows([probe_row(str(path)) | {"label": "", "split": "", "group": ""}])[0]


def numbers(path: Path) -> list[int]:
    return [read_number(frame) for frame in decode_all(path)]


@pytest.mark.parametrize("codec", ["h264", "hevc", "vp9", "mjpeg"])
def test_frame_i_of_the_copy_is_frame_i_of_a_source_with_b_frames(tmp_path: Path, codec: str) -> None:
    source = row(make_video(tmp_path / "a.mp4", frames=50, bframes=3, gop=30, size=(160, 120)))
    preset = changed(SMALL, codec=codec, short_side=96)
    encoded = encode(source, tmp_path / "copy.mp4", preset, samples=5)
    copy = row(tmp_path / "copy.mp4")
    assert numbers(tmp_path / "copy.mp4") == list(range(50))
    assert (copy.error, copy.frames, copy.width, copy.height) == ("", 50, 128, 96)
    assert (encoded.frames, encoded.width, encoded.height, encoded.bytes) == (50, 128, 96, copy.bytes)
    assert (copy.sliceable, copy.numbering, copy.uniform, copy.constant) == (True, "pts", True, True)
    assert (copy.rate, copy.start, copy.codec) == (25.0, 0, codec)
    assert copy.key_frames.tolist() == list(range(0, 50, 1 if codec == "mjpeg" else 8))
    assert encoded.psnr_sample is not None and encoded.psnr_sample > 35


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.avi", {"codec": "mpeg4"}),
        ("a.mpg", {"codec": "mpeg2video", "bframes": 2}),
        ("a.webm", {"codec": "vp9"}),
        ("a.gif", {"codec": "gif"}),
        ("odd.mkv", {"codec": "mjpeg", "size": (131, 97), "pixel_format": "yuvj444p"}),
    ],
)
def test_sources_of_other_kinds_keep_their_frames(tmp_path: Path, name: str, options: dict[str, object]) -> None:
    source = row(make_video(tmp_path / name, frames=30, **options))  # type: ignore[arg-type]
    assert source.error == ""
    encode(source, tmp_path / "copy.mp4", SMALL)
    assert numbers(tmp_path / "copy.mp4") == numbers(Path(source.uri))
    assert row(tmp_path / "copy.mp4").sliceable


def test_a_variable_rate_stays_what_it_is(tmp_path: Path) -> None:
    times = [40 * i + 11 * (i % 3) for i in range(40)]
    source = row(make_video(tmp_path / "a.mkv", frames=40, timestamps=times))
    encode(source, tmp_path / "copy.mp4", SMALL)
    copy = row(tmp_path / "copy.mp4")
    assert not copy.constant and copy.timestamps is not None
    assert np.allclose(copy.timestamps * float(copy.time_base), np.array(times) / 1000, atol=1e-4)


def test_a_rate_that_is_no_whole_number_stays_exact(tmp_path: Path) -> None:
    source = row(make_video(tmp_path / "a.mkv", frames=90, rate=Fraction(30000, 1001)))
    encode(source, tmp_path / "copy.mp4", SMALL)
    copy = row(tmp_path / "copy.mp4")
    assert copy.constant
    assert Fraction(copy.step).limit_denominator(1000) * copy.time_base == Fraction(1001, 30000)


@pytest.mark.parametrize(("fps", "every"), [(12.5, 2), (50.0, 0.5)])
def test_a_constant_rate_takes_the_nearest_frames(tmp_path: Path, fps: float, every: float) -> None:
    source = row(make_video(tmp_path / "a.mp4", frames=40, bframes=2))
    encoded = encode(source, tmp_path / "copy.mp4", changed(SMALL, fps=fps))
    copy = row(tmp_path / "copy.mp4")
    assert (encoded.frames, copy.frames, copy.rate, copy.constant) == (40 / every, 40 / every, fps, True)
    found = np.array(numbers(tmp_path / "copy.mp4"))
    assert np.abs(found - np.arange(len(found)) * every).max() <= 0.5


@pytest.mark.parametrize("codec", ["h264", "hevc", "vp9", "mjpeg"])
@pytest.mark.parametrize(("frames", "rate"), [(1, 25), (5, Fraction(1, 3)), (20, 1000)])
def test_rates_and_lengths_at_the_edge(tmp_path: Path, codec: str, frames: int, rate: int | Fraction) -> None:
    source = row(make_video(tmp_path / "a.mp4", frames=frames, rate=rate))
    encode(source, tmp_path / "copy.mp4", changed(SMALL, codec=codec))
    copy = row(tmp_path / "copy.mp4")
    assert numbers(tmp_path / "copy.mp4") == list(range(frames))
    assert (copy.constant, copy.rate) == (True, pytest.approx(float(rate)))
    assert copy.duration == pytest.approx(frames / float(rate))


def test_a_variable_rate_becomes_constant_where_asked(tmp_path: Path) -> None:
    times = [40 * i if i < 20 else 800 + 80 * (i - 20) for i in range(40)]
    source = row(make_video(tmp_path / "a.mkv", frames=40, timestamps=times))
    encode(source, tmp_path / "copy.mp4", changed(SMALL, fps=25))
    assert row(tmp_path / "copy.mp4").constant
    found = numbers(tmp_path / "copy.mp4")
    assert found[:20] == list(range(20)) and found[20:30:2] == [20, 21, 22, 23, 24]


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_rotated_source_has_an_upright_copy(tmp_path: Path, rotation: int) -> None:
    # What a camera writes when it is held turned: the picture lies, and a matrix says how to raise it.
    upright = row(make_video(tmp_path / "plain.mp4", frames=12))
    source = Video(**(vars(upright) | {"rotation": rotation}))
    encode(source, tmp_path / "copy.mp4", changed(SMALL, quality=8))
    copy = row(tmp_path / "copy.mp4")
    assert (copy.rotation, copy.frames) == (0, 12)
    assert (copy.width, copy.height) == ((86, 64) if rotation == 180 else (64, 86))
    for number, frame in enumerate(decode_all(tmp_path / "copy.mp4")):
        assert read_number(np.rot90(frame.to_ndarray(format="gray"), rotation // 90)) == number
    encode(source, tmp_path / "whole.mp4", changed(SMALL, short_side=96, quality=8))
    before = decode_frames(source, np.arange(0, 12, 5)).astype(float)
    after = decode_frames(row(tmp_path / "whole.mp4"), np.arange(0, 12, 5)).astype(float)
    assert np.abs(before - after).mean() < 3


def colourful(path: Path, matrix: int, full_range: bool) -> Path:
    """A still of smooth colours with the matrix that its tag says: 1 BT.709, 6 BT.601."""
    y, x = np.mgrid[0:96, 0:128]
    picture = np.stack([2 * x, y * 255 // 96, 255 - x - y], -1).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "6"})
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuvj420p" if full_range else "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, 1 + full_range
        for number in range(6):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(
                format=stream.pix_fmt, dst_colorspace=5 if matrix == 6 else 1, dst_color_range=1 + full_range
            )
            frame.pts, frame.colorspace, frame.color_range = number, matrix, 1 + full_range
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("codec", ["h264", "vp9", "mjpeg"])
@pytest.mark.parametrize(("matrix", "full_range"), [(6, False), (1, False), (1, True)])
def test_colours_stay_and_are_bt601(tmp_path: Path, matrix: int, full_range: bool, codec: str) -> None:
    source = row(colourful(tmp_path / "a.mp4", matrix, full_range))
    encode(source, tmp_path / "copy.mp4", changed(SMALL, codec=codec, short_side=96, quality=4))
    frame = next(decode_all(tmp_path / "copy.mp4"))
    assert frame.colorspace in (5, 6) and frame.color_range == (2 if codec == "mjpeg" else 1)
    before = decode_frames(source, np.arange(2)).astype(float)
    after = decode_frames(row(tmp_path / "copy.mp4"), np.arange(2)).astype(float)
    # With the matrix of the other tag the difference is 7.
    assert np.abs(before - after).mean() < 2.5


def test_nothing_is_left_of_an_encoding_that_fails_or_is_stopped(tmp_path: Path) -> None:
    whole = row(make_video(tmp_path / "in" / "a.mkv", frames=60, size=(320, 240)))
    short = truncate(whole.uri, tmp_path / "in" / "b.mkv", 0.5)
    broken = Video(**(vars(whole) | {"uri": str(short)}))
    more = Video(**(vars(whole) | {"frames": 50}))
    asked = iter([False] * 5 + [True])
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(VideoError, match="of 60 frames"):
        encode(broken, out / "b.mp4", SMALL)
    with pytest.raises(VideoError, match="more than the 50 frames"):
        encode(more, out / "c.mp4", SMALL)
    with pytest.raises(Stopped):
        encode(whole, out / "d.mp4", SMALL, stop=lambda: next(asked))
    assert list(out.iterdir()) == []


def test_who_may_read_the_folder_may_read_a_copy(tmp_path: Path) -> None:
    source = row(make_video(tmp_path / "a.mp4", frames=5))
    encode(source, tmp_path / "copy.mp4", SMALL)
    assert (tmp_path / "copy.mp4").stat().st_mode == Path(source.uri).stat().st_mode


def test_a_picture_is_never_made_larger_and_its_sides_are_even() -> None:
    assert copy_size(340, 256, 128) == (170, 128)
    assert copy_size(64, 49, 128) == (64, 48)
    assert copy_size(49, 64, None) == (48, 64)
    assert copy_size(1920, 1080, 256) == (456, 256)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"codec": "av1"}, "codec"),
        ({"quality": 99}, "quality"),
        ({"short_side": 4}, "short_side"),
        ({"speed": "warp"}, "speed"),
        ({"gop": 0}, "gop"),
        ({"fps": 0.0}, "fps"),
    ],
)
def test_impossible_presets_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        changed(SMALL, **values)


def test_the_cpu_preset_keeps_real_videos_close(videos: Path, tmp_path: Path) -> None:
    paths = sorted((videos / "kinetics400").glob("*.mp4"))[:1]
    if not paths:
        pytest.skip(f"no Kinetics videos in {videos}")
    source = row(paths[0])
    encoded = encode(source, tmp_path / "copy.mp4", PRESETS["cpu"], samples=5)
    assert encoded.frames == source.frames
    assert encoded.psnr_sample is not None and encoded.psnr_sample >= 38
    # By the loader's own decoder too, at random places.
    asked = np.sort(np.random.default_rng(0).choice(source.frames, 12, replace=False))
    before = decode_frames(source, asked, short_side=128)
    after = decode_frames(row(tmp_path / "copy.mp4"), asked)
    assert before.shape == after.shape and psnr(before, after) > 32


def tiny(frame: av.VideoFrame) -> np.ndarray:
    return frame.reformat(width=32, height=32, format="gray", interpolation="AREA").to_ndarray().astype(float)


@pytest.mark.parametrize(
    "pattern", ["ucf101/**/*.avi", "hmdb51/**/*.avi", "odd/*packed_bframes*.avi", "odd/*.ts", "odd/*rotat*"]
)
def test_awkward_real_videos_keep_their_frames(videos: Path, tmp_path: Path, pattern: str) -> None:
    source = next((video for path in sorted(videos.glob(pattern)) if not (video := row(path)).error), None)
    if source is None:
        pytest.skip(f"no usable {pattern} in {videos}")
    encoded = encode(source, tmp_path / "copy.mp4", changed(SMALL, quality=10), samples=5)
    copy = row(tmp_path / "copy.mp4")
    assert (encoded.frames, copy.frames, copy.sliceable) == (source.frames, source.frames, True)
    assert (copy.width > copy.height) == (source.shown_width > source.shown_height)
    with open_video(source.uri) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number in (0, source.frames // 2, source.frames - 1):
                small = np.rot90(tiny(frame), -source.rotation // 90)
                found = tiny(av.VideoFrame.from_ndarray(decode_frames(copy, np.array([number]))[0]))
                assert np.abs(small - found).mean() < 5, number
