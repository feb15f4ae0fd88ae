"""Videos that a run could not decode: written down once, counted by reason, too many of them end the run."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from loader_checks import corpus_of, keyed, make_plain, numbers_shown

from dali_pipes import ClipRequest, ClipStream, Corpus, DataError, View
from dali_pipes.background import JUDGED_FROM
from dali_pipes.corpus.build import build
from dali_pipes.corpus.quarantine import Quarantined
from dali_pipes.corpus.storage import Stat
from dali_pipes.quarantine import Quarantine, general


def stream_of(corpus: Corpus, **options: Any) -> ClipStream:
    usual: dict[str, Any] = {"frames": 4, "size": 32, "batch_size": 50, "device": "cpu", "dtype": "uint8", "threads": 2}
    usual["decoder"] = "dali"
    return ClipStream(corpus, **(usual | options))


def requests(videos: list[int], position: int = 0) -> list[ClipRequest]:
    return [keyed(video, position + i, View(1, 0)) for i, video in enumerate(videos)]


def spoil(path: Path) -> None:
    """Other bytes, but size and modification time as the index saw them: what a bad disk does."""
    status = path.stat()
    path.write_bytes(bytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_bad_video_is_written_down_once_and_counted_by_reason(tmp_path: Path) -> None:
    paths = make_plain(tmp_path, 4, 64)
    corpus = corpus_of(paths)
    spoil(paths[1])
    listed = tmp_path / "bad.jsonl"
    for _ in range(2):  # two streams of one process, as a loader and its positives are
        with stream_of(corpus, quarantine=listed) as stream:
            for batch in stream.map([requests([0, 1, 2, 3, 1])] * 3):
                assert 1 not in batch.videos.tolist()
            assert stream.stats.replaced == 6
            assert list(stream.stats.replaced_by_reason.values()) == [6]
            assert not any(character.isdigit() for character in "".join(stream.stats.replaced_by_reason))
    (entry,) = lines_of(listed)
    status = paths[1].stat()
    assert (entry["uri"], entry["bytes"], entry["mtime_ns"]) == (str(paths[1]), status.st_size, status.st_mtime_ns)
    assert entry["reason"] == stream.stats.bad[str(paths[1])]
    assert entry["when"].endswith("+00:00")


def test_the_next_index_leaves_a_listed_video_out_until_it_changes(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    paths = make_plain(folder, 3, 64)
    output, listed = tmp_path / "corpus.parquet", tmp_path / "bad.jsonl"
    corpus = build(folder, output=output, progress=False, workers=1)
    assert corpus.usable.all()
    Quarantine(listed).add(corpus[1], "frame 7 could not be decoded")
    again = build(folder, output=output, progress=False, workers=1, quarantine=listed)
    assert again[1].error == "quarantined: frame 7 could not be decoded"
    assert again.usable.tolist() == [True, False, True]
    # Without the list, and once the file is another one, it is probed anew although the corpus has a row of it.
    assert build(folder, output=output, progress=False, workers=1).usable.all()
    build(folder, output=output, progress=False, workers=1, quarantine=listed)
    os.utime(paths[1])
    assert build(folder, output=output, progress=False, workers=1, quarantine=listed).usable.all()


def test_a_list_that_is_missing_or_torn_is_a_warning(tmp_path: Path) -> None:
    corpus = corpus_of(make_plain(tmp_path, 1, 64))
    listed = tmp_path / "bad.jsonl"
    assert "no such quarantine file" in Quarantined(listed).warnings[0]
    Quarantine(listed).add(corpus[0], "why")
    with listed.open("a") as file:
        file.write('{"uri": "half\n[1]\n')
    known = Quarantined(listed)
    assert len(known) == 1
    assert "2 lines are no quarantine entries" in known.warnings[0]
    state = Stat(corpus[0].bytes, corpus[0].mtime_ns, -1)
    row = known.row(corpus[0].uri, state)
    assert row is not None
    assert row["error"] == "quarantined: why"
    assert known.row(corpus[0].uri, replace(state, mtime_ns=state.mtime_ns + 1)) is None
    assert known.row(corpus[0].uri, None) is None


def test_lines_of_many_writers_stay_whole(tmp_path: Path) -> None:
    rows = [dict(corpus_of(make_plain(tmp_path, 1, 64)).table.to_pylist()[0], uri=f"/v/{i}.mp4") for i in range(200)]
    corpus = Corpus.from_rows(rows)
    listed = tmp_path / "bad.jsonl"
    writers = [Quarantine(listed) for _ in range(4)]

    def write(which: int) -> None:
        for i in range(which, len(corpus), 4):
            writers[which].add(corpus[i], "x" * 1000)

    threads = [threading.Thread(target=write, args=(which,)) for which in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(line["uri"] for line in lines_of(listed)) == sorted(corpus.column("uri").tolist())


def test_a_file_that_cannot_be_written_is_named_at_once(tmp_path: Path) -> None:
    corpus = corpus_of(make_plain(tmp_path, 1, 64))
    with pytest.raises(DataError, match=r"quarantine=.*none/bad\.jsonl: cannot be written"):
        stream_of(corpus, quarantine=tmp_path / "none" / "bad.jsonl")


@pytest.mark.parametrize("threads", [1, 3])
def test_too_many_replacements_end_the_run_at_the_same_batch(tmp_path: Path, threads: int) -> None:
    paths = make_plain(tmp_path, 10, 64)
    corpus = corpus_of(paths)
    spoil(paths[3])
    batches = [requests(list(range(10)) * 5, 50 * n) for n in range(JUDGED_FROM // 50 + 1)]
    listed = tmp_path / "bad.jsonl"
    with stream_of(corpus, threads=threads, quarantine=listed) as stream:
        found = stream.map(batches)
        for _ in range(JUDGED_FROM // 50 - 1):
            next(found)
        with pytest.raises(DataError, match=r"20 of 200 requests were replaced, more than max_bad=0\.05") as caught:
            next(found)
    assert "20 x " in str(caught.value)
    assert str(listed) in str(caught.value)


@pytest.mark.parametrize("max_bad", [0.1, 1])
def test_a_share_within_max_bad_goes_on(tmp_path: Path, max_bad: float) -> None:
    paths = make_plain(tmp_path, 10, 64)
    corpus = corpus_of(paths)
    paths[3].unlink()
    batches = [requests(list(range(10)) * 5, 50 * n) for n in range(JUDGED_FROM // 50 + 2)]
    with stream_of(corpus, max_bad=max_bad) as stream:
        for batch in stream.map(batches):
            assert numbers_shown(batch.clips[4, 0])[0] == 400
        assert stream.stats.replaced == 5 * len(batches)


def test_max_bad_out_of_range_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"max_bad=5 must lie in 0\.\.1"):
        stream_of(corpus_of(make_plain(tmp_path, 1, 64)), max_bad=5)


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("12 frames could not be decoded; the first is 3 of 60", "N frames could not be decoded; the first is N of N"),
        ("cannot be read: [Errno 2] No such file: '/a b/1.mp4'", "cannot be read: [Errno N] No such file: PATH"),
        ("cannot be decoded: Invalid data found", "cannot be decoded: Invalid data found"),
    ],
)
def test_reasons_are_counted_without_numbers_and_paths(reason: str, kind: str) -> None:
    assert general(reason) == kind


def test_a_file_that_was_out_of_reach_is_listed_but_tried_again(tmp_path: Path) -> None:
    paths = make_plain(tmp_path, 2, 64)
    corpus, listed = corpus_of(paths), tmp_path / "bad.jsonl"
    away = paths[0].rename(tmp_path / "away")
    with stream_of(corpus, quarantine=listed) as stream:
        stream.submit(requests([0, 1]))
        assert stream.get().videos.tolist() == [1, 1]
    away.rename(paths[0])
    assert [line["uri"] for line in lines_of(listed)] == [str(paths[0])]
    assert Quarantined(listed).row(corpus[0].uri, Stat(corpus[0].bytes, corpus[0].mtime_ns, -1)) is None
