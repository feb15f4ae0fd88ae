"""Cuts the packets that some frames need out of a video, without decoding, into a small video in memory.

DALI's decoder does not seek: it decodes from the first frame of what it is given, and wants all of it in memory. So it
is given no more than the packets from the governing key frame to the last frame wanted (1 to 2 ms, 12 to 36 % of the
bytes on 300-frame files), and numbers relative to them. An hour-long video costs no more than a short one.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np
from av.codec.codec import UnknownCodecError
from numpy.typing import NDArray

from dali_pipes.corpus.packets import length_size, splices
from dali_pipes.decode.numbering import numberer
from dali_pipes.decode.plan import Range, plan
from dali_pipes.decode.reading import packets as packets_of
from dali_pipes.decode.reading import reading
from dali_pipes.errors import VideoError
from dali_pipes.stages import stage

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet

    from dali_pipes.corpus import Video

# Time stamps are written anew, one frame every 40 ms: exact in Matroska's milliseconds whatever they were before.
_FRAME = Fraction(1, 25)


@dataclass(frozen=True)
class Slice:
    """A small video in memory.

    Attributes:
        data: ``(N,)`` uint8, a Matroska file.
        frames: ``(F,)`` int32, where the frames asked for stand in it, counted in order of presentation.
    """

    data: NDArray[np.uint8]
    frames: NDArray[np.int32]


def cut(video: Video, frames: NDArray[np.int64]) -> Slice:
    """Cuts the packets needed for some frames of a video.

    Args:
        video: Row of the corpus; its ``numbering`` is ``pts``.
        frames: Sorted unique frame numbers.

    Raises:
        VideoError: If the file cannot be read or lacks a packet.
    """
    with reading(video, "read", undecoded=True) as container:
        runs = plan(frames, video.key_frames, video.key_timestamps)
        try:
            numbers, packets = _collect(container, video, runs)
        except _OpenGOPError:
            # Then what lies between the ranges must be decoded too.
            numbers, packets = _collect(container, video, [replace(runs[0], wanted=frames)], fresh=False)
        try:
            data = _remux(container, numbers, packets)
        except UnknownCodecError as error:  # the muxer asks for a coder of that name (AV1's libdav1d has none)
            raise VideoError(video.uri, f"packets of {video.codec} cannot be cut out: {error}") from error
    return Slice(data, np.searchsorted(np.sort(numbers), frames).astype(np.int32))


class _OpenGOPError(Exception):
    """A later range begins with a key frame that cannot follow packets of another place."""


def _collect(
    container: InputContainer, video: Video, runs: list[Range], *, fresh: bool = True
) -> tuple[list[int], list[Packet]]:
    """Frame numbers and packets, in decoding order, of all ranges."""
    stream = container.streams.video[0]
    size = length_size(video.codec, stream.codec_context.extradata)
    number_of = numberer(video)
    numbers: list[int] = []
    packets: list[Packet] = []
    taken: set[int] = set()
    for run in runs:
        missing = set(run.wanted.tolist()) - taken
        # With open GOPs the last range may have ended behind this key frame: then reading just goes on.
        begun, lowest = (True, 0) if run.key in taken else (False, run.key)
        if not begun and not (fresh and run.key == 0):
            with stage("read"):
                container.seek(run.timestamp, stream=stream, backward=True, any_frame=False)
        fresh = False
        # A packet once read is gone: do not ask for one more than is needed, the next range may go on from here.
        for packet in packets_of(container, stream) if missing else ():
            number = number_of(packet.pts) if packet.size else -1
            if not begun:
                if number > run.key:
                    raise VideoError(video.uri, f"seeking to key frame {run.key} ended at frame {number}")
                begun = number == run.key
                if begun and packets and not splices(video.codec, memoryview(packet), size):
                    raise _OpenGOPError
            # Frames shown before the key frame but stored behind it refer to what was not cut out.
            if begun and number >= lowest and number not in taken:
                numbers.append(number)
                packets.append(packet)
                taken.add(number)
                missing.discard(number)
            if not missing:
                break
        if missing:
            raise VideoError(video.uri, f"{len(missing)} frames have no packet; the first is {min(missing)}")
    return numbers, packets


def _remux(container: InputContainer, numbers: list[int], packets: list[Packet]) -> NDArray[np.uint8]:
    """Writes packets into a Matroska file in memory, with time stamps that leave no gaps."""
    place = {number: i for i, number in enumerate(sorted(numbers))}
    # Decoding times must rise and not lie after presentation: shift presentation by the deepest reordering.
    delay = max(i - place[number] for i, number in enumerate(numbers))
    target = io.BytesIO()
    with av.open(target, "w", format="matroska") as out:
        stream = out.add_stream_from_template(container.streams.video[0])
        # Else whoever opens it reads on to find out.
        stream.codec_context.framerate = 1 / _FRAME
        for i, (number, packet) in enumerate(zip(numbers, packets, strict=True)):
            packet.stream = stream
            packet.time_base = _FRAME
            packet.pts = place[number] + delay
            packet.dts = i
            packet.duration = 1
            out.mux(packet)
    return np.frombuffer(target.getbuffer(), np.uint8)
