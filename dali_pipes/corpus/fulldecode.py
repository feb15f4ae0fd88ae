"""The slow and certain way: decode every frame, then prove by decoding again where decoding can start.

Containers that keep no usable time stamps, mark key frames loosely or hide frames leave no other way. Of each frame
only its time stamp, its key flag and a checksum of its luma plane are kept.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

# Frames compared after each key frame: a picture that depends on something before its key frame shows it soon.
CHECKED = 16


@dataclass(frozen=True)
class Decoded:
    """What is kept of a decoded frame.

    Attributes:
        pts: Time stamp as the decoder gives it, ticks.
        key: Whether the decoder calls it a key frame.
        checksum: Of the first plane.
        shape: Width, height, pixel format.
        corrupt: Whether the decoder found damage.
    """

    pts: int | None
    key: bool
    checksum: int
    shape: tuple[int, int, str]
    corrupt: bool


@dataclass
class FullDecode:
    """Everything that a sequential decode yields.

    Attributes:
        frames: In display order, as they come out.
        first: The first frame itself; None where none comes out.
        key_packets: Time stamps to try for seeking, (pts or dts, dts), of packets marked as key frames.
        packets: Number of packets read.
        error: Why the decode stopped early; "" where it reached the end.
        at_end: With an error: whether nothing readable followed it, as in a truncated file.
    """

    frames: list[Decoded] = field(default_factory=list)
    first: VideoFrame | None = None
    key_packets: list[tuple[int | None, int | None]] = field(default_factory=list)
    packets: int = 0
    error: str = ""
    at_end: bool = True

    @property
    def by_pts(self) -> bool:
        """Whether time stamps number the frames: all present and strictly increasing as the frames come out."""
        stamps = [frame.pts for frame in self.frames]
        return all(a is not None and b is not None and a < b for a, b in pairwise(stamps)) and None not in stamps


def checksum(frame: VideoFrame) -> int:
    """Checksum of a frame's first plane without the padding at the ends of its lines."""
    plane = frame.planes[0]
    lines = np.frombuffer(memoryview(plane), np.uint8)[: plane.height * plane.line_size]
    lines = lines.reshape(plane.height, plane.line_size)
    if len(frame.planes) == 1:
        used = plane.width * frame.format.padded_bits_per_pixel // 8
    else:
        used = plane.width * (2 if any(part.bits > 8 for part in frame.format.components) else 1)
    return zlib.crc32(lines[:, : min(used, plane.line_size)].tobytes())


def _decoded(frame: VideoFrame) -> Decoded:
    shape = (frame.width, frame.height, frame.format.name)
    return Decoded(frame.pts, bool(frame.key_frame), checksum(frame), shape, bool(frame.is_corrupt))


def decode_everything(container: InputContainer, stream: VideoStream, limit: int | None = None) -> FullDecode:
    """Decode a stream from its beginning, as `container.decode` does, and keep what came out before any error.

    Args:
        container: The video.
        stream: Its stream.
        limit: Stop once more frames or packets than this have come; None: never.
    """
    result = FullDecode()
    packets = container.demux(stream)
    try:
        for packet in packets:
            corrupt = packet.is_corrupt
            if packet.size:
                result.packets += 1
                if packet.is_keyframe:
                    result.key_packets.append((packet.dts if packet.pts is None else packet.pts, packet.dts))
            try:
                decoded = packet.decode()
            except av.FFmpegError as error:
                result.error = error.strerror or type(error).__name__
                result.at_end = corrupt or not _more(packets)
                break
            for frame in decoded:
                if result.first is None:
                    result.first = frame
                result.frames.append(_decoded(frame))
            if limit is not None and max(len(result.frames), result.packets) > limit:
                break
    except av.FFmpegError as error:
        result.error = error.strerror or type(error).__name__
    return result


def _more(packets: Iterator[av.Packet]) -> bool:
    try:
        return any(packet.size and not packet.is_corrupt for packet in packets)
    except av.FFmpegError:
        return False


def starting_points(
    container: InputContainer, stream: VideoStream, full: FullDecode, checked: int = CHECKED
) -> list[tuple[int, int]]:
    """Find the frames where decoding can start, each proved by seeking there and comparing what comes out.

    Args:
        container: The same video.
        stream: Its stream.
        full: What a sequential decode yielded.
        checked: Frames to compare after each.

    Returns:
        (display number, time stamp to seek to), ascending. Where time stamps do not number the frames, the first packet
        after the seek carries that time stamp and the first frame that comes out is the key frame.
    """
    numbers = [i for i, frame in enumerate(full.frames) if frame.key or i == 0]
    ends = [*numbers[1:], len(full.frames)]
    points = []
    for place, (number, following) in enumerate(zip(numbers, ends, strict=True)):
        # One frame past the next key frame at most: what follows it is proved there.
        stop = min(number + checked, following + 1, len(full.frames))
        for target in _targets(full, number, place, len(numbers), stream):
            if _same_after_seek(container, stream, full, number, stop, target):
                points.append((number, target))
                break
    return points


def _targets(full: FullDecode, number: int, place: int, keys: int, stream: VideoStream) -> list[int]:
    """Time stamps that may lead to a key frame, the most likely first."""
    pts = full.frames[number].pts
    targets: list[int | None] = [pts]
    if len(full.key_packets) == keys:
        targets += full.key_packets[place]
    else:
        targets += [stamp for pair in full.key_packets if pts in pair for stamp in pair]
    if number == 0:
        targets += [stream.start_time, 0]
    elif full.by_pts and pts is not None and stream.time_base:
        # Containers without an index find a place by bisection, which may need to begin a little earlier.
        targets += [pts - round(seconds / stream.time_base) for seconds in (0.25, 1, 3)]
    return list(dict.fromkeys(target for target in targets if target is not None))


def _same_after_seek(
    container: InputContainer, stream: VideoStream, full: FullDecode, number: int, stop: int, target: int
) -> bool:
    expected = iter(full.frames[number:stop])
    begun = False
    try:
        container.seek(target, stream=stream, backward=True, any_frame=False)
        for place, packet in enumerate(container.demux(stream)):
            if place == 0 and not full.by_pts and number > 0 and target not in (packet.pts, packet.dts):
                # Who counts from here must be able to tell that the seek went where it was meant to.
                return False
            for decoded in packet.decode():
                if not begun and full.by_pts and _before(decoded, full.frames[number]):
                    continue
                begun = True
                frame = next(expected, None)
                if frame is None:
                    return True
                if decoded.pts != frame.pts or checksum(decoded) != frame.checksum:
                    return False
    except av.FFmpegError:
        # The full decode ended with the same error; all that it gave before must have come.
        pass
    return begun and next(expected, None) is None


def _before(decoded: VideoFrame, wanted: Decoded) -> bool:
    return decoded.pts is None or wanted.pts is None or decoded.pts < wanted.pts
