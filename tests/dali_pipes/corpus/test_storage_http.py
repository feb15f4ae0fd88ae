"""Videos behind a real HTTP server: the same frames as from the file, few bytes, and a server that fails."""

from __future__ import annotations

import dataclasses
import io
import os
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from make_videos import make_noise, make_video
from storage_servers import HttpServer, http_server

from dali_pipes.corpus import Corpus, Video
from dali_pipes.corpus.build import build
from dali_pipes.corpus.probe import open_video, probe_row
from dali_pipes.corpus.storage import StorageOptions, configure_storage
from dali_pipes.decode.host import decode_frames
from dali_pipes.decode.slice import cut
from dali_pipes.errors import DataError, VideoError

pytest.importorskip("aiohttp", reason="needs the extra dali-pipes[http]")
QUICK = StorageOptions(timeout=2.0)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[HttpServer]:
    folder = tmp_path / "served"
    folder.mkdir()
    with http_server(folder) as state:
        configure_storage(QUICK)
        try:
            yield state
        finally:
            configure_storage(None)


def row(uri: str) -> Video:
    blank = {"label": "", "split": "", "group": ""}
    return Corpus.from_rows([blank | probe_row(uri)])[0]


def sliced(video: Video, frames: np.ndarray) -> np.ndarray:
    """The frames as a decoder finds them in a slice."""
    part = cut(video, frames)
    with av.open(io.BytesIO(part.data.tobytes())) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack([pictures[i] for i in part.frames])


def test_frames_and_slices_over_http_equal_those_of_the_file(server: HttpServer) -> None:
    for name, codec in (("a.mp4", "h264"), ("b.avi", "mpeg4"), ("c.webm", "vp9"), ("d.mpg", "mpeg1video")):
        make_video(server.folder / name, codec=codec, frames=50, gop=10)
        local, remote = row(str(server.folder / name)), row(server.url + name)
        for column in dataclasses.fields(Video):
            if column.name not in ("uri", "mtime_ns"):
                assert np.array_equal(getattr(remote, column.name), getattr(local, column.name)), (name, column.name)
        frames = np.array([3, 17, 18, 44])
        assert np.array_equal(decode_frames(remote, frames), decode_frames(local, frames)), name
        if local.sliceable:
            assert np.array_equal(sliced(remote, frames), sliced(local, frames)), name


@pytest.fixture(scope="module")
def long_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten minutes at 12 frames/s, more than 20 MB: noise, which hardly shrinks."""
    return make_noise(tmp_path_factory.mktemp("long") / "long.mp4", frames=7200)


def test_a_clip_of_a_ten_minute_video_fetches_less_than_a_twentieth_of_it(server: HttpServer, long_video: Path) -> None:
    size = long_video.stat().st_size
    assert size > 20e6
    os.link(long_video, server.folder / "long.mp4")
    local = row(str(long_video))
    assert local.duration == pytest.approx(600)
    remote = dataclasses.replace(local, uri=server.url + "long.mp4")
    for first in (0, 1000, 3601, 5555, 7160):
        frames = np.arange(first, first + 32, 2)
        for read in (decode_frames, sliced):
            before = server.sent()
            assert np.array_equal(read(remote, frames), read(local, frames))
            assert 0 < server.sent() - before < size / 20, first
    assert {method for method, _, _ in server.log} == {"GET"}, "the corpus knows the size: nobody asks for it again"


def test_a_server_that_fails_twice_and_one_that_breaks_off_are_survived(server: HttpServer) -> None:
    make_video(server.folder / "a.mp4", frames=20)
    video = row(server.url + "a.mp4")
    wanted = decode_frames(video, np.arange(20))
    server.log.clear()
    server.failures = 2
    assert np.array_equal(decode_frames(video, np.arange(20)), wanted)
    server.cut = 2
    assert np.array_equal(decode_frames(video, np.arange(20)), wanted)
    assert server.failures == server.cut == 0


def test_a_server_that_never_answers_is_an_error_within_the_time_out(server: HttpServer) -> None:
    make_video(server.folder / "a.mp4", frames=20)
    video = row(server.url + "a.mp4")
    configure_storage(StorageOptions(timeout=0.3, retries=1))
    server.silent = True
    before = time.monotonic()
    with pytest.raises(VideoError, match=r"a\.mp4: server lost after 2 tries: no answer within 0\.3 s"):
        decode_frames(video, np.arange(4))
    assert time.monotonic() - before < 3
    assert probe_row(video.uri)["error"].startswith("server lost after 2 tries")


@pytest.mark.parametrize("name", ["a.avi", "a.mp4", "a.mkv", "a.mpg"])
def test_a_server_lost_while_a_video_is_read_is_an_error_that_names_it(
    server: HttpServer, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    # Larger than what opening it reads: the failure comes out of a read inside FFmpeg.
    codec = "mpeg1video" if name.endswith("mpg") else "mjpeg"
    make_video(server.folder / name, codec=codec, frames=300, size=(320, 240))
    uri = server.url + name
    configure_storage(StorageOptions(timeout=2, retries=0, block_bytes=1024, read_ahead_bytes=1024))
    with open_video(uri) as container:
        server.failures = 1000
        with pytest.raises(VideoError, match=rf"{name}: server lost after 1 try: it answers 503"):
            for _ in container.demux(video=0):
                pass
    assert "Traceback" not in capfd.readouterr().err


def test_mistakes_are_told_in_one_line(server: HttpServer) -> None:
    make_video(server.folder / "a.mp4", frames=200)
    with pytest.raises(VideoError, match=r"none\.mp4: no such file"):
        open_video(server.url + "none.mp4")
    with pytest.raises(DataError, match="no such file, folder or bucket"):
        build(server.url + "nowhere/", workers=1, progress=False)
    (server.folder / "empty").mkdir()
    with pytest.raises(DataError, match="no videos there"):
        build(server.url + "empty", workers=1, progress=False)
    configure_storage(StorageOptions(timeout=2, block_bytes=4096))
    server.ranges = False
    with pytest.raises(VideoError, match="sends whole files and no ranges"):
        open_video(server.url + "a.mp4")
    with pytest.raises(VideoError, match="nosuch"):
        open_video("nosuch://host/a.mp4")
    configure_storage(StorageOptions(timeout=2, retries=0))
    with pytest.raises(DataError, match=r"server lost after 1 try"):
        build("http://127.0.0.1:9/videos", workers=1, progress=False)


def test_a_listing_is_indexed_and_unchanged_files_are_not_fetched_again(server: HttpServer, tmp_path: Path) -> None:
    for name in ("train/big dog/a.mp4", "train/cat/b.mp4", "test/cat/c.mp4"):
        make_video(server.folder / name, frames=10, size=(64, 48))
    (server.folder / "train" / "notes.txt").write_text("no video")
    output = tmp_path / "c.parquet"
    corpus = build(server.url, output=output, workers=1, progress=False)
    assert corpus.usable.all()
    assert [(v.uri.rpartition("/")[2], v.split, v.label) for v in corpus] == [
        ("c.mp4", "test", "cat"),
        ("a.mp4", "train", "big dog"),
        ("b.mp4", "train", "cat"),
    ]
    assert (np.asarray(corpus.column("mtime_ns")) > 0).all()
    for server.dated in (True, False):
        build(server.url, output=output, workers=1, progress=False)  # takes over, or learns, the version without dates
        server.log.clear()
        build(server.url, output=output, workers=1, progress=False)
        assert [path for method, path, _ in server.log if method == "GET" and path.endswith(".mp4")] == []
    make_video(server.folder / "test/cat/c.mp4", frames=12, size=(64, 48))
    assert build(server.url, output=output, workers=1, progress=False)[0].frames == 12
