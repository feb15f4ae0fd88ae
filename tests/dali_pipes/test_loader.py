"""Epochs, sharding, exact resume, files that go bad, and leaving nothing behind."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from loader_checks import (
    assert_same,
    check_lost_corpus,
    check_ranks,
    check_replacement,
    check_resume,
    check_settings_do_not_matter,
    corpus_of,
    expected,
    kept,
    loader_of,
    make_plain,
    numbers_shown,
    requests_of,
)

from dali_pipes import Corpus, DataError, SpeedLoader

pytest_plugins = ["loader_fixtures"]


def test_threads_and_prefetch_change_no_bit(mixed: Corpus) -> None:
    check_settings_do_not_matter(mixed, "cpu")


def test_two_ranks_make_together_what_one_makes_alone(mixed: Corpus) -> None:
    check_ranks(mixed, "cpu")


def test_a_resumed_loader_goes_on_to_the_bit_over_the_end_of_the_epoch(mixed: Corpus) -> None:
    check_resume(mixed, "cpu")


def test_a_state_can_be_taken_and_taken_up_at_every_step(mixed: Corpus) -> None:
    with loader_of(mixed, "cpu") as loader:
        states, batches = [loader.state_dict()], []
        for _ in range(2 * len(loader)):
            batches += kept(loader, 1)
            states.append(loader.state_dict())
        steps = len(loader)
    with loader_of(mixed, "cpu") as other:
        for step in (0, 1, steps - 1, steps, steps + 1, 2 * steps - 1):
            other.load_state_dict(states[step])
            assert_same(kept(other, 1)[0], batches[step])


def test_a_state_is_small_and_survives_json(mixed: Corpus) -> None:
    with loader_of(mixed, "cpu") as loader:
        kept(loader, 1)
        text = json.dumps(loader.state_dict())
        following = kept(loader, 1)[0]
    assert len(text) < 1000
    with loader_of(mixed, "cpu") as other:
        other.load_state_dict(json.loads(text))
        assert_same(kept(other, 1)[0], following)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seed": 6}, "saved with seed=5, this loader has 6"),
        ({"reverse": 0.5}, r"saved with reverse=0\.0, this loader has 0\.5"),
        ({"jitter": 0.5}, r"saved with jitter=0\.0, this loader has 0\.5"),
        ({"speeds": (1, (2, 4))}, "saved with speeds="),
        ({"frames": 5}, "saved with frames=4, this loader has 5"),
        ({"speeds": (1, 3)}, "saved with speeds="),
        ({"window": "shared"}, "saved with window='independent', this loader has 'shared'"),
        ({"clips_per_video": 2}, "saved with clips_per_video=1"),
        ({"speed_order": "random"}, "saved with speed_order='given'"),
        ({"short": "pad"}, "saved with short='loop', this loader has 'pad'"),
        ({"fps": 12.5}, "saved with fps=None, this loader has 12.5"),
        ({"shuffle": False}, "saved with shuffle=True, this loader has False"),
    ],
)
def test_a_state_of_other_settings_is_refused_in_words(mixed: Corpus, options: dict[str, Any], words: str) -> None:
    with loader_of(mixed, "cpu") as loader:
        state = loader.state_dict()
    with loader_of(mixed, "cpu", **options) as other, pytest.raises(DataError, match=words):
        other.load_state_dict(state)


def test_a_state_of_another_corpus_and_what_is_no_state_are_refused(mixed: Corpus, tmp_path: Path) -> None:
    with loader_of(mixed, "cpu") as loader:
        state = loader.state_dict()
        with pytest.raises(DataError, match="lacks 'version'"):
            loader.load_state_dict({})
        for place in ("epoch", "position"):
            with pytest.raises(DataError, match=f"{place}=None"):
                loader.load_state_dict({k: v for k, v in state.items() if k != place})
        for place in ({"epoch": -1}, {"position": 99}):
            with pytest.raises(DataError, match="an epoch has 7 positions"):
                loader.load_state_dict(state | place)
    with (
        loader_of(corpus_of(make_plain(tmp_path, 7, 64)), "cpu") as other,
        pytest.raises(DataError, match="saved with corpus="),
    ):
        other.load_state_dict(state)


def test_an_epoch_visits_each_video_once_and_the_loop_ends_with_it(mixed: Corpus) -> None:
    with loader_of(mixed, "cpu", batch_size=1) as loader:
        assert len(loader) == len(mixed)
        for epoch in range(3):
            assert loader.epoch == epoch
            batches = list(loader)
            assert [batch.epoch for batch in batches] == [epoch] * len(mixed)
            assert [batch.positions.tolist() for batch in batches] == [[p] for p in range(len(mixed))]
            assert sorted(int(batch.videos[0]) for batch in batches) == list(range(len(mixed)))
            assert requests_of(batches) == [loader.sampler.request(epoch, p) for p in range(len(mixed))]


def test_pictures_are_those_of_the_videos_and_frames_that_the_batch_names(mixed: Corpus) -> None:
    # Video i of each kind carries 100 * i and upwards; the H.264 ones begin anew behind the four MJPEG ones.
    first = [0, 100, 200, 300, 0, 100, 200]
    with loader_of(mixed, "cpu", augment=None, dtype="uint8", size=64, speed_order="random") as loader:
        for batch in kept(loader, 2 * len(loader)):
            for i in range(len(batch)):
                video = int(batch.videos[i])
                for v in range(2):
                    speed, start = float(batch.speeds[i, v]), int(batch.starts[i, v])
                    wanted = expected(start, speed, 4, mixed[video].frames)
                    assert numbers_shown(batch.clips[i, v]) == [first[video] + number for number in wanted]


def test_the_last_batch_of_an_epoch_is_dropped_when_it_is_not_full(mixed: Corpus) -> None:
    with loader_of(mixed, "cpu", batch_size=3) as loader:
        assert len(loader) == len(list(loader)) == 2
    with loader_of(mixed, "cpu", batch_size=3, clips_per_video=2) as loader:
        assert len(loader) == len(list(loader)) == 4


def test_a_loop_left_early_goes_on_where_it_was_left(mixed: Corpus) -> None:
    with loader_of(mixed, "cpu") as loader:
        whole = kept(loader, 2 * len(loader))
    with loader_of(mixed, "cpu") as loader:
        parts = []
        while len(parts) < len(whole):
            for batch in loader:
                parts.append(batch)
                break
    for a, b in zip(whole, parts, strict=True):
        assert_same(a, b)


@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_setting_the_epoch_in_mid_loop_drops_what_is_on_the_way(mixed: Corpus, epoch: int) -> None:
    with loader_of(mixed, "cpu", prefetch=3) as loader:
        iterator = iter(loader)
        next(iterator)
        loader.set_epoch(epoch)
        jumped = kept(loader, len(loader) + 1)
    assert [batch.epoch for batch in jumped] == [epoch] * (len(jumped) - 1) + [epoch + 1]
    with loader_of(mixed, "cpu") as fresh:
        fresh.set_epoch(epoch)
        for a, b in zip(jumped, kept(fresh, len(jumped)), strict=True):
            assert_same(a, b)


def test_the_train_split_is_taken_where_there_is_one(tmp_path: Path) -> None:
    paths = make_plain(tmp_path, 4, 64)
    train, rest = corpus_of(paths[:2], split="train"), corpus_of(paths[2:], split="test")
    corpus = Corpus.from_rows(train.table.to_pylist() + rest.table.to_pylist())
    for split, videos in (("auto", {0, 1}), ("test", {2, 3}), (None, {0, 1, 2, 3})):
        with loader_of(corpus, "cpu", split=split) as loader:
            assert {int(v) for batch in loader for v in batch.videos} == videos


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"batch_size": 8}, r"7 clips an epoch do not fill one batch of 8 on 1 rank\(s\); lower batch_size"),
        ({"batch_size": 4, "world_size": 2}, r"do not fill one batch of 4 on 2 rank\(s\)"),
        ({"rank": 1}, r"rank=1 must lie in 0\.\.world_size-1 = 0\.\.0"),
        ({"rank": -1}, "rank=-1"),
        ({"world_size": 0}, "rank=0 must lie"),
        ({"split": "train"}, "split 'train'"),
        ({"window": "none"}, "window='none'"),
    ],
)
def test_mistakes_name_the_key_the_value_and_what_would_be_right(
    mixed: Corpus, options: dict[str, Any], words: str
) -> None:
    before = set(threading.enumerate())
    with pytest.raises(DataError, match=words):
        loader_of(mixed, "cpu", **options)
    assert set(threading.enumerate()) <= before


def test_a_negative_epoch_is_refused(mixed: Corpus) -> None:
    with loader_of(mixed, "cpu") as loader, pytest.raises(DataError, match="epoch=-1 must not be negative"):
        loader.set_epoch(-1)


@pytest.mark.parametrize(("codec", "suffix"), [("vp9", ".webm"), ("h264", ".mkv")])
def test_files_that_go_bad_are_replaced_alike_in_every_run(tmp_path: Path, codec: str, suffix: str) -> None:
    check_replacement(tmp_path, 64, "cpu", codec=codec, suffix=suffix)


def test_a_file_overwritten_by_another_video_does_not_end_the_run(tmp_path: Path) -> None:
    paths = make_plain(tmp_path, 4, 64)
    corpus = corpus_of(paths)
    other = make_plain(tmp_path / "other", 1, 96, codec="h264", suffix=".mkv")[0]
    other.replace(paths[2])
    with loader_of(corpus, "cpu", frames=16) as loader:
        batches = kept(loader, 2 * len(loader))
        assert str(paths[2]) in loader.stats.bad | loader.stats.host_decoded
    assert all(batch.clips.isfinite().all() for batch in batches)


def test_a_corpus_of_which_nothing_is_left_is_an_error_that_names_a_video(tmp_path: Path) -> None:
    check_lost_corpus(tmp_path, "cpu")


def test_after_an_error_the_loader_still_knows_which_batch_is_which(tmp_path: Path) -> None:
    paths = make_plain(tmp_path, 12, 64)
    corpus = corpus_of(paths)
    for path in paths[2:]:  # with so few left some requests find no replacement and some do
        path.unlink()
    delivered, failed = [], 0
    with loader_of(corpus, "cpu", batch_size=1, clips_per_video=3) as loader:
        while loader.epoch == 0:
            step = loader.state_dict()["position"]
            try:
                batch = next(iter(loader), None)
            except DataError:
                failed += 1
                loader.load_state_dict(loader.state_dict() | {"position": step + 1})
                continue
            if batch is not None:
                delivered.append(batch)
                assert (batch.epoch, batch.positions.tolist()) == (0, [step])
                assert batch.requests[0].key == loader.sampler.request(0, step).key
    assert failed and delivered
    assert failed + len(delivered) == 36


SCRIPT = """
import os, signal, sys, threading
sys.path.insert(0, {tests!r})
from loader_checks import loader_of
from dali_pipes import Corpus

loader = loader_of(Corpus.open(sys.argv[1]), "cpu", batch_size=4, threads=2, prefetch=3)
iterator = iter(loader)
next(iterator)
print("running", flush=True)
{ending}
"""

ENDINGS = {
    "without close": "",
    "by an exception": "raise RuntimeError('as wanted')",
    "by sys.exit in the loop": "\n".join(["for batch in loader:", "    sys.exit(3)"]),
    "by SIGINT": "\n".join(
        [
            "while True:",
            "    for batch in loader:",
            "        if loader.epoch == 2:",
            "            os.kill(os.getpid(), 2)",
        ]
    ),
    "by KeyboardInterrupt, then close": "\n".join(
        [
            "try:",
            "    while True:",
            "        for batch in loader:",
            "            if loader.epoch == 1: raise KeyboardInterrupt",
            "except KeyboardInterrupt:",
            "    loader.close()",
            "print(threading.enumerate() == [threading.main_thread()])",
        ]
    ),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_process_ends_at_once_and_leaves_nothing_behind(tmp_path: Path, ending: str) -> None:
    corpus_of(make_plain(tmp_path, 8, 64)).save(tmp_path / "corpus.parquet")
    script = textwrap.dedent(SCRIPT).format(tests=str(Path(__file__).parents[1]), ending=ENDINGS[ending])
    before = set(os.listdir("/dev/shm"))
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "corpus.parquet")],
        capture_output=True,
        text=True,
        timeout=60,
        # Jobs that a shell starts in the background have Ctrl-C switched off, and so would this one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    codes = {"without close": 0, "by an exception": 1, "by sys.exit in the loop": 3, "by SIGINT": -signal.SIGINT}
    assert done.returncode == codes.get(ending, 0), done.stderr
    assert done.stdout.splitlines()[0] == "running"
    if "close" in ending and "without" not in ending:
        assert done.stdout.splitlines()[1] == "True"
    for word in ("Fatal", "terminate", "Exception ignored", "cannot join"):
        assert word not in done.stderr
    assert not {name for name in set(os.listdir("/dev/shm")) - before if name.startswith(("dali", "torch", "psm"))}


def test_an_interrupt_in_the_loop_leaves_a_loader_that_goes_on_or_closes(mixed: Corpus) -> None:
    before = set(threading.enumerate())
    with loader_of(mixed, "cpu") as loader:
        whole = kept(loader, len(loader))
    loader = loader_of(mixed, "cpu")
    found = []
    with pytest.raises(KeyboardInterrupt):
        for batch in loader:
            found.append(batch)
            raise KeyboardInterrupt
    found += kept(loader, len(whole) - 1)
    for a, b in zip(whole, found, strict=True):
        assert_same(a, b)
    loader.close()
    assert set(threading.enumerate()) <= before


def test_a_loader_dropped_in_mid_epoch_leaves_no_thread(mixed: Corpus) -> None:
    before = set(threading.enumerate())
    loader: SpeedLoader | None = loader_of(mixed, "cpu", threads=3)
    batch = next(iter(loader))
    del loader
    gc.collect()
    assert set(threading.enumerate()) <= before
    assert batch.clips.isfinite().all()


def test_output_types(mixed: Corpus) -> None:
    for dtype in ("uint8", "float16", "float32"):
        with loader_of(mixed, "cpu", dtype=dtype) as loader:
            clips = next(iter(loader)).clips
        assert clips.dtype == getattr(torch, dtype)
        assert clips.shape == (2, 2, 3, 4, 32, 32)
