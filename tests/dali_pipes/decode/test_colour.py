"""Colours of host-decoded frames: by the matrix and range that the file is tagged with, as the standards define them.

Videos are lossless patches of known YUV, so that what differs is the conversion to RGB alone. It is compared with the
formulas of BT.601 and BT.709 in float64, and with FFmpeg's own command.
"""

from __future__ import annotations

import shutil
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from loader_checks import corpus_of, keyed, psnr
from make_videos import make_video

from dali_pipes import ClipStream, View
from dali_pipes.corpus import Video
from dali_pipes.decode.choice import choose
from dali_pipes.decode.host import decode_frames

SIDE, PATCH = 64, 16
# Kr and Kb of the matrices; AVCOL_SPC numbers of H.273: 1 is BT.709, 5 and 6 are BT.601.
MATRICES = {"bt709": (0.2126, 0.0722), "smpte170m": (0.299, 0.114), "unspecified": (0.299, 0.114)}
SPACES = {"bt709": 1, "unspecified": 2, "smpte170m": 6}
KINDS = {
    "8-bit 4:2:0": "yuv420p",
    "8-bit 4:2:2": "yuv422p",
    "8-bit 4:4:4": "yuv444p",
    "10-bit 4:2:0": "yuv420p10le",
    "10-bit 4:4:4": "yuv444p10le",
}


def patches(bits: int, full: bool) -> np.ndarray:
    """A grid of flat colours within the gamut, (3, SIDE, SIDE) YUV codes; the same RGB whatever the coding."""
    rng = np.random.default_rng(7)
    scale = 1 << (bits - 8)
    grid = SIDE // PATCH
    luma = rng.uniform(0.35, 0.65, (grid, grid))
    chroma = rng.uniform(-0.14, 0.14, (2, grid, grid))
    low, luma_range, chroma_range = (0, 255, 255) if full else (16, 219, 224)
    if full:
        luma_codes, chroma_codes = luma * (256 * scale - 1), chroma * (256 * scale - 1) + 128 * scale
    else:
        luma_codes = (low + luma * luma_range) * scale
        chroma_codes = (128 + chroma * chroma_range) * scale
    codes = np.round(np.concatenate([luma_codes[None], chroma_codes])).astype(np.uint16)
    return codes.repeat(PATCH, axis=1).repeat(PATCH, axis=2)


def by_the_standard(codes: np.ndarray, bits: int, full: bool, space: str) -> np.ndarray:
    """YUV codes (3, H, W) -> RGB uint8 (H, W, 3) by Rec. H.273, section 8.3, in float64."""
    scale = float(1 << (bits - 8))
    y, u, v = codes.astype(np.float64)
    if full:
        top = 256 * scale - 1
        y, u, v = y / top, (u - 128 * scale) / top, (v - 128 * scale) / top
    else:
        y, u, v = (y / scale - 16) / 219, (u / scale - 128) / 224, (v / scale - 128) / 224
    kr, kb = MATRICES[space]
    red, blue = y + 2 * (1 - kr) * v, y + 2 * (1 - kb) * u
    green = (y - kr * red - kb * blue) / (1 - kr - kb)
    return np.clip(np.round(255 * np.stack([red, green, blue], axis=-1)), 0, 255).astype(np.uint8)


def write(path: Path, pixel_format: str, codes: np.ndarray, full: bool, space: str) -> Video:
    layout = av.VideoFormat(pixel_format)
    wide = layout.components[0].bits > 8
    picture = av.VideoFrame(SIDE, SIDE, pixel_format)
    for plane, values in zip(picture.planes, codes, strict=True):
        small = values[:: SIDE // plane.height, :: SIDE // plane.width].astype("<u2" if wide else np.uint8)
        lines = np.zeros((plane.height, plane.line_size), np.uint8)
        lines[:, : plane.width * small.itemsize] = small.view(np.uint8).reshape(plane.height, -1)
        plane.update(lines.tobytes())
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"qp": "0", "preset": "ultrafast"})
        stream.width = stream.height = SIDE
        stream.pix_fmt = pixel_format
        stream.codec_context.colorspace = SPACES[space]
        stream.codec_context.color_range = 2 if full else 1
        for i in range(3):
            picture.pts, picture.time_base = i, Fraction(1, 25)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    video = corpus_of([path])[0]
    assert not video.error
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        assert (int(frame.colorspace), int(frame.color_range)) == (SPACES[space], 2 if full else 1)
    return video


def inner(picture: np.ndarray) -> np.ndarray:
    """The middle of each patch, where no neighbour's chroma reaches."""
    grid = SIDE // PATCH
    cut = picture.reshape(grid, PATCH, grid, PATCH, 3)[:, 5:11, :, 5:11]
    return cut.reshape(grid * 6, grid * 6, 3)


@pytest.mark.parametrize("space", MATRICES)
@pytest.mark.parametrize("full", [False, True], ids=["limited range", "full range"])
@pytest.mark.parametrize("kind", KINDS)
def test_colours_follow_the_standard_that_the_file_is_tagged_with(
    tmp_path: Path, kind: str, full: bool, space: str
) -> None:
    bits = 10 if "10-bit" in kind else 8
    codes = patches(bits, full)
    video = write(tmp_path / "v.mkv", KINDS[kind], codes, full, space)
    truth = inner(by_the_standard(codes, bits, full, space))
    got = inner(decode_frames(video, np.array([1]))[0])
    # 48 dB is an error of one level everywhere; FFmpeg's quick way for subsampled chroma rounds down by up to three.
    # The wrong matrix or range gives less than 36.
    assert psnr(truth, got) >= 42
    assert np.abs(truth.astype(int) - got).max() <= 3
    other = inner(by_the_standard(codes, bits, full, "smpte170m" if space == "bt709" else "bt709"))
    assert psnr(other, got) < 36
    # Scaling down is another way through FFmpeg's converter; patches of 8 pixels are flat in their middle.
    small = decode_frames(video, np.array([1]), short_side=SIDE // 2)[0][4::8, 4::8]
    assert psnr(by_the_standard(codes, bits, full, space)[8::16, 8::16], small) >= 41


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the command ffmpeg is not installed")
@pytest.mark.parametrize("space", ["bt709", "smpte170m"])
@pytest.mark.parametrize("full", [False, True], ids=["limited range", "full range"])
def test_colours_are_those_of_the_ffmpeg_command(tmp_path: Path, full: bool, space: str) -> None:
    video = write(tmp_path / "v.mkv", "yuv420p", patches(8, full), full, space)
    scale = f"scale=in_color_matrix={space}:in_range={'full' if full else 'limited'}:flags=accurate_rnd+full_chroma_int"
    command = ["ffmpeg", "-v", "error", "-i", video.uri, "-vf", scale, "-pix_fmt", "rgb24", "-f", "rawvideo", "-"]
    output = subprocess.run(command, check=True, capture_output=True).stdout
    theirs = np.frombuffer(output, np.uint8).reshape(-1, SIDE, SIDE, 3)
    ours = decode_frames(video, np.arange(3))
    assert psnr(inner(theirs[1]), inner(ours[1])) >= 42


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the command ffmpeg is not installed")
@pytest.mark.parametrize("turn", [90, 180, 270])
def test_every_rotation_is_honoured_in_frames_and_in_clips(tmp_path: Path, turn: int) -> None:
    still = make_video(tmp_path / "still.mp4", codec="mpeg4", frames=8, size=(64, 48))
    path = tmp_path / "turned.mp4"
    tag = ["-c", "copy", "-metadata:s:v:0", f"rotate={turn}"]
    subprocess.run(["ffmpeg", "-v", "error", "-i", str(still), *tag, str(path)], check=True)
    corpus = corpus_of([still, path])
    assert corpus[1].rotation in (turn, 360 - turn)
    if turn == 180:
        assert corpus[1].rotation == 180
    else:
        assert (corpus[1].shown_width, corpus[1].shown_height) == (48, 64)
    frames = np.array([1, 5])
    upright = np.rot90(decode_frames(corpus[0], frames), -corpus[1].rotation // 90, axes=(1, 2))
    assert np.array_equal(decode_frames(corpus[1], frames), upright)
    # On a GPU, too: what is turned is never given to DALI.
    assert choose(corpus[1], "gpu", "auto").decoder == "host"
    with ClipStream(corpus, frames=4, size=48, batch_size=2, device="cpu", dtype="uint8", threads=1) as stream:
        stream.submit([keyed(i, i, View(1, 0)) for i in range(2)])
        clips = stream.get().clips[:, 0].permute(0, 2, 3, 4, 1).numpy()
    # The centred square of the turned picture is the turned centred square.
    assert psnr(clips[1], np.rot90(clips[0], -corpus[1].rotation // 90, axes=(1, 2))) > 40
