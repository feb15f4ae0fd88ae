"""Videos in a bucket of a real server that speaks Google Cloud Storage's JSON API, with keys and without."""

from __future__ import annotations

import dataclasses
import io
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from make_videos import make_noise, make_video
from storage_servers import GcsServer, gcs_server, make_tar

from dali_pipes.cli import main
from dali_pipes.corpus import Corpus, Video
from dali_pipes.corpus.build import build
from dali_pipes.corpus.probe import open_video, probe_row
from dali_pipes.corpus.storage import StorageOptions, configure_storage
from dali_pipes.decode.host import decode_frames
from dali_pipes.decode.slice import cut
from dali_pipes.errors import DataError, VideoError

pytest.importorskip("gcsfs", reason="needs the extra dali-pipes[gs]")
pytest.importorskip("gcp_storage_emulator", reason="the test's server needs gcp-storage-emulator")
NAMES = ("train/big dog/#1.mp4", "train/run/b.avi", "test/run/c.mp4")


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of videos, and a shard with one of them."""
    folder = tmp_path_factory.mktemp("local")
    for name in NAMES:
        make_video(folder / name, codec="mpeg4" if name.endswith("avi") else "h264", frames=30, size=(64, 48))
    make_tar(folder / "0.tar", {"a.mp4": folder / NAMES[0], "a.cls": b"walk"})
    return folder


@pytest.fixture
def server(local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GcsServer]:
    """The folder in the bucket "bucket", its shard in "shards"; read by whoever asks."""
    # Whatever keys and settings this machine has.
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "STORAGE_EMULATOR_HOST", "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "none"))
    # Or Google's package looks for the server that gives a machine in Google's cloud its keys.
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    with gcs_server(tmp_path) as state:
        for bucket in ("bucket", "shards"):
            state.make_bucket(bucket)
        for name in NAMES:
            state.put("bucket", f"videos/{name}", (local / name).read_bytes())
        state.put("shards", "train/0.tar", (local / "0.tar").read_bytes())
        state.log.clear()
        use(state)
        yield state
    configure_storage(None)


def use(server: GcsServer, *, timeout: float = 5.0, retries: int = 3, **more: Any) -> None:
    """Read from the server, without keys unless `more` has some."""
    settings = {"endpoint_url": server.url, "token": "anon", **more}
    configure_storage(StorageOptions(timeout=timeout, retries=retries, protocols={"gs": settings}))


def row(uri: str) -> Video:
    return Corpus.from_rows([{"label": "", "split": "", "group": "", **probe_row(uri)}])[0]


def key_file(server: GcsServer, folder: Path) -> Path:
    """The keys of a service account, which the server gives a token for."""
    rsa = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.rsa", reason="makes a key")
    from cryptography.hazmat.primitives import serialization

    key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {
        "type": "service_account",
        "project_id": "test",
        "client_email": "reader@test",
        "private_key": key.decode(),
        "token_uri": f"{server.url}/token",
    }
    path = folder / "key.json"
    path.write_text(json.dumps(account))
    return path


@pytest.mark.parametrize("address", ["gs://bucket/videos/", "gcs://bucket/videos"])
def test_frames_from_a_bucket_equal_those_of_the_file(local: Path, server: GcsServer, address: str) -> None:
    corpus = build(address, workers=1, progress=False)
    assert [(v.uri, v.split, v.label, v.error) for v in corpus] == [
        ("gs://bucket/videos/test/run/c.mp4", "test", "run", ""),
        ("gs://bucket/videos/train/big dog/#1.mp4", "train", "big dog", ""),
        ("gs://bucket/videos/train/run/b.avi", "train", "run", ""),
    ]
    for video in corpus:
        same = row(str(local / video.uri.removeprefix("gs://bucket/videos/")))
        frames = np.array([2, 11, 29])
        assert np.array_equal(decode_frames(video, frames), decode_frames(same, frames))
        assert video.bytes == same.bytes and abs(video.mtime_ns / 1e9 - time.time()) < 600


def test_a_shard_in_a_bucket_is_read_in_place(local: Path, server: GcsServer) -> None:
    corpus = build("gs://shards", layout="webdataset", workers=1, progress=False)
    assert [(v.uri, v.split, v.label, v.error) for v in corpus] == [
        ("tar://a.mp4::gs://shards/train/0.tar", "train", "walk", "")
    ]
    frames = np.array([0, 29])
    assert np.array_equal(decode_frames(corpus[0], frames), decode_frames(row(str(local / NAMES[0])), frames))


def test_a_clip_fetches_less_than_a_tenth_of_the_file(server: GcsServer, tmp_path: Path) -> None:
    path = make_noise(tmp_path / "long.mp4", frames=2000)
    size = path.stat().st_size
    assert size > 6e6
    server.put("bucket", "long.mp4", path.read_bytes())
    known = row(str(path))
    remote = dataclasses.replace(known, uri="gs://bucket/long.mp4")
    for first in (0, 777, 1960):
        frames = np.arange(first, first + 32, 2)
        wanted = decode_frames(known, frames)
        server.log.clear()
        assert np.array_equal(decode_frames(remote, frames), wanted)
        assert 0 < server.sent() < size / 10, first
        server.log.clear()
        part = cut(remote, frames)
        assert 0 < server.sent() < size / 10, first
        assert all("alt=media" in path for path, _ in server.log), "the corpus knows the size: nobody asks again"
        with av.open(io.BytesIO(part.data.tobytes()), "r") as container:
            pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert np.array_equal(np.stack([pictures[i] for i in part.frames]), wanted)


def test_a_private_bucket_is_read_with_the_keys_of_a_service_account(
    local: Path, server: GcsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    server.token = "only-for-readers"
    with pytest.raises(DataError, match=r"^gs://bucket/videos/: access denied: Anonymous caller .*; set GOOGLE_APPL"):
        build("gs://bucket/videos", workers=1, progress=False)
    assert len(server.log) == 1, "who may not read need not ask again"
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key_file(server, tmp_path)))
    server.forbidden = True
    use(server, token=None, retries=1)
    with pytest.raises(
        DataError, match=r"^gs://bucket/videos/: server lost after 2 tries: it answers 401 Invalid Cred"
    ):
        build("gs://bucket/videos", workers=1, progress=False)
    server.forbidden = False
    frames = np.array([3, 17])
    video = row(f"gs://bucket/videos/{NAMES[0]}")
    assert np.array_equal(decode_frames(video, frames), decode_frames(row(str(local / NAMES[0])), frames))
    server.forbidden = True
    with pytest.raises(VideoError, match=r"#1\.mp4: access denied: reader@test does not have"):
        decode_frames(video, frames)
    use(server, token=str(tmp_path / "none.json"))
    with pytest.raises(VideoError, match=r"c\.mp4: cannot be read from gs://: .*none\.json"):
        open_video("gs://bucket/videos/test/run/c.mp4")
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("variable", ["DALI_PIPES_GS_ENDPOINT", "STORAGE_EMULATOR_HOST"])
def test_the_environment_reaches_the_workers_of_the_command(
    server: GcsServer,
    variable: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    configure_storage(None)
    monkeypatch.setenv(variable, server.url)
    monkeypatch.setenv("DALI_PIPES_GS_ANON", "1")
    output = tmp_path / "c.parquet"
    assert main(["index", "gs://bucket/videos/", "-o", str(output), "--workers", "1", "--quiet"]) == 0
    assert len(Corpus.open(output).select("train")) == 2
    capfd.readouterr()
    assert main(["index", "gs://no-such-bucket/videos", "-o", str(output), "--quiet"]) == 2
    said = capfd.readouterr().err
    assert (
        said.strip().endswith("gs://no-such-bucket/videos/: no such file, folder or bucket") and said.count("\n") == 1
    )


def test_a_missing_object_is_one_line_that_names_it_and_is_asked_for_once(server: GcsServer) -> None:
    with pytest.raises(VideoError, match=r"^gs://bucket/videos/none\.mp4: no such file, folder or bucket$"):
        open_video("gs://bucket/videos/none.mp4")
    assert 1 <= sum("/o/" in path for path, _ in server.log) <= 2
    with pytest.raises(DataError, match=r"^gs://bucket/nowhere/: no such file, folder or bucket$"):
        build("gs://bucket/nowhere/", workers=1, progress=False)


def test_a_server_that_fails_twice_and_one_that_breaks_off_are_survived(local: Path, server: GcsServer) -> None:
    video, frames = row("gs://bucket/videos/test/run/c.mp4"), np.arange(20)
    wanted = decode_frames(row(str(local / "test/run/c.mp4")), frames)
    server.failures = 2
    assert np.array_equal(decode_frames(video, frames), wanted)
    server.cut = 2
    assert np.array_equal(decode_frames(video, frames), wanted)
    assert server.failures == server.cut == 0


def test_a_server_that_goes_on_failing_is_asked_as_often_as_the_settings_say(
    server: GcsServer, capfd: pytest.CaptureFixture[str]
) -> None:
    use(server, retries=1)
    video = row("gs://bucket/videos/test/run/c.mp4")
    server.log.clear()
    server.failures = 1000
    with pytest.raises(VideoError, match=r"^gs://.*/c\.mp4: server lost after 2 tries: it answers 503 Backend Error$"):
        cut(video, np.arange(4))
    assert len(server.log) == 2, "gcsfs's own tries would multiply ours"
    assert "Traceback" not in capfd.readouterr().err


def test_a_server_that_never_answers_is_an_error_within_the_time_out(server: GcsServer) -> None:
    video = row("gs://bucket/videos/test/run/c.mp4")
    use(server, timeout=0.3, retries=1)
    server.silent = True
    before = time.monotonic()
    with pytest.raises(VideoError, match=r"c\.mp4: server lost after 2 tries: no answer within 0\.3 s$"):
        decode_frames(video, np.arange(4))
    assert time.monotonic() - before < 3


def test_a_server_lost_while_a_video_is_read_is_an_error_that_names_it(
    server: GcsServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # Larger than what opening it reads: the failure comes out of a read inside FFmpeg.
    path = make_video(tmp_path / "a.mkv", codec="mjpeg", frames=100, size=(320, 240))
    server.put("bucket", "a.mkv", path.read_bytes())
    settings = {"gs": {"endpoint_url": server.url, "token": "anon"}}
    configure_storage(StorageOptions(timeout=2, retries=0, block_bytes=1024, read_ahead_bytes=1024, protocols=settings))
    with open_video("gs://bucket/a.mkv") as container:
        server.failures = 1000
        with pytest.raises(VideoError, match=r"^gs://bucket/a\.mkv: server lost after 1 try: it answers 503"):
            for _ in container.demux(video=0):
                pass
    assert "Traceback" not in capfd.readouterr().err


def test_without_the_package_its_name_is_told(server: GcsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs.core", None)
    with pytest.raises(
        VideoError, match=r"^gs://bucket/a\.mp4: gs:// needs a package: pip install 'dali-pipes\[gs\]'$"
    ):
        open_video("gs://bucket/a.mp4")


def test_a_server_that_is_not_there_is_one_clear_line(server: GcsServer) -> None:
    use(server, timeout=2, retries=1, endpoint_url="http://127.0.0.1:9")
    with pytest.raises(DataError, match=r"^gs://bucket/videos/: server lost after 2 tries: .*127\.0\.0\.1:9"):
        build("gs://bucket/videos", workers=1, progress=False)
