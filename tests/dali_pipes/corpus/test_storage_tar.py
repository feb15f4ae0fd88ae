"""Videos inside tar shards are read in place, and lists of addresses."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from make_videos import make_video
from storage_servers import http_server, make_tar

from dali_pipes.corpus import Corpus, Video
from dali_pipes.corpus.build import build
from dali_pipes.corpus.probe import open_video, probe_row
from dali_pipes.corpus.storage import open_source
from dali_pipes.decode.host import decode_frames
from dali_pipes.decode.slice import cut
from dali_pipes.errors import DataError, VideoError


@pytest.fixture
def clips(tmp_path: Path) -> Iterator[dict[str, Path]]:
    kinds = {"a.mp4": "h264", "b.avi": "mpeg4", "c.webm": "vp8", "d.mpg": "mpeg2video"}
    yield {name: make_video(tmp_path / "files" / name, codec=codec, frames=30) for name, codec in kinds.items()}


def row(uri: str) -> Video:
    return Corpus.from_rows([{"label": "", "split": "", "group": "", **probe_row(uri)}])[0]


def test_videos_of_a_shard_decode_and_slice_as_their_files_do(clips: dict[str, Path], tmp_path: Path) -> None:
    shard = make_tar(tmp_path / "shard.tar", clips)
    corpus = build(shard, workers=1, progress=False)
    assert [video.uri for video in corpus] == [f"tar://{name}::{shard}" for name in clips]
    frames = np.array([1, 12, 13, 29])
    for video, path in zip(corpus, clips.values(), strict=True):
        local = row(str(path))
        assert video.bytes == path.stat().st_size and video.offset > 0
        assert shard.read_bytes()[video.offset : video.offset + video.bytes] == path.read_bytes()
        assert np.array_equal(decode_frames(video, frames), decode_frames(local, frames))
        if local.sliceable:
            assert np.array_equal(cut(video, frames).frames, cut(local, frames).frames)


def test_broken_and_unusual_videos_have_the_same_rows_in_a_shard(videos: Path, tmp_path: Path) -> None:
    odd = videos / "odd"
    files = {path.name: path for path in sorted(odd.iterdir()) if path.is_file() and path.stat().st_size < 1 << 20}
    folder = tmp_path / "odd"
    folder.mkdir()
    for name, path in files.items():
        (folder / name).symlink_to(path)
    loose = build(folder, workers=2, progress=False).table.to_pylist()
    shard = build(make_tar(tmp_path / "0.tar", files), workers=2, progress=False).table.to_pylist()
    assert len(shard) > 10

    def rows(table: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
        other = dict.fromkeys(("uri", "label", "offset", "mtime_ns"))
        return {os.path.basename(row["uri"].partition("::")[0]): row | other for row in table}

    assert rows(shard) == rows(loose)


def test_a_shard_is_indexed_and_sliced_without_copies(clips: dict[str, Path], tmp_path: Path) -> None:
    # Nothing may be written anywhere but the corpus: neither beside the shard nor among temporary files.
    folder = tmp_path / "shards"
    make_tar(folder / "0.tar", clips)
    os.chmod(folder, 0o555)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    try:
        os.environ["TMPDIR"], old = str(temporary), os.environ.get("TMPDIR")
        corpus = build(folder, "webdataset", workers=1, progress=False)
        assert corpus.usable.all()
        cut(corpus[0], np.array([3]))
    finally:
        os.environ.pop("TMPDIR") if old is None else os.environ.update(TMPDIR=old)
        os.chmod(folder, 0o755)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before


def test_labels_come_from_cls_or_json_and_splits_from_folders(clips: dict[str, Path], tmp_path: Path) -> None:
    video = clips["a.mp4"]
    make_tar(
        tmp_path / "s" / "train" / "0.tar",
        {
            "x/1.mp4": video,
            "x/1.cls": b"walk\n",
            "x/1.json": b'{"label": "other"}',
            "x/2.json": b'{"label": 7, "text": "a cat"}',
            "x/2.mp4": video,
            "x/3.mp4": video,
            "x/3.txt": b"a caption, no label",
        },
    )
    make_tar(tmp_path / "s" / "val" / "1.tar", {"y.left.mp4": video, "y.cls": b"run"})
    corpus = build(tmp_path / "s", "webdataset", workers=1, progress=False)
    found = [(v.uri.partition("::")[0].removeprefix("tar://"), v.label, v.split) for v in corpus]
    assert found == [
        ("x/1.mp4", "walk", "train"), ("x/2.mp4", "7", "train"), ("x/3.mp4", "", "train"), ("y.left.mp4", "run", "val"),
    ]  # fmt: skip


def test_only_members_of_changed_shards_are_probed_again(clips: dict[str, Path], tmp_path: Path) -> None:
    for name in ("0.tar", "1.tar"):
        make_tar(tmp_path / "s" / name, clips)
    output = tmp_path / "c.parquet"
    build(tmp_path / "s", "webdataset", output=output, workers=1, progress=False)
    Corpus.from_rows([one | {"notes": "earlier"} for one in Corpus.open(output).table.to_pylist()]).save(output)
    make_tar(tmp_path / "s" / "1.tar", {"new.mp4": clips["a.mp4"], **clips})
    corpus = build(tmp_path / "s", "webdataset", output=output, workers=1, progress=False)
    assert [video.notes == "earlier" for video in corpus] == [True] * 4 + [False] * 5
    assert Corpus.open(output)[-1].offset == corpus[-1].offset > 0


def test_the_same_members_elsewhere_are_the_same_corpus(clips: dict[str, Path], tmp_path: Path) -> None:
    one = build(make_tar(tmp_path / "one" / "0.tar", clips), workers=1, progress=False)
    other = build(make_tar(tmp_path / "other" / "deep" / "0.tar", clips), workers=1, progress=False)
    assert one.fingerprint == other.fingerprint
    renamed = {name.replace("a.", "z."): path for name, path in clips.items()}
    assert build(make_tar(tmp_path / "0.tar", renamed), workers=1, progress=False).fingerprint != one.fingerprint


def opened(path: Path) -> int:
    """How many of this process's file descriptors are `path`.

    Only its own: other threads of the process open and close files of theirs whenever they like.
    """
    links = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            links.append(os.readlink(f"/proc/self/fd/{number}"))
    return links.count(str(path.resolve()))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_files_of_shards_are_closed_with_their_videos(clips: dict[str, Path], tmp_path: Path) -> None:
    shard = make_tar(tmp_path / "0.tar", clips)
    video = build(shard, workers=1, progress=False)[0]
    gc.collect()
    with open(shard, "rb"):
        assert opened(shard) == 1
    gc.disable()
    try:
        for _ in range(5):
            decode_frames(video, np.array([0, 20]))
        assert opened(shard) == 0
    finally:
        gc.enable()


def test_a_part_of_a_file_behaves_like_a_file(tmp_path: Path) -> None:
    shard = make_tar(tmp_path / "0.tar", {"a.bin": bytes(range(200)), "b.bin": b"x" * 100})
    part = open_source(f"tar://a.bin::{shard}")
    assert not isinstance(part, str)
    with part:
        assert part.read(3) == bytes([0, 1, 2]) and part.tell() == 3
        assert part.seek(-2, os.SEEK_END) == 198 and part.read(10) == bytes([198, 199])
        assert part.read(1) == b""
        part.seek(0)
        assert part.readall() == bytes(range(200))
        assert part.seek(500) == 500 and part.read(1) == b""
        with pytest.raises(OSError, match="seek to byte -1"):
            part.seek(-1)


def test_what_cannot_be_read_in_place_is_refused_in_one_line(clips: dict[str, Path], tmp_path: Path) -> None:
    packed = make_tar(tmp_path / "packed.tar.gz", clips, "w:gz")
    with pytest.raises(DataError, match=r"packed\.tar\.gz: is compressed \(gzip\).*decompress it"):
        build(packed, workers=1, progress=False)
    disguised = packed.rename(tmp_path / "disguised.tar")
    with pytest.raises(DataError, match=r"is compressed \(gzip\)"):
        build(disguised, workers=1, progress=False)
    (tmp_path / "text.tar").write_text("no tar file" * 100)
    with pytest.raises(DataError, match=r"text\.tar: cannot be read as a tar file"):
        build(tmp_path / "text.tar", workers=1, progress=False)
    with pytest.raises(DataError, match=r"none\.tar: No such file"):
        build(tmp_path / "none.tar", workers=1, progress=False)
    with pytest.raises(DataError, match="no videos in its 1 tar shard"):
        build(make_tar(tmp_path / "empty.tar", {"a.txt": b"hello"}), workers=1, progress=False)
    shard = make_tar(tmp_path / "0.tar", clips)
    with pytest.raises(VideoError, match="has no such member"):
        open_video(f"tar://nothing.mp4::{shard}")
    with pytest.raises(VideoError, match="tar://MEMBER::SHARD"):
        open_video("tar://nothing.mp4")
    video = build(shard, workers=1, progress=False)[-1]
    os.truncate(shard, video.offset + 10)
    with pytest.raises(VideoError, match=r"ends before byte .*; index again"):
        decode_frames(video, np.array([0]))


def test_a_list_names_videos_of_all_kinds(clips: dict[str, Path], tmp_path: Path) -> None:
    shard = make_tar(tmp_path / "0.tar", clips)
    with http_server(tmp_path / "files") as server:
        lines = [
            "# what, label, split",
            f"{clips['a.mp4']}\twalk\ttrain",
            "files/b.avi\trun",
            "",
            f"{server.url}c.webm\t\tval",
            "tar://d.mpg::0.tar",
            "files/missing.mp4",
        ]
        (tmp_path / "list.txt").write_text("\n".join(lines))
        corpus = build(tmp_path / "list.txt", "list", workers=1, progress=False)
    found = [(os.path.basename(v.uri.partition("::")[0]), v.label, v.split, v.frames, v.error) for v in corpus]
    assert found == [
        ("a.mp4", "walk", "train", 30, ""), ("b.avi", "run", "", 30, ""), ("c.webm", "", "val", 30, ""),
        ("d.mpg", "", "", 30, ""), ("missing.mp4", "", "", 0, "No such file or directory"),
    ]  # fmt: skip
    assert corpus[3].offset > 0 and corpus[1].uri == str(tmp_path / "files" / "b.avi")
    assert corpus[3].uri == f"tar://d.mpg::{shard}"


def test_a_remote_list_names_videos_beside_it(clips: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "files" / "list.txt").write_text("a.mp4\twalk\nc.webm\n")
    with http_server(tmp_path / "files") as server:
        corpus = build(server.url + "list.txt", "list", workers=1, progress=False)
        assert [(v.uri, v.label, v.error) for v in corpus] == [
            (server.url + "a.mp4", "walk", ""),
            (server.url + "c.webm", "", ""),
        ]


def test_mistakes_in_a_list_are_told_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    for text, said in (
        ("a.mp4\tb\tc\td\n", "line 1: expected URI"),
        ("a.mp4\n\na.mp4\n", "line 3: .*a.mp4 is listed twice"),
        ("# nothing\n", "the list is empty"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=said):
            build(path, "list", workers=1, progress=False)
    with pytest.raises(DataError, match="the list cannot be read: No such file"):
        build(tmp_path / "none.txt", "list", workers=1, progress=False)
    with pytest.raises(DataError, match=r"must be one of folders, ucf101, .*webdataset, list"):
        build(tmp_path, "lists", workers=1, progress=False)
