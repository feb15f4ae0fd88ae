"""Encodes one video anew, small and with many key frames, so that any few of its frames are cheap to decode.

Frame i of the copy is frame i of the source. The copy is upright, 8-bit 4:2:0 with BT.601 colours, every packet is one
frame, and every GOP is closed: what decodes worst (B-frames, hidden frames, rotation, no time stamps) is decoded once,
from the beginning and in order, and never again.
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

from dali_pipes.corpus.probe import open_video
from dali_pipes.corpus.transcode_presets import (
    CODECS,
    PRESETS,
    SUFFIX,
    TRANSCODE_VERSION,
    Preset,
    changed,
    encoder_options,
)
from dali_pipes.errors import VideoError
from dali_pipes.writing import replacing

if TYPE_CHECKING:
    from dali_pipes.corpus.manifest import Video

__all__ = [
    "CODECS", "PRESETS", "SUFFIX", "TRANSCODE_VERSION", "UNWRITABLE", "Encoded", "Preset", "Stopped", "changed",
    "copy_size", "encode", "grid", "psnr", "upright",
]  # fmt: skip

# Finer than any camera; keeps the sums of ticks within what MP4 readers of all kinds can count.
_FINEST = 1_000_000
# A target that no other video could be written to either.
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM)
_BT601 = 6


@dataclass(frozen=True)
class Encoded:
    """What was written.

    Attributes:
        frames: Number of frames.
        bytes: Size of the file.
        width: Pixels.
        height: Pixels.
        psnr_sample: Of the sampled frames together against the scaled source, dB over Y, U and V; None where none was
            asked for.
    """

    frames: int
    bytes: int
    width: int
    height: int
    psnr_sample: float | None = None


class Stopped(Exception):
    """`stop` said so; nothing was written."""


def encode(
    video: Video, target: Path, preset: Preset, *, stop: Callable[[], bool] | None = None, samples: int = 0
) -> Encoded:
    """Encode a video anew.

    Args:
        video: Row of the corpus.
        target: MP4 file to write, whatever its suffix; its folder is there. It appears whole or not at all.
        preset: How.
        stop: Asked at every frame whether to give up.
        samples: Frames, evenly spread, to decode from the copy and compare with what went in.

    Raises:
        VideoError: The source cannot be decoded, does not hold the frames its row says, or cannot be encoded.
        OSError: The target cannot be written.
        Stopped: `stop` returned True.
    """
    with replacing(target) as temporary:
        return _Encoder(video, str(temporary), preset, stop, samples).run()


def copy_size(width: int, height: int, short_side: int | None) -> tuple[int, int]:
    """Even width and height of a copy: the shorter side scaled down to `short_side`, never up.

    >>> copy_size(340, 256, 128), copy_size(64, 49, 128)
    ((170, 128), (64, 48))
    """
    scale = 1.0 if short_side is None else min(1.0, short_side / min(width, height))
    # 4:2:0 needs even sides; a side is never made larger unless it is 1.
    even = (min(2 * round(side * scale / 2), side - side % 2) for side in (width, height))
    return max(next(even), 2), max(next(even), 2)


def grid(video: Video, fps: float) -> NDArray[np.int64]:
    """Numbers of the frames nearest in time to each tick of a constant rate, int64 (n,), ascending, with repeats."""
    tick = float(video.time_base)
    if video.timestamps is None:
        times = np.arange(video.frames) * video.step * tick
    else:
        times = (video.timestamps - video.timestamps[0]) * tick
    wanted = np.arange(max(round(video.duration * fps), 1)) / fps
    after = np.searchsorted(times, wanted).clip(0, len(times) - 1)
    before = (after - 1).clip(0)
    return np.where(wanted - times[before] <= times[after] - wanted, before, after).astype(np.int64)


def _open(video: Video) -> InputContainer:
    return open_video(video.uri, video.offset, video.bytes, video.mtime_ns)


class _Encoder:
    """One video's way from `container.decode` to a file, frame by frame."""

    def __init__(self, video: Video, path: str, preset: Preset, stop: Callable[[], bool] | None, samples: int) -> None:
        self.video, self.path, self.preset, self.stop = video, path, preset, stop
        self.numbers = None if preset.fps is None else grid(video, preset.fps)
        count = video.frames if self.numbers is None else len(self.numbers)
        places: Any = np.linspace(0, count - 1, min(samples, count)).round().astype(int) if samples else []
        self.samples: dict[int, NDArray[np.uint8] | None] = dict.fromkeys(int(place) for place in places)
        self.format = "yuvj420p" if preset.codec == "mjpeg" else "yuv420p"
        self.converter = VideoReformatter()
        self.packets = 0
        if preset.fps is not None:
            self.period = 1 / Fraction(preset.fps).limit_denominator(1001)
        else:
            step = Fraction(video.step).limit_denominator(100_000) or Fraction(1)
            self.period = (step * video.time_base).limit_denominator(_FINEST) or Fraction(1, 25)
        # Where frames lie on a grid the grid is exact; time stamps are rounded to the container's ticks.
        self.even = self.numbers is not None or video.timestamps is None
        # Encoders want time bases of a second at most.
        self.ticks = math.ceil(self.period)
        self.time_base = self.period / self.ticks if self.even else max(video.time_base, Fraction(1, _FINEST))

    def run(self) -> Encoded:
        frames, size = 0, (0, 0)
        stream: Any = None
        try:
            with av.open(self.path, "w", format="mp4", options={"movflags": "+faststart"}) as out:
                for picture in self._pictures():
                    if stream is None:
                        size = (picture.shape[1], picture.shape[0] * 2 // 3)
                        stream = self._add_stream(out, size)
                    if frames in self.samples:
                        self.samples[frames] = picture
                    frame = VideoFrame.from_ndarray(picture, format=self.format)
                    frame.pts, frame.time_base = self._time(frames), self.time_base
                    frame.colorspace = _BT601
                    frame.color_range = ColorRange.JPEG if self.preset.codec == "mjpeg" else ColorRange.MPEG
                    self._mux(out, stream, frame)
                    frames += 1
                self._mux(out, stream, None)
        except av.FFmpegError as error:
            # Of the source's errors none comes as far as here. Encoders call failures of their own EPERM.
            if error.errno in UNWRITABLE and error.errno != errno.EPERM:
                raise OSError(error.errno, os.strerror(error.errno), self.path) from error
            reason = f"cannot be encoded as {self.preset.codec}: {error.strerror or error}"
            raise VideoError(self.video.uri, reason) from error
        self._check(frames)
        return Encoded(frames, os.stat(self.path).st_size, *size, self._psnr() if self.samples else None)

    def _add_stream(self, out: Any, size: tuple[int, int]) -> Any:
        rate = (1 / self.period).limit_denominator(1001)
        stream = out.add_stream(
            CODECS[self.preset.codec], rate=rate or Fraction(1), options=encoder_options(self.preset)
        )
        stream.width, stream.height = size
        stream.pix_fmt = self.format
        context = stream.codec_context
        context.time_base = self.time_base
        context.gop_size = self.preset.gop
        context.thread_count = 1
        context.colorspace = _BT601
        context.color_range = ColorRange.JPEG if self.preset.codec == "mjpeg" else ColorRange.MPEG
        if self.preset.codec == "hevc":
            # Parameters lie in the header alone, which this tag says and some players insist on.
            context.codec_tag = "hvc1"
        return stream

    def _mux(self, out: Any, stream: Any, frame: VideoFrame | None) -> None:
        for packet in stream.encode(frame):
            self.packets += 1
            # Of use for the last frame alone, which no other follows: without it the video ends too early.
            packet.duration = max(round(self.period / packet.time_base), 1)
            out.mux(packet)

    def _time(self, number: int) -> int:
        """Time stamp of a frame of the copy, the first one's being 0."""
        if self.even:
            return number * self.ticks
        stamps = self.video.timestamps
        assert stamps is not None
        return round(int(stamps[number] - stamps[0]) * self.video.time_base / self.time_base)

    def _pictures(self) -> Iterator[NDArray[np.uint8]]:
        """Upright scaled pictures, planar 4:2:0, (height * 3 / 2, width), one for each frame of the copy."""
        if self.numbers is None:
            for frame in self._decode():
                yield self._picture(frame)
            return
        place = 0
        for number, frame in enumerate(self._decode()):
            if number == self.numbers[place]:
                picture = self._picture(frame)
                while place < len(self.numbers) and number == self.numbers[place]:
                    yield picture
                    place += 1
                if place == len(self.numbers):
                    return

    def _decode(self) -> Iterator[VideoFrame]:
        """The frames of the source, as a sequential decode yields them: as many as its row says."""
        video, count = self.video, 0
        problem = "ends"
        try:
            with _open(video) as container:
                container.streams.video[0].codec_context.thread_count = 1
                for frame in container.decode(video=0):
                    if self.stop is not None and self.stop():
                        raise Stopped
                    count += 1
                    if count > video.frames:
                        break
                    yield frame
        except av.FFmpegError as error:
            # Some files end with an error; the index counted what came before it.
            problem = f"cannot be decoded ({error.strerror or error})"
        except (IndexError, OSError, UnicodeError) as error:
            raise VideoError(video.uri, f"cannot be read: {error}") from error
        if count > video.frames:
            raise VideoError(video.uri, f"has more than the {video.frames} frames of its row; index it again")
        if count < video.frames:
            raise VideoError(video.uri, f"{problem} after {count} of {video.frames} frames")

    def _picture(self, frame: VideoFrame) -> NDArray[np.uint8]:
        size = copy_size(self.video.width, self.video.height, self.preset.short_side)
        same = size == (frame.width, frame.height)
        scaled = self.converter.reformat(
            frame,
            width=size[0],
            height=size[1],
            format=self.format,
            dst_colorspace=Colorspace.ITU601,
            dst_color_range=ColorRange.JPEG if self.preset.codec == "mjpeg" else ColorRange.MPEG,
            # Scaled as the loader's decoder scales; without exact rounding other matrices come out two levels darker.
            interpolation=(Interpolation.BILINEAR if same else Interpolation.AREA) | Interpolation.ACCURATE_RND,
            threads=1,
        )
        return upright(scaled.to_ndarray(), self.video.rotation)  # type: ignore[arg-type]  # 8 bits are uint8

    def _check(self, frames: int) -> None:
        if self.packets != frames:
            raise VideoError(self.video.uri, f"{self.preset.codec} made {self.packets} packets of {frames} frames")
        with av.open(self.path) as container:
            written = container.streams.video[0].frames
        if written != frames:
            raise VideoError(self.video.uri, f"{written} of {frames} frames were written")

    def _psnr(self) -> float:
        """Of the sampled frames together."""
        pairs, last = [], max(self.samples)
        with av.open(self.path) as container:
            container.streams.video[0].codec_context.thread_count = 1
            for number, frame in enumerate(container.decode(video=0)):
                picture = self.samples.get(number)
                if picture is not None:
                    pairs.append((picture, frame.to_ndarray()))
                if number == last:
                    break
        return psnr(np.stack([a for a, _ in pairs]), np.stack([b for _, b in pairs]))


def upright(picture: NDArray[np.uint8], rotation: int) -> NDArray[np.uint8]:
    """Turn planar 4:2:0, (height * 3 / 2, width), clockwise by 0, 90, 180 or 270 degrees."""
    if rotation == 0:
        return picture
    height, width = picture.shape[0] * 2 // 3, picture.shape[1]
    luma, chroma = picture[:height], picture[height:].reshape(2, height // 2, width // 2)
    parts = [np.rot90(plane, -rotation // 90) for plane in (luma, *chroma)]
    flat = np.concatenate([np.ascontiguousarray(part).reshape(-1) for part in parts])
    return flat.reshape(-1, parts[0].shape[1])


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio of pictures of 8 bits, dB; 99 where they are the same."""
    error = float(np.mean(np.square(a.astype(np.float32) - b.astype(np.float32))))
    return 99.0 if error == 0 else min(10 * float(np.log10(255.0**2 / error)), 99.0)
