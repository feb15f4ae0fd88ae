"""What a compressed packet shows, read from its first bytes and without decoding it.

A container's packets are not its frames: a packet may hold a hidden reference frame, nothing but parameters, or a
picture marked as a key frame from which decoding cannot start cleanly. One small reader per codec tells.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

# Up to this an MPEG-4 packet may be a "not coded" picture (start code and at most 8 bytes; 7 in all in practice), of
# which no frame comes out. A coded picture needs a bit for each macroblock, so it is larger from 96 x 96 pixels on.
_MPEG4_NOT_CODED = 12
_CHANGE = "parameters change within the stream"


@dataclass
class PacketReader:
    """Reads the packets of one stream, in decoding order.

    Attributes:
        codec: FFmpeg's codec name.
        length_size: Bytes of the length before each NAL unit (H.264, HEVC); 0 where start codes separate them.
        problem: Why frames cannot be counted by packets; "" as long as they can.
    """

    codec: str
    length_size: int = 0
    problem: str = ""
    _parameters: set[bytes] = field(default_factory=set)

    def shows(self, data: memoryview, key: bool) -> bool:
        """Whether the packet shows a frame; sets `problem` where it shows anything but none or one.

        Args:
            data: The packet's bytes.
            key: Whether the container marks it as a key frame.
        """
        reader = _READERS.get(self.codec)
        if reader is None:
            self.problem = self.problem or f"{self.codec} packets are not read"
            return True
        return reader(self, data, key)

    def _same(self, parameters: bytes) -> bool:
        """Whether these are the only parameters (size, format) seen so far."""
        self._parameters.add(parameters)
        return len(self._parameters) == 1

    def _fail(self, problem: str) -> bool:
        self.problem = self.problem or problem
        return True


def readable(codec: str) -> bool:
    """Whether packets of this codec can be read at all."""
    return codec in _READERS


def length_size(codec: str, extradata: bytes | None) -> int:
    """Bytes of each NAL unit's length, from the decoder configuration (ISO/IEC 14496-15); 0 for start codes."""
    if not extradata or extradata[0] != 1:
        return 0
    place = {"h264": 4, "hevc": 21}.get(codec)
    return 0 if place is None or len(extradata) <= place else (extradata[place] & 3) + 1


def _nal_units(data: memoryview, size: int) -> list[tuple[int, int]] | None:
    """Begin and end of each NAL unit; None where the lengths do not add up to the packet."""
    units = []
    place, end = 0, len(data)
    if size:
        while place < end:
            begin = place + size
            place = begin + int.from_bytes(data[place:begin], "big")
            if begin > end or place > end or place == begin:
                return None
            units.append((begin, place))
        return units
    text = bytes(data)
    place = text.find(b"\0\0\1")
    while place >= 0:
        following = text.find(b"\0\0\1", place + 3)
        units.append((place + 3, following if following >= 0 else end))
        place = following
    return [unit for unit in units if unit[1] > unit[0]] or None


def _nal(reader: PacketReader, data: memoryview, key: bool, *, hevc: bool) -> bool:
    units = _nal_units(data, reader.length_size)
    if units is None:
        return reader._fail("damaged NAL units")
    picture = start = False
    for begin, end in units:
        if hevc:
            # Rec. H.265, table 7-1: 0 to 31 are slices, 16 to 21 random access points, 33 a sequence parameter set.
            kind = (data[begin] >> 1) & 63
            picture |= kind < 32
            start |= 16 <= kind <= 21
            parameters = kind == 33
        else:
            # Rec. H.264, table 7-1: 1 to 5 are slices, 5 of an IDR picture, 7 a sequence parameter set.
            kind = data[begin] & 31
            picture |= 1 <= kind <= 5
            start |= kind == 5
            parameters = kind == 7
        if parameters and not reader._same(bytes(data[begin:end]).rstrip(b"\0")):
            return reader._fail(_CHANGE)
    if not picture:
        return reader._fail("packets without a picture")
    if key and not start:
        return reader._fail("key frames that are no clean starting points")
    return True


def _h264(reader: PacketReader, data: memoryview, key: bool) -> bool:
    return _nal(reader, data, key, hevc=False)


def _hevc(reader: PacketReader, data: memoryview, key: bool) -> bool:
    return _nal(reader, data, key, hevc=True)


def _vp8(reader: PacketReader, data: memoryview, key: bool) -> bool:
    # RFC 6386, section 9.1: bit 0 is 0 for key frames, bit 4 says whether the frame is shown; a key frame has its size
    # after the start code.
    if key == bool(data[0] & 1):
        return reader._fail("key frames marked wrongly")
    if key and not reader._same(bytes(data[6:10])):
        return reader._fail(_CHANGE)
    return bool(data[0] & 16)


def _vp9_shown(reader: PacketReader, frame: memoryview) -> bool:
    """Whether one VP9 frame is shown (VP9 bitstream specification, section 6.2, uncompressed header)."""
    head = int.from_bytes(bytes(frame[:12]).ljust(12, b"\0"), "big")
    place = 96

    def take(bits: int) -> int:
        nonlocal place
        place -= bits
        return (head >> place) & ((1 << bits) - 1)

    if take(2) != 2:
        return reader._fail("damaged frame header")
    profile = take(1) | take(1) << 1
    if profile == 3:
        take(1)
    if take(1):  # shows a frame decoded earlier
        return True
    inter, shown, error_resilient = take(1), take(1), take(1)
    if not inter:
        # Start code (24 bits), colours (4 to 8 bits by profile) and size (32 bits) in a row.
        if not reader._same(bytes([profile]) + take((60, 63, 61, 64)[profile]).to_bytes(8, "big")):
            return reader._fail(_CHANGE)
    elif shown:  # a frame that is not shown and intra-only goes on otherwise
        take((0 if error_resilient else 2) + 8 + 12)
        if not take(3) and frame[1:]:  # the size of none of its three references
            return reader._fail(_CHANGE)
    return bool(shown)


def _vp9(reader: PacketReader, data: memoryview, key: bool) -> bool:
    # Annex B of the specification: a superframe ends with an index of its frames' sizes.
    marker = data[-1]
    frames, size = (marker & 7) + 1, ((marker >> 3) & 3) + 1
    index = 2 + frames * size
    starts = [0]
    if marker & 0xE0 == 0xC0 and len(data) > index and data[-index] == marker:
        table = data[len(data) - index + 1 : -1]
        for number in range(frames - 1):
            starts.append(starts[-1] + int.from_bytes(table[number * size : (number + 1) * size], "little"))
    if starts[-1] >= len(data):
        return reader._fail("damaged superframe")
    shown = sum(_vp9_shown(reader, data[start:]) for start in starts)
    if shown > 1:
        return reader._fail("packets with several frames")
    return shown == 1


def _one(reader: PacketReader, data: memoryview, key: bool) -> bool:
    return True


def _mpeg4(reader: PacketReader, data: memoryview, key: bool) -> bool:
    # ISO/IEC 14496-2, 6.2.5: start code of a picture (VOP), then 2 bits of type: 0 I, 1 P, 2 B, 3 sprite.
    text = bytes(data)
    vop = text.find(b"\0\0\1\xb6")
    if vop < 0 or vop + 5 > len(text) or len(text) - vop <= _MPEG4_NOT_CODED:
        return reader._fail("pictures that may not be coded")
    if text[vop + 4] >> 6 == 2 or text.find(b"\0\0\1\xb6", vop + 4) >= 0:
        return reader._fail("B-frames")
    if key and text[vop + 4] >> 6:
        return reader._fail("key frames marked wrongly")
    return True


_READERS: dict[str, Callable[[PacketReader, memoryview, bool], bool]] = {
    "h264": _h264,
    "hevc": _hevc,
    "vp8": _vp8,
    "vp9": _vp9,
    # A packet is a temporal unit, which shows exactly one frame (AV1 bitstream specification, section 7.5).
    "av1": _one,
    "mjpeg": _one,
    "mpeg4": _mpeg4,
}


def splices(codec: str, data: memoryview, length_size: int) -> bool:
    """Whether a key frame can be decoded straight after packets from another place of the video.

    An IDR picture empties the decoder. The key frame of an open GOP does not: it is ordered by what went before it, so
    that after a jump the decoder gives frames in another order or drops some. That is a recovery point in H.264 and a
    CRA picture in HEVC (Rec. H.265, 7.4.2.2); BLA pictures (16 to 18) are made for splicing.

    Args:
        codec: FFmpeg's codec name.
        data: The key frame's packet.
        length_size: As `length_size` gives it.
    """
    if codec not in ("h264", "hevc"):
        return True
    kinds = [data[begin] for begin, _ in _nal_units(data, length_size) or []]
    if codec == "h264":
        return any(kind & 31 == 5 for kind in kinds)
    return any(16 <= (kind >> 1) & 63 <= 20 for kind in kinds)
