"""What is read from packets without decoding them."""

from __future__ import annotations

from pathlib import Path

import av
import pytest
from make_videos import make_video

from dali_pipes.corpus.packets import PacketReader, length_size, readable


def packets_of(path: Path) -> tuple[PacketReader, list[tuple[bytes, bool]]]:
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        codec = context.codec.canonical_name
        reader = PacketReader(codec, length_size(codec, context.extradata))
        return reader, [(bytes(p), p.is_keyframe) for p in container.demux(video=0) if p.size]


def split_superframe(data: bytes) -> list[bytes]:
    frames, size = (data[-1] & 7) + 1, ((data[-1] >> 3) & 3) + 1
    index = data[-1 - frames * size : -1]
    parts, place = [], 0
    for number in range(frames):
        length = int.from_bytes(index[number * size : (number + 1) * size], "little")
        parts.append(data[place : place + length])
        place += length
    return parts


@pytest.fixture(scope="module")
def vp9(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video(tmp_path_factory.mktemp("vp9") / "a.webm", codec="vp9")


def test_of_a_vp9_superframe_one_frame_is_shown_and_alone_the_hidden_one_is_not(vp9: Path) -> None:
    reader, packets = packets_of(vp9)
    superframes = [data for data, _ in packets if data[-1] & 0xE0 == 0xC0]
    assert superframes
    for data in superframes:
        assert reader.shows(memoryview(data), False)
        assert [reader.shows(memoryview(part), False) for part in split_superframe(data)] == [False, True]
    assert reader.problem == ""


def test_vp9_key_frames_of_two_sizes_are_a_problem(vp9: Path, tmp_path: Path) -> None:
    reader, packets = packets_of(vp9)
    _, others = packets_of(make_video(tmp_path / "b.webm", codec="vp9", size=(128, 98), frames=3))
    reader.shows(memoryview(packets[0][0]), True)
    reader.shows(memoryview(others[0][0]), True)
    assert reader.problem == "parameters change within the stream"


def test_a_vp8_packet_with_its_show_bit_cleared_is_hidden(tmp_path: Path) -> None:
    reader, packets = packets_of(make_video(tmp_path / "a.webm", codec="vp8", frames=5))
    data = bytearray(packets[2][0])
    assert reader.shows(memoryview(bytes(data)), False)
    data[0] &= ~16
    assert not reader.shows(memoryview(bytes(data)), False)
    assert reader.problem == ""


def test_nal_units_that_do_not_fill_the_packet_are_damage(tmp_path: Path) -> None:
    reader, packets = packets_of(make_video(tmp_path / "a.mp4", frames=5))
    assert reader.length_size == 4
    reader.shows(memoryview(packets[0][0]), True)
    assert reader.problem == ""
    reader.shows(memoryview(packets[1][0][:-1]), False)
    assert reader.problem == "damaged NAL units"


def test_a_key_frame_that_is_no_idr_picture_is_a_problem(tmp_path: Path) -> None:
    reader, packets = packets_of(make_video(tmp_path / "a.mp4", frames=5))
    reader.shows(memoryview(packets[1][0]), True)
    assert reader.problem == "key frames that are no clean starting points"


def test_b_frames_in_mpeg4_are_a_problem(tmp_path: Path) -> None:
    for bframes, problem in ((0, ""), (2, "B-frames")):
        reader, packets = packets_of(make_video(tmp_path / f"{bframes}.avi", codec="mpeg4", bframes=bframes))
        for data, key in packets:
            reader.shows(memoryview(data), key)
        assert reader.problem == problem


def test_an_mpeg4_picture_that_is_not_coded_is_a_problem() -> None:
    reader = PacketReader("mpeg4")
    reader.shows(memoryview(b"\0\0\1\xb6\x51\x80\x7f"), False)
    assert reader.problem == "pictures that may not be coded"


def test_other_codecs_are_not_read() -> None:
    assert not readable("theora")
    reader = PacketReader("theora")
    reader.shows(memoryview(b"abc"), True)
    assert reader.problem
