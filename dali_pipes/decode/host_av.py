"""Decoding with PyAV, which takes every video that FFmpeg knows: exact frames, nothing decoded twice.

On raw videos with a key frame every few seconds most frames are decoded only because others refer to them; what nothing
refers to is skipped, and frames are scaled while they are converted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import av
import numpy as np
from numpy.typing import NDArray

from dali_pipes.decode.numbering import numberer
from dali_pipes.decode.picture import Picture, result_shape
from dali_pipes.decode.plan import Range, plan
from dali_pipes.decode.reading import packets, reading
from dali_pipes.errors import VideoError
from dali_pipes.stages import stage

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

    from dali_pipes.corpus import Video

# Codecs whose decoder honours "skip what nothing refers to" packet by packet; the frames kept stay the same to the bit.
_SKIPS_UNREFERENCED = ("h264", "hevc", "mpeg4", "mpeg2video", "mpeg1video")

# Codecs that FFmpeg would otherwise decode a dozen frames of at each opening, to find out how far frames are reordered.
# Their own headers say it, of H.264 those of nearly every encoder.
_HEADED = ("h264", "hevc")
# Videos whose headers do not.
_UNTOLD: set[str] = set()
_MOST_UNTOLD = 100_000


def decode(
    video: Video,
    frames: NDArray[np.int64],
    width: int,
    height: int,
    *,
    square: bool = False,
    out: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Decodes some frames of one video.

    Args:
        video: Row of the corpus.
        frames: Sorted unique frame numbers.
        width, height: Size that frames are scaled to, pixels.
        square: Give the centred square of that alone.
        out: Where to write the result; None: to new memory.

    Returns:
        ``(N, height, width, 3)`` uint8 RGB, or ``(N, side, side, 3)``, as stored (not turned upright).

    Raises:
        VideoError: If the file cannot be opened or a frame cannot be decoded.
    """
    if out is None:
        out = np.empty(result_shape(len(frames), width, height, square), np.uint8)
    picture = Picture(width, height, square=square)
    # A header that does not tell how far frames are reordered makes the decoder drop some, as it cannot with packets
    # that are no frames; never does it give one another time stamp.
    if video.sliceable and video.codec in _HEADED and video.uri not in _UNTOLD:
        try:
            return _decode(video, frames, picture, out, undecoded=True)
        except _IncompleteError:
            if len(_UNTOLD) > _MOST_UNTOLD:
                _UNTOLD.clear()
            _UNTOLD.add(video.uri)
    return _decode(video, frames, picture, out, undecoded=False)


def _decode(
    video: Video, frames: NDArray[np.int64], picture: Picture, out: NDArray[np.uint8], *, undecoded: bool
) -> NDArray[np.uint8]:
    with _opened(video, undecoded) as container:
        done, fresh = 0, True
        for run in plan(frames, video.key_frames, video.key_timestamps):
            part = out[done : done + len(run.wanted)]
            try:
                _decode_run(container, video, run, _Wanted(run, part, picture), seek=run.key > 0 or not fresh)
            except _LateSeekError:
                whole = replace(run, key=0)
                with _opened(video, undecoded) as again:
                    _decode_run(again, video, whole, _Wanted(run, part, picture), seek=False)
            done, fresh = done + len(run.wanted), False
    return out


class _IncompleteError(VideoError):
    """Frames did not come out of the decoder."""


class _LateSeekError(Exception):
    """A seek ended behind the key frame, as it may in containers without an index."""


class _Wanted:
    """The frames of a run that are still missing, and where they go.

    Attributes:
        places: Frame number -> place in the result.
    """

    def __init__(self, run: Range, out: NDArray[np.uint8], picture: Picture) -> None:
        self.places = {number: at for at, number in enumerate(run.wanted.tolist())}
        self._out, self._picture = out, picture

    def take(self, number: int, frame: av.VideoFrame) -> bool:
        """Keeps a frame if it is wanted; whether that was the last one."""
        at = self.places.pop(number, None)
        if at is None:
            return False
        self._picture(frame, self._out, at)
        return not self.places


@contextmanager
def _opened(video: Video, undecoded: bool) -> Iterator[InputContainer]:
    with reading(video, "decoded", undecoded=undecoded) as container:
        # The loader decodes many videos at once, which scales better than several threads in each of them.
        container.streams.video[0].codec_context.thread_count = 1
        yield container


def _decode_run(container: InputContainer, video: Video, run: Range, wanted: _Wanted, *, seek: bool) -> None:
    """Decodes one run of frames."""
    stream = container.streams.video[0]
    if seek:
        with stage("read"):
            container.seek(run.timestamp, stream=stream, backward=True, any_frame=False)
    # Where decoding has to begin, or none where it begins with the file.
    if video.numbering == "pts":
        _by_pts(container, stream, video, wanted, begin=run.key if seek else None)
    else:
        _by_count(container, stream, run.key, wanted, begin=run.timestamp if seek else None)
    left = wanted.places
    if not left:
        return
    if seek:  # what was sought may have been read past; from the start it is found if it is there
        raise _LateSeekError
    reason = f"{len(left)} frames could not be decoded; the first is {min(left)} of {video.frames}"
    raise _IncompleteError(video.uri, reason)


def _by_pts(
    container: InputContainer, stream: VideoStream, video: Video, wanted: _Wanted, *, begin: int | None
) -> None:
    """Takes frames by their time stamps. Packets come by the hundred, so the loop does as little as it can."""
    context = stream.codec_context
    decode, take, number_of = context.decode, wanted.take, numberer(video)
    # Only where each packet is a frame does having sent a packet mean that its frame will come out, and the same frame
    # whatever was skipped.
    sliceable = video.sliceable
    skips = sliceable and video.codec in _SKIPS_UNREFERENCED
    unsent = set(wanted.places)
    skipping: bool | None = None
    first = begin is not None
    for packet in packets(container, stream):
        if not packet.size:
            break
        number = number_of(packet.pts)
        if first:
            if begin is not None and number > begin:
                raise _LateSeekError
            first = False
        needed = number in unsent
        if skips and skipping is not (not needed):
            context.skip_frame = "DEFAULT" if needed else "NONREF"
            skipping = not needed
        for frame in decode(packet):
            if take(number_of(frame.pts), frame):
                return
        if needed:
            unsent.discard(number)
            if sliceable and not unsent:
                break
    # The end of the stream makes the decoder hand out what it holds back for reordering; reading on instead would
    # decode frames only to throw them away.
    for frame in decode(None):
        take(number_of(frame.pts), frame)


def _by_count(
    container: InputContainer, stream: VideoStream, number: int, wanted: _Wanted, *, begin: int | None
) -> None:
    """Takes frames by counting from the key frame ``number`` on, whose packet has the time stamp ``begin``."""
    context = stream.codec_context
    for i, packet in enumerate(packets(container, stream)):
        if i == 0 and begin is not None and begin not in (packet.dts, packet.pts):
            raise _LateSeekError  # counting would begin at another frame
        for frame in context.decode(packet):
            if wanted.take(number, frame):
                return
            number += 1
