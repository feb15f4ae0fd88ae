"""Files that became others after they were indexed, and headers that lie, are refused before memory is taken."""

from __future__ import annotations

import resource
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from loader_checks import corpus_of, keyed, numbers_shown
from make_videos import make_video

from dali_pipes import ClipStream, VideoError, View
from dali_pipes.cli import main
from dali_pipes.corpus import Corpus
from dali_pipes.corpus.probe import probe_row
from dali_pipes.decode.host import decode_frames
from dali_pipes.decode.slice import cut


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"size": (96, 64)}, "96 x 64 instead of 64 x 64"),
        ({"codec": "mpeg4"}, "mpeg4 instead of mjpeg"),
    ],
)
def test_a_file_that_became_another_is_refused_by_both_decoders(
    tmp_path: Path, other: dict[str, object], words: str
) -> None:
    usual = {"codec": "mjpeg", "frames": 12, "size": (64, 64)}
    path = make_video(tmp_path / "a.mkv", **usual)
    video = corpus_of([path])[0]
    make_video(tmp_path / "b.mkv", **(usual | other)).replace(path)
    for read in (cut, decode_frames):
        with pytest.raises(VideoError, match=rf"a\.mkv: the file has changed since it was indexed: {words}"):
            read(video, np.array([0, 3]))


def test_a_changed_neighbour_leaves_a_batch_as_it_was(tmp_path: Path) -> None:
    paths = [make_video(tmp_path / f"{i}.mkv", codec="mjpeg", frames=12, size=(64, 64), first=50 * i) for i in range(3)]
    corpus = corpus_of(paths)
    make_video(tmp_path / "b.mkv", codec="mjpeg", frames=12, size=(640, 480)).replace(paths[1])
    with ClipStream(corpus, frames=4, size=64, batch_size=3, device="cpu", dtype="uint8", threads=1) as stream:
        stream.submit([keyed(i, i, View(1, 2)) for i in range(3)])
        batch = stream.get()
    assert numbers_shown(batch.clips[0, 0]) == [2, 3, 4, 5]
    assert numbers_shown(batch.clips[2, 0]) == [102, 103, 104, 105]
    assert list(stream.stats.replaced_by_reason) == [
        "the file has changed since it was indexed: N x N instead of N x N"
    ]


def test_pictures_that_grow_beyond_the_header_are_refused_without_the_memory(tmp_path: Path) -> None:
    small = make_video(tmp_path / "small.mp4", codec="mpeg4", frames=4, size=(32, 32))
    large = make_video(tmp_path / "large.mp4", codec="mpeg4", frames=4, size=(4096, 4096), gop=1)
    video = replace(corpus_of([large])[0], uri=str(large), width=4096, height=4096)
    assert decode_frames(video, np.array([0]), short_side=8).shape == (1, 8, 8, 3)
    # The header of one with the pictures of the other: sizes in the container's tables, not in the packets.
    data = bytearray(large.read_bytes())
    extra = small.read_bytes()
    at, place = data.find(b"mp4v\0\0\0\0"), extra.find(b"mp4v\0\0\0\0")
    assert min(at, place) > 0
    data[at + 28 : at + 32] = struct.pack(">HH", 32, 32)
    large.write_bytes(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(VideoError, match="large"):
        decode_frames(replace(video, width=32, height=32), np.array([0, 3]))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


def test_real_videos_open_as_their_rows_say(videos: Path) -> None:
    names = ("fate__vp9_vp90-2-05-resize.mp4", "torchcodec__nasa_13013_rotated.mp4", "exo__avi_sample.avi")
    corpus = corpus_of([videos / "odd" / name for name in names])
    for video in corpus:
        assert not video.error
        assert len(decode_frames(video, np.array([0, video.frames - 1]), short_side=16)) == 2


def test_a_header_that_claims_too_many_frames_is_refused(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mkv", codec="mjpeg", frames=12, size=(64, 64))
    assert probe_row(str(path), max_frames=12)["error"] == ""
    assert probe_row(str(path), max_frames=11)["error"] == "more than 11 packets"
    raw = make_video(tmp_path / "a.h264", codec="h264", frames=12, size=(64, 64))
    assert probe_row(str(raw), max_frames=11)["error"] == "more than 11 frames or packets"
    avi = make_video(tmp_path / "a.mp4", codec="mpeg4", frames=12, size=(64, 64))
    assert probe_row(str(avi), max_frames=11)["error"] == "the header says 12 frames: more than 11"


def test_the_index_takes_limits(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    make_video(folder / "small.mkv", codec="mjpeg", frames=5, size=(64, 64))
    make_video(folder / "wide.mkv", codec="mjpeg", frames=5, size=(160, 64))
    make_video(folder / "long.mkv", codec="mjpeg", frames=15, size=(64, 64))
    output = tmp_path / "c.parquet"
    limits = ["--max-side", "128", "--max-frames", "10", "--workers", "1", "--quiet"]
    assert main(["index", str(folder), "-o", str(output), *limits]) == 0
    errors = {Path(video.uri).stem: video.error for video in Corpus.open(output)}
    assert errors == {
        "small": "",
        "wide": "picture of 160 x 64: more than 128 a side",
        "long": "more than 10 packets",
    }
