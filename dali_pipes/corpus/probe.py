"""One video file in, what the corpus says about it out: from its packets where these suffice, else by a full decode.

Packets suffice where every one has its own time stamp and shows one frame or, knowably, none. Even then the first frame
and the one at the last key frame are decoded, so that what cannot be decoded at all is found here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from dali_pipes.corpus.fulldecode import FullDecode, decode_everything, starting_points
from dali_pipes.corpus.packets import PacketReader, length_size, readable
from dali_pipes.corpus.storage import Stat, open_source, stat_source
from dali_pipes.errors import VideoError

# Changes whenever the same file may give another row, so that earlier results are not taken over.
PROBE_VERSION = 1
MAX_SIDE = 16384
# Four days at 30 frames/s: what a header claims beyond is a lie, and each takes memory.
MAX_FRAMES = 10_000_000
# Containers that store a time stamp (or a place in an even grid) with every packet and say which are key frames.
_INDEXED = {"mov", "matroska", "avi"}
_REORDERING = {"h264", "hevc"}


@dataclass
class Probed:
    """What a probe finds out; the fields are columns of the corpus."""

    uri: str
    codec: str = ""
    pixel_format: str = ""
    width: int = 0
    height: int = 0
    rotation: int = 0
    frames: int = 0
    time_base_num: int = 0
    time_base_den: int = 1
    start: int = 0
    step: float = 0.0
    rate: float = 0.0
    constant: bool = True
    key_frames: list[int] = field(default_factory=list)
    key_timestamps: list[int] = field(default_factory=list)
    timestamps: list[int] | None = None
    numbering: str = "pts"
    uniform: bool = True
    sliceable: bool = False
    duration: float = 0.0
    bytes: int = 0
    offset: int = -1
    mtime_ns: int = 0
    error: str = ""
    notes: str = ""


def probe_row(
    uri: str,
    *,
    known: Stat | None = None,
    thorough: bool = False,
    max_side: int = MAX_SIDE,
    max_frames: int = MAX_FRAMES,
) -> dict[str, Any]:
    """Probe a video and never raise for what is wrong with it: the row's `error` says so.

    Args:
        uri: Path or address of the file.
        known: Its size, version and place in a tar shard; None: to be found out.
        thorough: Decode every frame even where packets suffice.
        max_side: Largest width or height accepted, pixels.
        max_frames: Largest number of frames or packets accepted.

    Returns:
        Columns of the corpus, without label, split and group.
    """
    try:
        known = known or stat_source(uri)
        return asdict(probe(uri, known=known, thorough=thorough, max_side=max_side, max_frames=max_frames))
    except VideoError as error:
        row = Probed(uri, error=error.reason)
    except MemoryError:
        row = Probed(uri, error="needs more memory than a probe may take")
    # A server that was lost says nothing about the file: without size and time it is asked again the next time.
    if known is not None and not row.error.startswith("server lost"):
        row.bytes, row.mtime_ns, row.offset = known.bytes, known.mtime_ns, known.offset
    return asdict(row)


def probe(
    uri: str,
    *,
    known: Stat | None = None,
    thorough: bool = False,
    max_side: int = MAX_SIDE,
    max_frames: int = MAX_FRAMES,
) -> Probed:
    """Find out what decoding and sampling need to know about a video.

    Args:
        uri: Path or address of the file.
        known: Its size, version and place in a tar shard; None: to be found out.
        thorough: Decode every frame even where packets suffice.
        max_side: Largest width or height accepted, pixels.
        max_frames: Largest number of frames or packets accepted.

    Raises:
        VideoError: The video cannot be used; the reason is in words.
    """
    known = known or stat_source(uri)
    if known.bytes == 0:
        raise VideoError(uri, "the file is empty")
    row = _blank(uri, known)
    try:
        why = _from_packets(row, max_side, max_frames)
        if why or thorough:
            by_packets, row = row, _blank(uri, known)
            _from_decode(row, max_side, max_frames)
            row.sliceable = not why and by_packets.sliceable and by_packets.frames == row.frames
    except av.FFmpegError as error:
        raise VideoError(uri, f"cannot be opened: {_words(error)}") from error
    except (UnicodeError, ValueError, ArithmeticError, RuntimeError) as error:
        if isinstance(error, VideoError):
            raise
        # Hostile headers reach PyAV's own conversions, whose exceptions are no FFmpeg errors.
        raise VideoError(uri, f"its header cannot be read: {error}") from error
    return row


def _blank(uri: str, known: Stat) -> Probed:
    return Probed(uri, bytes=known.bytes, offset=known.offset, mtime_ns=known.mtime_ns)


def open_video(
    uri: str,
    offset: int = -1,
    size: int = -1,
    mtime_ns: int = 0,
    *,
    undecoded: bool = False,
    unparsed: bool = False,
) -> InputContainer:
    """Open a video for reading, whatever the encoding of its metadata (HMDB-51 has titles that are not UTF-8).

    Args:
        uri: Path or address (see `dali_pipes.corpus.storage`).
        offset: Byte where it begins in its tar shard, -1 where it is a file of its own.
        size: Bytes of it; -1: to be asked for.
        mtime_ns: Version of the file, for the cache of remote ones.
        undecoded: Do not decode frames to find out what the header does not say (of H.264 seven and more, which takes
            most of the time of opening). For who takes packets: a decoder would not know how far frames are reordered.
        unparsed: With `undecoded`: neither look into packets nor guess what the container does not say of them, as
            decoding times in Matroska. For containers whose packets are frames.
    """

    def opened(**how: Any) -> InputContainer:
        source = open_source(uri, offset=offset, size=size, mtime_ns=mtime_ns)
        return av.open(source, "r", metadata_errors="ignore", **how)

    if undecoded:
        try:
            flags = {"fflags": "noparse+nofillin"} if unparsed else {}
            return opened(options={"probesize": "32"} | flags, stream_options=[{"skip_frame": "all"}])
        except VideoError:
            # A server that was lost: it has been asked often enough.
            raise
        except ValueError:
            # Formats that do not name their streams in front (an MPEG stream called .mp4) take no such options.
            pass
    return opened()


def _open(row: Probed) -> InputContainer:
    return open_video(row.uri, row.offset, row.bytes, row.mtime_ns)


def _words(error: av.FFmpegError) -> str:
    return error.strerror or type(error).__name__


def _stream(row: Probed, container: InputContainer, max_side: int, max_frames: int) -> VideoStream:
    if not container.streams.video:
        raise VideoError(row.uri, "has no video stream")
    stream = container.streams.video[0]
    context = stream.codec_context
    if context is None:
        raise VideoError(row.uri, "no decoder for its codec")
    if stream.disposition & av.stream.Disposition.attached_pic:
        raise VideoError(row.uri, "has a cover picture but no video")
    if max(context.width, context.height) > max_side:
        raise VideoError(row.uri, f"picture of {context.width} x {context.height}: more than {max_side} a side")
    if stream.frames > max_frames:
        raise VideoError(row.uri, f"the header says {stream.frames} frames: more than {max_frames}")
    # What the packets say later may be larger than the header; FFmpeg refuses it before it takes the memory.
    context.options = {"max_pixels": str(max_side * max_side)}
    # One thread: the processes share the cores already, and results do not depend on how many there are.
    context.thread_count = 1
    return stream


def _describe(row: Probed, stream: VideoStream, frame: VideoFrame) -> None:
    """Fill in what the decoder says with its first frame, which may differ from the header."""
    row.codec = stream.codec_context.codec.canonical_name
    row.pixel_format, row.width, row.height = frame.format.name, frame.width, frame.height
    quarter = round(-frame.rotation / 90)
    row.rotation = quarter % 4 * 90
    if frame.rotation % 90:
        _note(row, f"turned by {-frame.rotation % 360} degrees, taken as {row.rotation}")
    time_base = stream.time_base or Fraction(1)
    row.time_base_num, row.time_base_den = time_base.numerator, time_base.denominator


def _note(row: Probed, text: str) -> None:
    row.notes = f"{row.notes}; {text}" if row.notes else text


def _from_packets(row: Probed, max_side: int, max_frames: int = MAX_FRAMES) -> str:
    """Fill in a row from the packets; returns why that is not possible, or ""."""
    with _open(row) as container:
        stream = _stream(row, container, max_side, max_frames)
        context = stream.codec_context
        codec = context.codec.canonical_name
        formats = set(container.format.name.split(","))
        # AVI stores no time stamps, so what is made up for codecs that reorder frames says nothing.
        if not _INDEXED & formats or not readable(codec) or ("avi" in formats and codec in _REORDERING):
            return f"{codec} in {container.format.name}"
        if context.field_order > 1:
            return "interlaced"
        reader = PacketReader(codec, length_size(codec, context.extradata))
        stamps: list[int] = []
        keys: list[int] = []
        packets = 0
        for packet in container.demux(stream):
            if not packet.size:
                continue
            packets += 1
            if packets > max_frames:
                raise VideoError(row.uri, f"more than {max_frames} packets")
            if packet.pts is None or packet.is_discard or packet.is_corrupt:
                return "packets without time stamp, cut by an edit list, or damaged"
            if packet.has_sidedata("new_extradata"):
                return "parameters change within the stream"
            shown = reader.shows(memoryview(packet), packet.is_keyframe)
            if reader.problem:
                return reader.problem
            if shown:
                stamps.append(packet.pts)
                if packet.is_keyframe:
                    keys.append(packet.pts)
            elif packet.is_keyframe:
                return "hidden key frames"
        why = _unordered(stamps, keys, context.reorder_depth if codec in _REORDERING else 0)
        if not why and stream.frames not in (0, packets):
            why = f"{packets} packets where the header says {stream.frames}"
        if why:
            return why
        pts = np.sort(np.array(stamps, np.int64))
        last = _key_frame(container, stream, keys[-1])
        first = _key_frame(container, stream, keys[0])
        if first is None or last is None:
            return "key frames that cannot be sought to or decoded"
        # What a decoder makes up for damaged parts depends on what it decoded before.
        if first.interlaced_frame or first.is_corrupt or last.is_corrupt:
            return "interlaced or damaged"
        _describe(row, stream, first)
        row.frames = len(pts)
        row.sliceable = packets == len(pts)
        row.key_timestamps = sorted(keys)
        row.key_frames = np.searchsorted(pts, row.key_timestamps).tolist()
        _set_times(row, pts, stream)
        return ""


def _unordered(stamps: list[int], keys: list[int], depth: int) -> str:
    """Why time stamps in decoding order do not number the frames; "" where they do."""
    if not keys or stamps[0] != keys[0] or min(stamps) != keys[0]:
        return "does not begin with a key frame"
    if len(set(stamps)) != len(stamps):
        return "time stamps that repeat"
    # A frame comes out once `depth` later ones wait; a decoder told too small a depth drops what comes too late.
    order = np.argsort(np.argsort(np.array(stamps, np.int64)))
    late = np.maximum.accumulate(order)
    ahead = np.array([int((order[max(0, i - 64) : i] > order[i]).sum()) for i in np.flatnonzero(late > order)])
    if ahead.size and ahead.max() > depth:
        return "frames out of order"
    return ""


def _key_frame(container: InputContainer, stream: VideoStream, stamp: int) -> VideoFrame | None:
    """Seek to the time stamp of a key frame and decode it alone; None where that does not give it."""
    try:
        container.seek(stamp, stream=stream, backward=True, any_frame=False)
        for packet in container.demux(stream):
            if packet.pts is None or packet.pts > stamp:
                return None
            if packet.pts == stamp and packet.is_keyframe:
                # The end of the stream makes the decoder hand it out, without the frames that usually go before.
                frames = [*packet.decode(), *stream.decode(None)]
                return next((frame for frame in frames if frame.pts == stamp), None)
    except av.FFmpegError:
        return None
    return None


def _from_decode(row: Probed, max_side: int, max_frames: int = MAX_FRAMES) -> None:
    with _open(row) as container:
        stream = _stream(row, container, max_side, max_frames)
        full = decode_everything(container, stream, max_frames)
    count = len(full.frames)
    if max(count, full.packets) > max_frames:
        raise VideoError(row.uri, f"more than {max_frames} frames or packets")
    largest = max((max(frame.shape[:2]) for frame in full.frames), default=0)
    if largest > max_side:
        raise VideoError(row.uri, f"a picture of {largest} pixels a side: more than {max_side}")
    if full.first is None:
        raise VideoError(row.uri, f"no frame can be decoded: {full.error or 'the file holds none'}")
    if full.error and not full.at_end:
        raise VideoError(row.uri, f"decoding fails after {count} frames, with more to come: {full.error}")
    if full.error:
        _note(row, f"ends after {count} frames with an error: {full.error}")
    with _open(row) as container:
        stream = _stream(row, container, max_side, max_frames)
        if stream.frames > full.packets:
            _note(row, f"the header says {stream.frames} frames, {full.packets} are there")
        points = starting_points(container, stream, full)
        _describe(row, stream, full.first)
        if not points or points[0][0] != 0:
            points.insert(0, (0, full.frames[0].pts or 0))
            _note(row, "no seek leads to its start: to be opened anew")
        _fill_from_decode(row, stream, full, points)


def _fill_from_decode(row: Probed, stream: VideoStream, full: FullDecode, points: list[tuple[int, int]]) -> None:
    row.frames = len(full.frames)
    row.key_frames = [number for number, _ in points]
    row.key_timestamps = [stamp for _, stamp in points]
    row.numbering = "pts" if full.by_pts else "count"
    shapes = {frame.shape for frame in full.frames}
    row.uniform = len(shapes) == 1
    if not row.uniform:
        few = ", ".join(f"{w} x {h} {name}" for w, h, name in sorted(shapes)[:8])
        _note(row, f"frame size or format changes: {few}" + (", ..." if len(shapes) > 8 else ""))
    damaged = sum(frame.corrupt for frame in full.frames)
    if damaged:
        _note(row, f"{damaged} damaged frames")
    stamps = np.array([frame.pts for frame in full.frames if frame.pts is not None], np.int64)
    if full.by_pts:
        _set_times(row, stamps, stream)
    else:
        # Time stamps that do not follow the pictures say nothing about when each is shown; the declared rate does.
        _set_times(row, None, stream)
        row.start = int(stamps.min()) if len(stamps) else 0


def _set_times(row: Probed, pts: np.ndarray | None, stream: VideoStream) -> None:
    """Fill in start, step, rate, duration and whether the rate is constant.

    Args:
        row: Its `frames` and time base are set.
        pts: Ascending time stamps, ticks, (frames,); None where the container keeps no usable ones.
        stream: For its declared rate.
    """
    tick = row.time_base_num / row.time_base_den
    declared = stream.average_rate or stream.guessed_rate or Fraction(25)
    step = float(1 / (declared * Fraction(row.time_base_num, row.time_base_den)))
    if pts is None:
        row.step = step
    else:
        row.start = int(pts[0])
        grid = np.arange(len(pts))
        if len(pts) > 1 and not _on_grid(pts, row.start + grid * step, step):
            # The declared rate is the exact one where the stamps agree with it to within their rounding.
            step = float(pts[-1] - pts[0]) / (len(pts) - 1)
            row.constant = _on_grid(pts, row.start + grid * step, step)
        row.step = step
        row.timestamps = None if row.constant else pts.tolist()
    row.rate = 1 / (row.step * tick)
    row.duration = row.frames * row.step * tick


def _on_grid(pts: np.ndarray, grid: np.ndarray, step: float) -> bool:
    # Beyond half a step rounding would give another number.
    allowed = min(max(1.0, 0.05 * step), 0.49 * step)
    return bool(np.abs(pts - grid).max() <= allowed + 1e-6)
