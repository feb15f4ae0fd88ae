"""The cache that fills itself: the same frames from small copies, and what must never be taken for one."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from make_videos import make_video, read_number

from dali_pipes import ClipRequest, ClipStream, Corpus, DataError, Video, VideoCache, View
from dali_pipes.corpus.transcode import Preset
from dali_pipes.decode import host_torchcodec
from dali_pipes.decode.host import decode_frames

# As the numbers in the pictures stay legible at the size they have.
PRESET = Preset(short_side=None, gop=4)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("a", "b", "c"):
        make_video(folder / f"{name}.mp4", frames=60, gop=60, bframes=2)
    return Corpus.build(folder, progress=False)


@pytest.fixture
def cache(tmp_path: Path) -> Any:
    cache = VideoCache(tmp_path / "cache", preset=PRESET, share=1.0)
    yield cache
    cache.close()


def filled(cache: VideoCache, video: Video) -> Video:
    assert cache.copy_of(video) is None
    assert cache.wait(30), "the copy was not made in time"
    copy = cache.copy_of(video)
    assert copy is not None, cache.stats
    return copy


def noted(cache: VideoCache) -> int:
    return int((cache.folder / ".bytes").read_text())


def held(cache: VideoCache) -> int:
    return sum(path.stat().st_size for path in cache.folder.rglob("*.mp4"))


def test_the_first_visit_queues_a_copy_and_later_visits_get_it(corpus: Corpus, cache: VideoCache) -> None:
    copy = filled(cache, corpus[0])
    assert Path(copy.uri).parent.parent == cache.folder
    assert (cache.stats.made, cache.stats.hits, cache.stats.misses) == (1, 1, 1)
    assert np.diff(copy.key_frames).tolist() == [4] * 14
    assert (copy.index, copy.label, copy.frames) == (corpus[0].index, corpus[0].label, corpus[0].frames)


def test_frame_numbers_of_a_copy_are_those_of_the_video(corpus: Corpus, cache: VideoCache) -> None:
    copy = filled(cache, corpus[0])
    assert [read_number(picture) for picture in decode_frames(copy, np.arange(60))] == list(range(60))


def test_a_stream_delivers_the_same_requests_from_copies(corpus: Corpus, cache: VideoCache) -> None:
    requests = [ClipRequest(v, (View(1, 3 * v), View(2, 20 - v))) for v in range(3)]
    options: dict[str, Any] = {"frames": 8, "size": 64, "batch_size": 3, "views": 2, "dtype": "uint8", "device": "cpu"}
    with ClipStream(corpus, cache=cache, **options) as stream:
        batches = []
        for _ in range(2):
            stream.submit(requests)
            batches.append(stream.get())
            assert cache.wait(60)
    assert (cache.stats.misses, cache.stats.hits) == (3, 3)
    raw, cached = (batch.clips.numpy().astype(float) for batch in batches)
    assert batches[0].requests == batches[1].requests
    mse = ((raw - cached) ** 2).mean()
    assert 0 < mse < 40  # another encoding, and the same pictures


def test_a_changed_video_or_changed_settings_find_no_copy(corpus: Corpus, cache: VideoCache, tmp_path: Path) -> None:
    filled(cache, corpus[0])
    assert cache.copy_of(replace(corpus[0], mtime_ns=corpus[0].mtime_ns + 1)) is None
    other = VideoCache(cache.folder, preset=replace(PRESET, quality=30))
    assert other.copy_of(corpus[0]) is None
    other.close()


def test_copies_are_kept_between_runs_and_shared(corpus: Corpus, cache: VideoCache) -> None:
    filled(cache, corpus[0])
    again = VideoCache(cache.folder, preset=PRESET)
    assert again.copy_of(corpus[0]) is not None
    again.close()
    assert again.stats.made == 0


def test_a_torn_copy_is_not_used_and_is_made_again(corpus: Corpus, cache: VideoCache) -> None:
    copy = Path(filled(cache, corpus[0]).uri)
    cache.close()
    copy.write_bytes(copy.read_bytes()[:-100])
    again = VideoCache(cache.folder, preset=PRESET, share=1.0)
    made = filled(again, corpus[0])
    again.close()
    assert again.stats.made == 1 and noted(again) == held(again)
    assert [read_number(picture) for picture in decode_frames(made, np.arange(60))] == list(range(60))


def test_a_copy_that_was_forgotten_is_gone_and_is_made_again(corpus: Corpus, cache: VideoCache) -> None:
    copy = Path(filled(cache, corpus[0]).uri)
    cache.forget(corpus[0])
    assert not copy.exists() and not copy.with_suffix(".json").exists()
    assert noted(cache) == 0
    cache.forget(corpus[0])  # twice is no mistake
    assert Path(filled(cache, corpus[0]).uri) == copy
    assert noted(cache) == copy.stat().st_size


def test_finding_a_copy_queues_nothing_counts_nothing_and_is_no_use_of_it(corpus: Corpus, cache: VideoCache) -> None:
    assert cache.find(corpus[0]) is None
    assert cache.wait(0), "finding has queued an encode"
    made = filled(cache, corpus[0])
    os.utime(made.uri, (1000, 1000))
    before = replace(cache.stats)
    found = cache.find(corpus[0])
    assert found is not None and (found.uri, found.frames) == (made.uri, 60)
    assert cache.stats == before
    assert os.stat(made.uri).st_mtime == 1000
    assert cache.find(replace(corpus[0], mtime_ns=1)) is None


def test_many_copies_keep_to_the_limit_and_are_counted_one_by_one(tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(12):
        make_video(folder / f"{number:02}.mp4", frames=40, gop=40, size=(64, 64))
    corpus = Corpus.build(folder, progress=False)
    cache = VideoCache(tmp_path / "cache", preset=PRESET, share=1.0)
    size = filled(cache, corpus[0]).bytes
    cache.close()
    again = VideoCache(cache.folder, preset=PRESET, share=1.0, limit=size * 6)
    # A number that only looking through the folder would put right.
    (cache.folder / ".bytes").write_text(str(noted(cache) + 1))
    for i in range(4):
        again.copy_of(corpus[i])
    assert again.wait(60)
    assert noted(again) == held(again) + 1, "a copy made room enough for itself and yet the folder was looked through"
    for i in range(12):
        again.copy_of(corpus[i])
    assert again.wait(60)
    again.close()
    assert held(again) == noted(again) <= size * 6
    assert again.stats.refused == 1 and again.stats.made >= 4


def test_the_limit_holds_and_what_is_in_use_is_not_given_up(corpus: Corpus, tmp_path: Path) -> None:
    probe = VideoCache(tmp_path / "one", preset=PRESET, share=1.0)
    size = filled(probe, corpus[0]).bytes
    probe.close()
    cache = VideoCache(tmp_path / "two", preset=PRESET, share=1.0, limit=int(size * 1.5))
    filled(cache, corpus[0])
    assert cache.copy_of(corpus[1]) is None
    assert cache.wait(30)
    assert cache.copy_of(corpus[1]) is None
    assert cache.copy_of(corpus[0]) is not None
    assert cache.stats.refused == 1
    cache.close()
    assert sum(path.stat().st_size for path in cache.folder.rglob("*.mp4")) <= size * 1.5


def test_copies_of_earlier_runs_make_room(corpus: Corpus, cache: VideoCache) -> None:
    old = Path(filled(cache, corpus[0]).uri)
    cache.close()
    past = time.time() - 1000
    os.utime(old, (past, past))
    again = VideoCache(cache.folder, preset=PRESET, share=1.0, limit=int(old.stat().st_size * 1.5))
    filled(again, corpus[1])
    again.close()
    assert not old.exists() and again.stats.evicted == 1


def test_a_video_that_cannot_be_copied_is_noted_once_and_still_read(corpus: Corpus, cache: VideoCache) -> None:
    broken = replace(corpus[0], frames=59)  # the file has 60: the row is wrong
    assert cache.copy_of(broken) is None
    assert cache.wait(30)
    assert cache.copy_of(broken) is None
    assert list(cache.stats.failed) == [broken.uri]
    assert list(cache.folder.rglob("*.mp4")) == []


def test_encoding_keeps_to_its_share_of_a_core(corpus: Corpus, tmp_path: Path) -> None:
    cache = VideoCache(tmp_path / "slow", preset=PRESET, share=0.2)
    begun = time.monotonic()
    filled(cache, corpus[0])
    wall = time.monotonic() - begun
    cache.close()
    assert cache.stats.cpu_seconds <= 0.2 * wall + 0.1


def test_what_is_cheap_already_is_not_copied(tmp_path: Path, cache: VideoCache) -> None:
    folder = tmp_path / "cheap"
    folder.mkdir()
    make_video(folder / "a.mp4", frames=30, gop=4)
    assert cache.copy_of(Corpus.build(folder, progress=False)[0]) is None
    assert cache.wait(0)


@pytest.mark.parametrize("options", [{"limit": 0}, {"share": 0.0}, {"preset": Preset(fps=10)}])
def test_impossible_settings_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="cache"):
        VideoCache(tmp_path, **options)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file/cache: cannot be written"):
        VideoCache(tmp_path / "file" / "cache")


def test_use_of_a_copy_leaves_it_the_file_that_its_row_tells_of(corpus: Corpus, cache: VideoCache) -> None:
    made = filled(cache, corpus[0])
    os.utime(made.uri, ns=(1000, made.mtime_ns))
    used = cache.copy_of(corpus[0])
    assert used is not None
    status = os.stat(made.uri)
    # Decoders refuse files with another time of change, and the longest unused copies go first.
    assert status.st_mtime_ns == used.mtime_ns == made.mtime_ns
    assert status.st_atime_ns > 1_000_000_000
    if not host_torchcodec.missing():
        assert host_torchcodec.decode(used, np.array([0, 5])) is not None
