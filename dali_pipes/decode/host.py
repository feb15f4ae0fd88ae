"""Decoding on the CPU with PyAV: exact frames, nothing decoded twice, no frame larger than needed.

Used for what DALI cannot decode on the device at hand, and by everything that wants a few frames of one video.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from dali_pipes.decode.numbering import numberer
from dali_pipes.decode.plan import Range, plan
from dali_pipes.decode.reading import reading
from dali_pipes.errors import VideoError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

    from dali_pipes.corpus import Video

# Codecs whose decoder honours "skip what nothing refers to" packet by packet; the frames kept stay the same to the bit.
_SKIPS_UNREFERENCED = ("h264", "hevc", "mpeg4", "mpeg2video", "mpeg1video")


def decode_frames(video: Video, frames: NDArray[np.int64], *, short_side: int | None = None) -> NDArray[np.uint8]:
    """Decodes some frames of one video.

    Args:
        video: Row of the corpus.
        frames: Sorted unique frame numbers.
        short_side: Scale so that the shorter side has this many pixels, aspect kept; None or a size larger than the
            video's: as it is.

    Returns:
        ``(N, H, W, 3)`` uint8 RGB, upright.

    Raises:
        VideoError: If the file cannot be opened or a frame cannot be decoded.
    """
    width, height = working_size(video.width, video.height, short_side)
    out = np.empty((len(frames), height, width, 3), np.uint8)
    picture = _Picture(width, height)
    with _opened(video) as container:
        done, fresh = 0, True
        for run in plan(frames, video.key_frames, video.key_timestamps):
            part = out[done : done + len(run.wanted)]
            try:
                _decode_run(container, video, run, part, picture, seek=run.key > 0 or not fresh)
            except _LateSeekError:
                with _opened(video) as again:
                    _decode_run(again, video, replace(run, key=0), part, picture, seek=False)
            done, fresh = done + len(run.wanted), False
    if video.rotation:
        out = np.rot90(out, -video.rotation // 90, axes=(1, 2))
    return out


def working_size(width: int, height: int, short_side: int | None) -> tuple[int, int]:
    """Width and height after scaling the shorter side down to ``short_side``; never up.

    >>> working_size(340, 256, 128), working_size(64, 48, 128)
    ((170, 128), (64, 48))
    """
    shorter = min(width, height)
    if short_side is None or short_side >= shorter:
        return width, height
    scale = short_side / shorter
    return max(round(width * scale), 1), max(round(height * scale), 1)


class _Picture:
    """Converts decoded frames to RGB of one size. Keeps its converter: a new one for each frame costs 1 ms a frame."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.converter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame, out: NDArray[np.uint8], at: int) -> None:
        """Writes the frame to ``out[at]``."""
        # Averaging over the area does not alias when shrinking, and is the quickest of FFmpeg's scalers here.
        same = frame.width == self.width and frame.height == self.height
        interpolation = Interpolation.BILINEAR if same else Interpolation.AREA
        rgb = self.converter.reformat(
            frame, width=self.width, height=self.height, format="rgb24", interpolation=interpolation, threads=1
        )
        out[at] = rgb.to_ndarray()


class _LateSeekError(Exception):
    """A seek ended behind the key frame, as it may in containers without an index."""


@contextmanager
def _opened(video: Video) -> Iterator[InputContainer]:
    with reading(video, "decoded") as container:
        # The loader decodes many videos at once, which scales better than several threads in each of them.
        container.streams.video[0].codec_context.thread_count = 1
        yield container


def _decode_run(
    container: InputContainer, video: Video, run: Range, out: NDArray[np.uint8], picture: _Picture, *, seek: bool
) -> None:
    """Decodes one run of frames into ``out``."""
    slot = {number: i for i, number in enumerate(run.wanted.tolist())}
    stream = container.streams.video[0]
    if seek:
        container.seek(run.timestamp, stream=stream, backward=True, any_frame=False)
    decode = _by_pts if video.numbering == "pts" else _by_count
    decode(container, stream, video, run, slot, out, picture, strict=seek)
    if not slot:
        return
    if seek:  # what was sought may have been read past; from the start it is found if it is there
        raise _LateSeekError
    raise VideoError(video.uri, f"{len(slot)} frames could not be decoded; the first is {min(slot)} of {video.frames}")


def _by_pts(
    container: InputContainer,
    stream: VideoStream,
    video: Video,
    run: Range,
    slot: dict[int, int],
    out: NDArray[np.uint8],
    picture: _Picture,
    *,
    strict: bool,
) -> None:
    """Fills ``out`` and empties ``slot``. Packets come by the hundred, so the loop does as little as it can."""
    context = stream.codec_context
    decode, number_of = context.decode, numberer(video)
    # Only where each packet is a frame does having sent a packet mean that its frame will come out, and the same frame
    # whatever was skipped.
    sliceable = video.sliceable
    skips = sliceable and video.codec in _SKIPS_UNREFERENCED
    unsent = set(slot)
    skipping: bool | None = None
    first = strict
    for packet in container.demux(stream):
        if not packet.size:
            break
        number = number_of(packet.pts)
        if first:
            if number > run.key:
                raise _LateSeekError
            first = False
        wanted = number in unsent
        if skips and skipping is not (not wanted):
            context.skip_frame = "DEFAULT" if wanted else "NONREF"
            skipping = not wanted
        for frame in decode(packet):
            at = slot.pop(number_of(frame.pts), None)
            if at is not None:
                picture(frame, out, at)
                if not slot:
                    return
        if wanted:
            unsent.discard(number)
            if sliceable and not unsent:
                break
    # The end of the stream makes the decoder hand out what it holds back for reordering; reading on instead would
    # decode frames only to throw them away.
    for frame in decode(None):
        at = slot.pop(number_of(frame.pts), None)
        if at is not None:
            picture(frame, out, at)


def _by_count(
    container: InputContainer,
    stream: VideoStream,
    video: Video,
    run: Range,
    slot: dict[int, int],
    out: NDArray[np.uint8],
    picture: _Picture,
    *,
    strict: bool,
) -> None:
    """Fills ``out`` and empties ``slot``, counting frames from the key frame on."""
    context = stream.codec_context
    number = run.key
    for i, packet in enumerate(container.demux(stream)):
        if i == 0 and strict and run.timestamp not in (packet.dts, packet.pts):
            raise _LateSeekError  # counting would begin at another frame
        for frame in context.decode(packet):
            at = slot.pop(number, None)
            number += 1
            if at is not None:
                picture(frame, out, at)
                if not slot:
                    return
