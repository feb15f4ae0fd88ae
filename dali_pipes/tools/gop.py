"""How a video is put together: its packets, gathered into the groups of pictures between key frames.

Nothing is decoded. Types of pictures are read from the first bytes of the packets, where the codec says them there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dali_pipes.corpus import Video
from dali_pipes.corpus.packets import length_size
from dali_pipes.decode.numbering import numberer
from dali_pipes.decode.reading import reading

# Slice types of H.264 (Rec. H.264, 7.4.3), SP and SI counted as what they are to a decoder.
_H264_TYPES = "PBIPI"
_MPEG4_TYPES = "IPBS"
_MPEG2_TYPES = {1: "I", 2: "P", 3: "B"}
_INTRA = ("mjpeg", "prores", "dnxhd", "ffv1", "huffyuv", "rawvideo")
_BY_KEY = ("vp8", "vp9", "av1")


@dataclass(frozen=True)
class Structure:
    """What the packets of a video say.

    Attributes:
        container: FFmpeg's name of the container.
        packets: How many the video stream has.
        stream_bytes: Bytes of all packets of the video stream.
        lengths: Frames from each key frame to the next, int64 (K,).
        bytes: Bytes of each GOP in the order of storage, int64 (K,); None where packets do not say where GOPs begin.
        types: Picture types of each GOP, such as {"I": 1, "P": 11}, K of them; None where the packets do not say.
        intervals: Seconds from each frame to the next, float64 (frames - 1,); None without usable time stamps.
    """

    container: str
    packets: int
    stream_bytes: int
    lengths: NDArray[np.int64]
    bytes: NDArray[np.int64] | None
    types: list[dict[str, int]] | None
    intervals: NDArray[np.float64] | None


def structure(video: Video) -> Structure:
    """Read all packets of a video, and decode none.

    Raises:
        VideoError: The file cannot be read.
    """
    keys, seeks = video.key_frames.tolist(), video.key_timestamps.tolist()
    sizes: list[int] = []
    begins: list[int] = []
    kinds: list[str] = []
    stamps: list[int] = []
    number_of = numberer(video)
    with reading(video, "read") as container:
        stream = container.streams.video[0]
        length = length_size(video.codec, stream.codec_context.extradata)
        name = container.format.name
        for packet in container.demux(stream):
            if not packet.size:
                continue
            number = number_of(packet.pts) if video.numbering == "pts" else -1
            place = len(begins)
            # Whatever its time stamp says, frame 0 is decoded from the first packet on.
            if not sizes or (
                packet.is_keyframe
                and place < len(keys)
                and (number == keys[place] if video.numbering == "pts" else seeks[place] in (packet.pts, packet.dts))
            ):
                begins.append(len(sizes))
            if number >= 0 and packet.pts is not None:
                stamps.append(packet.pts)
            sizes.append(packet.size)
            kinds.append(picture_type(video.codec, memoryview(packet), bool(packet.is_keyframe), length))
    told = len(begins) == len(keys)
    # VP9 may begin with a picture that stands alone and is no key frame; then key frames do not tell the types.
    if video.codec in _BY_KEY and kinds[:1] != ["I"]:
        kinds = [""]
    groups = [slice(a, b) for a, b in zip(begins, [*begins, len(sizes)][1:], strict=True)]
    return Structure(
        container=name,
        packets=len(sizes),
        stream_bytes=sum(sizes),
        lengths=np.diff(np.append(video.key_frames, video.frames)),
        bytes=np.array([sum(sizes[group]) for group in groups], np.int64) if told else None,
        types=[dict(Counter(kinds[group])) for group in groups] if told and "" not in kinds else None,
        intervals=_intervals(video, stamps),
    )


def _intervals(video: Video, stamps: list[int]) -> NDArray[np.float64] | None:
    pts = np.unique(np.array(stamps if video.timestamps is None else video.timestamps, np.int64))
    return np.diff(pts) * float(video.time_base) if len(pts) == video.frames else None


def picture_type(codec: str, data: memoryview, key: bool, length: int) -> str:
    """Type of the picture in a packet: I, P, B, or - for a packet without one; "" where the packet does not say.

    Args:
        codec: FFmpeg's codec name.
        data: The packet.
        key: Whether it is marked as a key frame.
        length: Bytes of the length before each NAL unit (H.264); 0 where start codes separate them.
    """
    if codec in _INTRA:
        return "I"
    if codec in _BY_KEY:
        # These have no B pictures; a picture that is no key frame predicts from earlier ones.
        return "I" if key else "P"
    if codec == "h264":
        return _h264_type(data, length)
    text = bytes(data)
    if codec == "mpeg4":
        place = text.find(b"\0\0\1\xb6")
        return _MPEG4_TYPES[text[place + 4] >> 6] if 0 <= place < len(text) - 4 else "-"
    if codec in ("mpeg1video", "mpeg2video"):
        place = text.find(b"\0\0\1\0")
        return _MPEG2_TYPES.get(text[place + 5] >> 3 & 7, "-") if 0 <= place < len(text) - 5 else "-"
    return ""


def _h264_type(data: memoryview, length: int) -> str:
    place = 0
    while place < len(data):
        if length:
            begin = place + length
            place = begin + int.from_bytes(data[place:begin], "big")
        else:
            mark = bytes(data[place:]).find(b"\0\0\1")
            if mark < 0:
                return "-"
            place = begin = place + mark + 3
        if begin >= len(data):
            return "-"
        if data[begin] & 31 in (1, 5):
            # Slice header: first_mb_in_slice, then slice_type, both Exp-Golomb codes of a few bits.
            bits = "".join(f"{byte:08b}" for byte in data[begin + 1 : begin + 13])
            _, bits = _exp_golomb(bits)
            kind, _ = _exp_golomb(bits)
            return _H264_TYPES[kind % 5]
    return "-"


def _exp_golomb(bits: str) -> tuple[int, str]:
    zeros = len(bits) - len(bits.lstrip("0"))
    end = 2 * zeros + 1
    return int(bits[:end] or "1", 2) - 1, bits[end:]


def timeline(key_frames: Sequence[int] | NDArray[np.int64], frames: int, width: int) -> str:
    """Key frames drawn over the length of a video: `|` one in this column, `#` several, `-` none.

    >>> timeline([0, 12, 24, 30], 36, 18)
    '|-----|-----|--|--'
    """
    columns = max(min(width, frames), 1)
    counts = Counter(int(number) * columns // frames for number in key_frames)
    return "".join("#" if counts[i] > 1 else "|" if counts[i] else "-" for i in range(columns))
