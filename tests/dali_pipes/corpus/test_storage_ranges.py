"""A part of a local file, read as if it were a file of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import av
import pytest
from make_videos import make_video, read_number

from dali_pipes.corpus.storage.ranges import LocalRange, RangeFile
from dali_pipes.errors import VideoError

DATA = bytes(range(200))


@pytest.fixture
def part(tmp_path: Path) -> Iterator[LocalRange]:
    (tmp_path / "whole").write_bytes(b"before" + DATA + b"behind")
    with LocalRange("tar://a.mp4::whole", str(tmp_path / "whole"), 6, len(DATA), "a.mp4") as part:
        yield part


def test_reading_and_seeking_keep_to_the_part(part: LocalRange) -> None:
    assert part.readable() and part.seekable()
    assert part.read(3) == DATA[:3] and part.tell() == 3
    assert part.seek(10, os.SEEK_CUR) == 13 and part.read(2) == DATA[13:15]
    assert part.seek(-5, os.SEEK_END) == 195
    assert part.read(100) == DATA[195:] and part.read(1) == b""
    assert part.seek(0) == 0 and part.readall() == DATA
    assert part.seek(500) == 500 and part.read(1) == b""
    with pytest.raises(OSError, match="seek to byte -1"):
        part.seek(-1)


def test_a_buffer_is_filled_as_far_as_the_part_goes(part: LocalRange) -> None:
    buffer = bytearray(16)
    part.seek(190)
    assert part.readinto(buffer) == 10
    assert bytes(buffer) == DATA[190:] + bytes(6)


def test_a_video_inside_a_larger_file_is_decoded(tmp_path: Path) -> None:
    video = make_video(tmp_path / "v.mp4", frames=10).read_bytes()
    (tmp_path / "whole").write_bytes(bytes(777) + video + bytes(99))
    with LocalRange("v", str(tmp_path / "whole"), 777, len(video), "v.mp4") as part, av.open(part) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert [read_number(frame) for frame in frames] == list(range(10))


def test_a_file_that_is_missing_or_has_become_shorter_is_named(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"a\.mp4: .*none: No such file"):
        LocalRange("a.mp4", str(tmp_path / "none"), 0, 1, "a.mp4")
    (tmp_path / "short").write_bytes(DATA)
    with pytest.raises(VideoError, match=r"a\.mp4: .*short ends before byte 210; index again"):
        LocalRange("a.mp4", str(tmp_path / "short"), 10, 200, "a.mp4")


class Lost(RangeFile):
    tries = 0

    def _fetch(self, start: int, end: int) -> bytes:
        self.tries += 1
        raise VideoError(self.uri, "server lost")


def test_after_a_failure_the_file_has_ended_and_nobody_waits_for_the_server_again() -> None:
    lost = Lost("http://host/a.mp4", "a.mp4", 100)
    with pytest.raises(VideoError, match="server lost"):
        lost.read(10)
    assert lost.read(10) == b"" and lost.tries == 1
