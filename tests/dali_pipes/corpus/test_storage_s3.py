"""Videos in a bucket of a real server that speaks S3, with keys and without."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from make_videos import make_video
from storage_servers import make_tar, s3_server

from dali_pipes.cli import main
from dali_pipes.corpus import Corpus
from dali_pipes.corpus.build import build
from dali_pipes.corpus.probe import probe_row
from dali_pipes.corpus.storage import StorageOptions, configure_storage
from dali_pipes.decode.host import decode_frames
from dali_pipes.errors import DataError

pytest.importorskip("s3fs", reason="needs the extra dali-pipes[s3]")
boto3 = pytest.importorskip("boto3", reason="the test's server needs moto[server]")
pytest.importorskip("moto.server", reason="the test's server needs moto[server]")
KEYS = {"key": "testing", "secret": "testing"}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server() as address:
        yield address


@pytest.fixture(scope="module")
def local(endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of videos that also lies in the bucket "videos", and its shard in "shards"."""
    folder = tmp_path_factory.mktemp("local")
    for name in ("train/walk/a.mp4", "train/run/b.avi", "test/run/c.mp4"):
        make_video(folder / name, codec="mpeg4" if name.endswith("avi") else "h264", frames=30, size=(64, 48))
    shard = make_tar(folder / "0.tar", {"a.mp4": folder / "train/walk/a.mp4", "a.cls": b"walk"})
    s3 = client(endpoint)
    for bucket, acl in (("videos", "public-read"), ("shards", "private")):
        s3.create_bucket(Bucket=bucket, ACL=acl)
    for path in folder.rglob("*.[ma][pv]*"):
        s3.upload_file(str(path), "videos", f"deep/{path.relative_to(folder)}", ExtraArgs={"ACL": "public-read"})
    s3.upload_file(str(shard), "shards", "train/0.tar")
    return folder


def client(endpoint: str) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=KEYS["key"],
        aws_secret_access_key=KEYS["secret"],
    )


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    # Whatever keys and settings this machine has.
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    yield
    configure_storage(None)


@pytest.mark.parametrize("access", [{"anon": True}, KEYS], ids=["anonymous", "with a key"])
def test_frames_from_a_bucket_equal_those_of_the_file(local: Path, endpoint: str, access: dict[str, Any]) -> None:
    configure_storage(StorageOptions(protocols={"s3": {"endpoint_url": endpoint, **access}}))
    corpus = build("s3://videos/deep", workers=1, progress=False)
    assert [(v.uri, v.split, v.label, v.error) for v in corpus] == [
        ("s3://videos/deep/test/run/c.mp4", "test", "run", ""),
        ("s3://videos/deep/train/run/b.avi", "train", "run", ""),
        ("s3://videos/deep/train/walk/a.mp4", "train", "walk", ""),
    ]
    for video in corpus:
        path = local / video.uri.removeprefix("s3://videos/deep/")
        same = Corpus.from_rows([{"label": "", "split": "", "group": "", **probe_row(str(path))}])[0]
        frames = np.array([2, 11, 29])
        assert np.array_equal(decode_frames(video, frames), decode_frames(same, frames))
        assert video.mtime_ns > 0


def test_wrong_keys_are_one_clear_line(local: Path, endpoint: str) -> None:
    def checks_keys(after: bytes) -> None:
        plain = {"Content-Type": "text/plain"}
        asked = urllib.request.Request(f"{endpoint}/moto-api/reset-auth", after, plain, method="POST")
        urllib.request.urlopen(asked).close()

    checks_keys(after=b"0")
    try:
        configure_storage(StorageOptions(protocols={"s3": {"endpoint_url": endpoint, **KEYS}}))
        with pytest.raises(DataError, match=r"^s3://videos/deep/: access denied: .*Access Key Id"):
            build("s3://videos/deep", workers=1, progress=False)
    finally:
        checks_keys(after=b"inf")


def test_a_shard_in_a_bucket_is_read_in_place(local: Path, endpoint: str) -> None:
    configure_storage(StorageOptions(protocols={"s3": {"endpoint_url": endpoint, **KEYS}}))
    corpus = build("s3://shards", layout="webdataset", workers=1, progress=False)
    assert [(v.uri, v.split, v.label, v.error) for v in corpus] == [
        ("tar://a.mp4::s3://shards/train/0.tar", "train", "walk", "")
    ]
    same = Corpus.from_rows([{"label": "", "split": "", "group": "", **probe_row(str(local / "train/walk/a.mp4"))}])[0]
    frames = np.array([0, 29])
    assert np.array_equal(decode_frames(corpus[0], frames), decode_frames(same, frames))
    assert build("s3://shards/train/0.tar", workers=1, progress=False)[0].label == "walk"


def test_the_environment_reaches_the_workers_of_the_command(
    local: Path, endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DALI_PIPES_S3_ENDPOINT", endpoint)
    monkeypatch.setenv("DALI_PIPES_S3_ANON", "1")
    output = tmp_path / "c.parquet"
    command = ["index", "s3://videos/deep/", "-o", str(output), "--workers", "1", "--quiet"]
    assert main(command) == 0
    assert len(Corpus.open(output).select("train")) == 2
    assert main(["index", "s3://no-such-bucket/deep", "-o", str(output), "--quiet"]) == 2
    assert capsys.readouterr().err.strip().endswith("no-such-bucket/deep/: no such file, folder or bucket")
    monkeypatch.delenv("DALI_PIPES_S3_ANON")
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "no credentials found" in said and "DALI_PIPES_S3_ANON=1" in said and said.count("\n") == 1


def test_a_server_that_is_not_there_is_one_clear_line(endpoint: str) -> None:
    configure_storage(
        StorageOptions(timeout=2, retries=1, protocols={"s3": {"endpoint_url": "http://127.0.0.1:9", **KEYS}})
    )
    with pytest.raises(DataError, match=r"^s3://videos/deep/: server lost after 2 tries: .*127\.0\.0\.1:9"):
        build("s3://videos/deep", workers=1, progress=False)
