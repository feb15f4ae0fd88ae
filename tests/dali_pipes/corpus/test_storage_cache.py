"""The cache of remote blocks: used, bounded, safe with several writers; and the settings of storage."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from make_videos import make_video
from storage_servers import http_server

from dali_pipes.corpus import Corpus
from dali_pipes.corpus.probe import probe_row
from dali_pipes.corpus.storage import StorageOptions, configure_storage, storage_options
from dali_pipes.corpus.storage.cache import BlockCache
from dali_pipes.decode.host import decode_frames
from dali_pipes.errors import DataError


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_what_was_read_once_is_not_asked_for_again_until_the_file_changes(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp", reason="needs the extra dali-pipes[http]")
    make_video(tmp_path / "served" / "a.mp4", frames=60)
    with http_server(tmp_path / "served") as server:
        configure_storage(StorageOptions(cache_dir=str(tmp_path / "cache"), block_bytes=4096))
        try:
            blank = {"label": "", "split": "", "group": ""}
            video = Corpus.from_rows([blank | probe_row(server.url + "a.mp4")])[0]
            first = decode_frames(video, np.arange(0, 60, 7))
            server.log.clear()
            assert np.array_equal(decode_frames(video, np.arange(0, 60, 7)), first)
            assert server.log == []
            assert size_of(tmp_path / "cache") == video.bytes

            make_video(tmp_path / "served" / "a.mp4", frames=60, first=100)
            os.utime(tmp_path / "served" / "a.mp4", (time.time() + 10, time.time() + 10))
            video = Corpus.from_rows([blank | probe_row(server.url + "a.mp4")])[0]
            assert not np.array_equal(decode_frames(video, np.arange(0, 60, 7)), first)
        finally:
            configure_storage(None)


def test_the_folder_stays_within_its_limit_and_keeps_what_was_used_last(tmp_path: Path) -> None:
    cache = BlockCache(str(tmp_path / "c"), 64_000)
    for number in range(200):
        cache.put("file", number * 1000, bytes([number]) * 1000)
        os.utime(cache._path("file", number * 1000), ns=(number, number))
        # Used again and again: it must outlive the others.
        if number:
            assert cache.get("file", 0, 1000) == bytes(1000)
        assert size_of(tmp_path / "c") <= 64_000
    assert cache.get("file", 199_000, 1000) == bytes([199]) * 1000
    assert cache.get("file", 1000, 1000) is None
    cache.put("large", 0, bytes(100_000))
    assert cache.get("large", 0, 100_000) is None


def test_torn_blocks_and_leftovers_of_ended_processes_do_no_harm(tmp_path: Path) -> None:
    cache = BlockCache(str(tmp_path), 10_000)
    cache.put("file", 0, b"x" * 1000)
    os.truncate(cache._path("file", 0), 500)
    assert cache.get("file", 0, 1000) is None
    old, new = tmp_path / ".tmp-old", tmp_path / ".tmp-new"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    cache.trim()
    assert not old.exists() and new.exists()


def test_several_processes_share_one_folder(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from dali_pipes.corpus.storage.cache import BlockCache\n"
        "cache = BlockCache(sys.argv[1], 200_000)\n"
        "for i in range(600):\n"
        "    number = i % 300\n"
        "    found = cache.get('file', number, 1000)\n"
        "    assert found in (None, bytes([number % 256]) * 1000)\n"
        "    if found is None:\n"
        "        cache.put('file', number, bytes([number % 256]) * 1000)\n"
    )
    crew = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(3)]
    assert [process.wait(60) for process in crew] == [0, 0, 0]
    assert size_of(tmp_path) <= 200_000 * (1 + 3 / 16)
    assert not list(tmp_path.rglob(".tmp-*"))


def test_settings_come_from_the_environment_and_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "DALI_PIPES_S3_ENDPOINT": "http://127.0.0.1:9000",
        "DALI_PIPES_S3_ANON": "1",
        "DALI_PIPES_GS_ENDPOINT": "http://127.0.0.1:4443/",
        "DALI_PIPES_GS_ANON": "true",
        "DALI_PIPES_STORAGE_TIMEOUT": "2.5",
        "DALI_PIPES_STORAGE_RETRIES": "0",
        "DALI_PIPES_CACHE_DIR": "/cache",
        "DALI_PIPES_CACHE_BYTES": "50G",
    }.items():
        monkeypatch.setenv(name, value)
    options = storage_options()
    assert options == StorageOptions(
        timeout=2.5,
        retries=0,
        cache_dir="/cache",
        cache_bytes=50 << 30,
        protocols={
            "s3": {"endpoint_url": "http://127.0.0.1:9000", "anon": True},
            "gs": {"endpoint_url": "http://127.0.0.1:4443", "token": "anon"},
        },
    )
    for name, value in (
        ("DALI_PIPES_CACHE_BYTES", "much"),
        ("DALI_PIPES_STORAGE_TIMEOUT", "-1"),
        ("DALI_PIPES_STORAGE_RETRIES", "few"),
        ("DALI_PIPES_S3_ANON", "perhaps"),
        ("DALI_PIPES_GS_ANON", "perhaps"),
        ("DALI_PIPES_GS_ENDPOINT", "127.0.0.1:4443"),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            with pytest.raises(DataError, match=f"{name}={value}: must be"):
                storage_options()


def test_keys_are_not_shown() -> None:
    assert "hidden" not in repr(StorageOptions(protocols={"s3": {"secret": "hidden"}}))
