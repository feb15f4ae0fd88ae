"""The folder of copies: its limit and its count of bytes, whoever adds and removes copies and however they end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from loader_checks import corpus_of
from make_videos import make_video

from dali_pipes import DataError, Video
from dali_pipes.corpus.transcode_presets import Preset
from dali_pipes.decode.cache_folder import CopyFolder, is_cheap, preset_for, source_of

PRESET = Preset(short_side=None, gop=4)
SIZE = 1000


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Video:
    return corpus_of([make_video(tmp_path_factory.mktemp("folder") / "v.mp4", frames=30, gop=30, size=(64, 64))])[0]


@pytest.fixture(scope="module")
def found(video: Video) -> dict[str, Any]:
    row = asdict(video) | {"bytes": SIZE}
    return {name: value.tolist() if hasattr(value, "tolist") else value for name, value in row.items()}


def opened(path: Path, limit: int = 100 * SIZE) -> CopyFolder:
    folder = CopyFolder(path, PRESET, limit)
    folder.open()
    return folder


def key(number: int) -> str:
    return f"{number % 256:02x}{number:030x}"


def add(folder: CopyFolder, number: int, found: dict[str, Any], *, used: float | None = None) -> bool:
    """Puts a file of SIZE bytes where a copy goes and has it admitted."""
    with folder.making(key(number)):
        path = folder.file(key(number))
        path.write_bytes(bytes(SIZE))
        admitted = folder.admit(key(number), SIZE, found, "v.mp4")
    if used is not None:
        os.utime(path, (used, used))
    return admitted


def noted(folder: CopyFolder) -> int:
    return int((folder.path / ".bytes").read_text())


def held(folder: CopyFolder) -> int:
    return sum(path.stat().st_size for path in folder.path.rglob("*.mp4"))


def test_many_copies_never_take_more_than_the_limit(tmp_path: Path, found: dict[str, Any]) -> None:
    folder = opened(tmp_path, limit=50 * SIZE + 1)
    results = []
    for number in range(80):
        results.append(add(folder, number, found))
        assert held(folder) == noted(folder) <= folder.limit
    assert results == [True] * 50 + [False] * 30
    assert len(list(tmp_path.rglob("*.json"))) == 50 and not list(tmp_path.rglob("*.tmp"))


def test_copies_unused_for_longest_make_room_one_for_one(tmp_path: Path, found: dict[str, Any]) -> None:
    earlier, long_ago = opened(tmp_path, limit=10 * SIZE), time.time() - 1000
    for number in range(10):
        add(earlier, number, found, used=long_ago + (number * 7) % 10)
    folder = opened(tmp_path, limit=10 * SIZE)
    order = sorted(range(10), key=lambda number: number * 7 % 10)
    for count, number in enumerate(order[:5], start=1):
        assert add(folder, 100 + number, found)
        assert not folder.file(key(number)).exists() and folder.evicted == count
        assert held(folder) == noted(folder) == 10 * SIZE
    assert all(folder.file(key(number)).exists() for number in order[5:])


def test_a_copy_that_came_into_use_since_it_was_seen_is_kept(tmp_path: Path, found: dict[str, Any]) -> None:
    earlier, long_ago = opened(tmp_path, limit=3 * SIZE), time.time() - 1000
    for number in range(3):
        add(earlier, number, found, used=long_ago + number)
    folder = opened(tmp_path, limit=3 * SIZE)
    assert add(folder, 3, found)  # the folder was looked through, and 1 and 2 were seen as unused
    os.utime(folder.file(key(1)))
    assert add(folder, 4, found)
    assert [folder.file(key(number)).exists() for number in range(5)] == [False, True, False, True, True]
    assert not add(folder, 5, found), "all are in use"


def test_adding_a_copy_counts_it_and_does_not_look_through_the_folder(tmp_path: Path, found: dict[str, Any]) -> None:
    folder = opened(tmp_path)
    add(folder, 0, found)
    folder.file(key(0)).unlink()  # by hand: nobody counts it off
    for number in range(1, 20):
        add(folder, number, found)
    assert noted(folder) == held(folder) + SIZE, "only a look through the folder could have told"
    assert noted(opened(tmp_path)) == held(folder)


def test_the_truth_is_looked_up_before_anything_is_refused_or_given_up(tmp_path: Path, found: dict[str, Any]) -> None:
    earlier = opened(tmp_path)
    for number in range(4):
        add(earlier, number, found, used=1000.0)
    folder = opened(tmp_path, limit=4 * SIZE)
    folder.file(key(0)).unlink()
    assert add(folder, 9, found)
    assert folder.evicted == 0 and held(folder) == noted(folder) == 4 * SIZE


@pytest.mark.parametrize("text", ["", "many", "-5", None])
def test_a_count_that_is_not_legible_is_made_anew(tmp_path: Path, found: dict[str, Any], text: str | None) -> None:
    folder = opened(tmp_path)
    for number in range(3):
        add(folder, number, found)
    if text is None:
        (tmp_path / ".bytes").unlink()
    else:
        (tmp_path / ".bytes").write_text(text)
    add(folder, 3, found)
    assert noted(folder) == held(folder) == 4 * SIZE


_WORK = """
import json, sys
from dali_pipes.corpus.transcode_presets import Preset
from dali_pipes.decode.cache_folder import CopyFolder
path, first, last, found = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4])
folder = CopyFolder(path, Preset(short_side=None, gop=4), 10**9)
folder.open()
for number in range(first, last):
    key = f"{number % 256:02x}{number:030x}"
    with folder.making(key):
        folder.file(key).write_bytes(bytes(1000))
        folder.admit(key, 1000, found, "v.mp4")
    if number % 3 == 0:
        folder.remove(key)
"""


def test_the_count_is_right_after_several_processes_added_and_removed_copies(
    tmp_path: Path, found: dict[str, Any]
) -> None:
    folder = opened(tmp_path)
    works = [
        subprocess.Popen([sys.executable, "-c", _WORK, str(tmp_path), str(i * 60), str(i * 60 + 60), json.dumps(found)])
        for i in range(2)
    ]
    assert [work.wait(60) for work in works] == [0, 0]
    assert len(list(tmp_path.rglob("*.mp4"))) == 80
    # One that opens the folder may see the other's file before it is admitted, and count it twice: never too low.
    assert held(folder) <= noted(folder) <= held(folder) + SIZE
    assert add(folder, 999, found) and noted(opened(tmp_path)) == held(folder) == 81 * SIZE


def test_opening_removes_what_is_over_the_limit_and_what_was_left_behind(tmp_path: Path, found: dict[str, Any]) -> None:
    folder = opened(tmp_path)
    for number in range(5):
        add(folder, number, found, used=1000.0 + number)
    place = folder.file(key(0)).parent
    old, new = place / ".a.mp4.1.tmp", place / ".b.mp4.2.tmp"
    for path in (old, new):
        path.write_bytes(b"unfinished")
    os.utime(old, (1000, 1000))
    again = opened(tmp_path, limit=2 * SIZE)
    assert [again.file(key(number)).exists() for number in range(5)] == [False] * 3 + [True] * 2
    assert again.evicted == 3 and noted(again) == 2 * SIZE
    assert new.exists() and not old.exists()


def test_a_folder_far_over_its_limit_is_brought_down_to_it(tmp_path: Path) -> None:
    for number in range(4200):
        path = tmp_path / key(number)[:2] / f"{key(number)}.mp4"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"copy")
        os.utime(path, (number, number))
    folder = opened(tmp_path, limit=40)
    assert sorted(path.name for path in tmp_path.rglob("*.mp4")) == sorted(f"{key(n)}.mp4" for n in range(4190, 4200))
    assert folder.evicted == 4190 and noted(folder) == 40


def test_a_file_that_is_not_admitted_is_no_copy_and_leaves_nothing(tmp_path: Path, found: dict[str, Any]) -> None:
    folder = opened(tmp_path, limit=SIZE // 2)
    assert not add(folder, 0, found)
    assert not folder.file(key(0)).exists() and noted(folder) == 0
    with pytest.raises(KeyError):
        add(folder, 1, {})
    assert not list(tmp_path.rglob("*.json"))


def test_only_a_whole_copy_of_this_very_video_is_found(tmp_path: Path, video: Video, found: dict[str, Any]) -> None:
    folder = opened(tmp_path)
    name = folder.key(video)
    with folder.making(name) as mine:
        assert mine
        with folder.making(name) as again:
            assert not again, "two make one copy"
        folder.file(name).write_bytes(bytes(SIZE))
        assert folder.find(video) is None, "its row is not there yet"
        assert folder.admit(name, SIZE, found, video.uri)
    copy = folder.find(video)
    assert copy is not None and (copy.uri, copy.offset, copy.frames) == (str(folder.file(name)), -1, 30)
    assert copy.key_frames.tolist() == video.key_frames.tolist()
    for other in (replace(video, bytes=video.bytes + 1), replace(video, offset=512), replace(video, uri="other.mp4")):
        assert folder.find(other) is None
    assert CopyFolder(tmp_path, replace(PRESET, quality=30), SIZE).find(video) is None
    row = folder.file(name).with_suffix(".json")
    for text in ("", "[]", "{}", "null", json.dumps(json.loads(row.read_text()) | {"frames": 29})):
        row.write_text(text)
        assert folder.find(video) is None, text


def test_whoever_may_read_the_folder_may_read_its_rows(tmp_path: Path, found: dict[str, Any]) -> None:
    before = os.umask(0o022)
    try:
        folder = opened(tmp_path)
        add(folder, 0, found)
    finally:
        os.umask(before)
    assert folder.file(key(0)).with_suffix(".json").stat().st_mode & 0o777 == 0o644


def test_looking_a_copy_up_makes_and_removes_nothing(tmp_path: Path, video: Video, found: dict[str, Any]) -> None:
    folder = opened(tmp_path / "cache")
    add(folder, 0, found)
    assert CopyFolder(tmp_path / "cache", PRESET, limit=0).find(video) is None
    assert CopyFolder(tmp_path / "none", PRESET, limit=0).find(video) is None
    assert folder.file(key(0)).exists() and not (tmp_path / "none").exists()


def test_a_copy_says_which_video_it_is_of(tmp_path: Path, found: dict[str, Any]) -> None:
    folder = opened(tmp_path)
    add(folder, 0, found)
    path = folder.file(key(0))
    assert source_of(path) == "v.mp4"
    row = path.with_suffix(".json")
    row.write_text(json.dumps({name: value for name, value in json.loads(row.read_text()).items() if name != "source"}))
    assert source_of(path) == ""
    for text in ("{}", "[]", "no row"):
        row.write_text(text)
        assert source_of(path) is None
    row.unlink()
    assert source_of(path) is None
    assert source_of("/videos/a.mp4") is None and source_of("https://host/a.mp4") is None


@pytest.mark.parametrize(("size", "side"), [(112, 128), (224, 256), (64, 74), (1, 16)])
def test_copies_have_the_size_that_crops_are_taken_from(size: int, side: int) -> None:
    assert preset_for(size).short_side == side
    assert preset_for(size, crops=False).short_side == max(size, 16)


def test_small_videos_with_close_key_frames_are_cheap(video: Video) -> None:
    preset = preset_for(112)
    assert not is_cheap(video, preset), "its GOP has 30 frames"
    near = replace(video, key_frames=video.key_frames.repeat(4))
    assert is_cheap(near, preset)
    assert not is_cheap(replace(near, width=640, height=480), preset)
    assert not is_cheap(replace(near, sliceable=False), preset)


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file/cache: cannot be written"):
        opened(tmp_path / "file" / "cache")
