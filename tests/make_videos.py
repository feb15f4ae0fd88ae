"""Small videos made for tests: every frame carries its own number in grey blocks that survive lossy coding.

The picture is a grid of 4 x 4 grey blocks, 15 bits of number and one of parity, under a faint moving wave so that
inter-frame coding has something to do:

    bit 0   bit 1   bit 2   bit 3
    bit 4   ...
    ...                     parity
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

GRID = 4
BITS = GRID * GRID - 1
DARK, LIGHT = 56, 200

# Encoder, pixel format and options that make each codec show what is awkward about it (hidden frames, B-frames, ...).
_ENCODERS: dict[str, tuple[str, str, dict[str, str]]] = {
    "h264": ("libx264", "yuv420p", {"preset": "veryfast", "crf": "20"}),
    "hevc": ("libx265", "yuv420p", {"preset": "ultrafast", "crf": "20", "x265-params": "log-level=none:pools=1"}),
    "mpeg4": ("mpeg4", "yuv420p", {"qscale": "3", "flags": "+qscale"}),
    "mpeg1video": ("mpeg1video", "yuv420p", {}),
    "mpeg2video": ("mpeg2video", "yuv420p", {}),
    "mjpeg": ("mjpeg", "yuvj420p", {"qscale": "3", "flags": "+qscale"}),
    "vp8": ("libvpx", "yuv420p", {"cpu-used": "5", "deadline": "good"}),
    # One-pass VP9 makes hidden (alt-ref) frames, in superframes, only with these: look-ahead, real time, a bit rate.
    "vp9": (
        "libvpx-vp9",
        "yuv420p",
        {"auto-alt-ref": "1", "lag-in-frames": "25", "cpu-used": "6", "deadline": "realtime", "b": "300k"},
    ),
    "gif": ("gif", "rgb8", {}),
}


def draw_number(number: int, size: tuple[int, int]) -> np.ndarray:
    """Draw one picture that carries a number.

    Args:
        number: 0 to 32767.
        size: Width and height, pixels.

    Returns:
        Grey picture, uint8 (H, W).
    """
    if not 0 <= number < 1 << BITS:
        raise ValueError(f"number {number}: expected 0 to {(1 << BITS) - 1}")
    width, height = size
    bits = [(number >> bit) & 1 for bit in range(BITS)]
    bits.append(sum(bits) & 1)
    levels = np.where(np.array(bits).reshape(GRID, GRID), LIGHT, DARK)
    rows = np.arange(height) * GRID // height
    columns = np.arange(width) * GRID // width
    wave = 12 * np.sin((np.arange(width) + 2 * number) / 9)[None] * np.cos((np.arange(height) - number) / 11)[:, None]
    return np.clip(levels[rows][:, columns] + wave, 0, 255).astype(np.uint8)


def read_number(frame: av.VideoFrame | np.ndarray) -> int:
    """Read the number that a picture carries, at any size.

    Args:
        frame: A decoded frame, or uint8 (H, W) or (H, W, 3), upright and uncropped.

    Raises:
        ValueError: The blocks cannot be read, or the parity is wrong.
    """
    picture = frame.to_ndarray(format="gray") if isinstance(frame, av.VideoFrame) else np.asarray(frame)
    if picture.ndim == 3:
        picture = picture.mean(axis=2)
    height, width = picture.shape
    bits = []
    for row in range(GRID):
        for column in range(GRID):
            top, bottom = (row * 4 + 1) * height // (4 * GRID), (row * 4 + 3) * height // (4 * GRID)
            left, right = (column * 4 + 1) * width // (4 * GRID), (column * 4 + 3) * width // (4 * GRID)
            level = float(picture[top : max(bottom, top + 1), left : max(right, left + 1)].mean())
            if abs(level - (DARK + LIGHT) / 2) < 16:
                raise ValueError(f"block {row},{column} is neither dark nor light: {level:.0f}")
            bits.append(level > (DARK + LIGHT) / 2)
    if sum(bits[:BITS]) % 2 != bits[BITS]:
        raise ValueError(f"parity is wrong: {bits}")
    return sum(1 << bit for bit in range(BITS) if bits[bit])


def make_noise(path: Path, *, frames: int) -> Path:
    """Write 64 x 48 H.264 of noise, which hardly shrinks: 12 frames/s, a key frame every second."""
    noise = np.random.default_rng(0).integers(0, 256, (16, 48, 64, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=12, options={"preset": "ultrafast", "qp": "12", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.gop_size = 12
        stream.codec_context.thread_count = 1
        for number in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise[number * 7 % 16], format="rgb24")))
        container.mux(stream.encode())
    return path


def make_video(
    path: Path | str,
    *,
    codec: str = "h264",
    frames: int = 60,
    size: tuple[int, int] = (128, 96),
    rate: int | Fraction = 25,
    gop: int = 12,
    bframes: int = 0,
    timestamps: Sequence[int] | None = None,
    first: int = 0,
    pixel_format: str | None = None,
    options: Mapping[str, str] | None = None,
    container_options: Mapping[str, str] | None = None,
) -> Path:
    """Write a video whose frame i carries the number `first + i` (see `read_number`).

    Args:
        path: Where to write; the suffix chooses the container. Folders are made.
        codec: One of h264, hevc, mpeg4, mpeg1video, mpeg2video, mjpeg, vp8, vp9, gif.
        frames: How many.
        size: Width and height, pixels.
        rate: Frames/s.
        gop: Frames from one key frame to the next.
        bframes: B-frames in a row (h264, hevc, mpeg4, mpeg1video, mpeg2video); 0 for none.
        timestamps: Presentation times in milliseconds, one a frame, for a variable rate; None: constant.
        first: Number carried by the first frame.
        pixel_format: Instead of the codec's usual one.
        options: Further encoder options.
        container_options: Muxer options.

    Returns:
        The path.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    encoder, usual_format, usual_options = _ENCODERS[codec]
    picture_options = usual_options | dict(options or {})
    if codec in ("h264", "hevc"):
        picture_options.setdefault("bf", str(bframes))
    time_base = 1 / Fraction(rate) if timestamps is None else Fraction(1, 1000)
    with av.open(str(path), "w", options=dict(container_options or {})) as container:
        stream: Any = container.add_stream(encoder, rate=Fraction(rate), options=picture_options)
        stream.width, stream.height = size
        stream.pix_fmt = pixel_format or usual_format
        stream.codec_context.time_base = time_base
        stream.codec_context.gop_size = gop
        stream.codec_context.thread_count = 1
        if bframes and codec not in ("h264", "hevc"):
            stream.codec_context.max_b_frames = bframes
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(draw_number(first + number, size), format="gray")
            frame = frame.reformat(format=stream.pix_fmt)
            frame.pts = number if timestamps is None else timestamps[number]
            frame.time_base = time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def truncate(source: Path | str, target: Path | str, share: float) -> Path:
    """Copy the first `share` (0 to 1) of a file's bytes, as an interrupted download leaves it."""
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    with target.open("r+b") as file:
        file.truncate(int(target.stat().st_size * share))
    return target


def decode_all(path: Path | str) -> Iterator[av.VideoFrame]:
    """Every frame of a full sequential decode, the truth that everything else is compared with."""
    with av.open(str(path)) as container:
        yield from container.decode(video=0)
