"""Clocks of the stages of a request."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dali_pipes import ClipRequest, ClipStream, Corpus, View
from dali_pipes.decode import host_av
from dali_pipes.stages import STAGES, Span, StageTime, StageTimes, listen, stage, timed
from tests.make_videos import make_video


def spin(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_a_stage_within_another_takes_its_time_away_from_it() -> None:
    times, begun = StageTimes(), time.perf_counter()
    with times.follow("plan"):
        time.sleep(0.02)
        with stage("decode"):
            time.sleep(0.05)
            with stage("read"):
                time.sleep(0.03)
    passed, found = time.perf_counter() - begun, times.snapshot()
    assert {name: spent.count for name, spent in found.items()} == {"plan": 1, "decode": 1, "read": 1}
    assert found["plan"].wall >= 0.02 and found["decode"].wall >= 0.05 and found["read"].wall >= 0.03
    # Nothing is counted twice.
    assert sum(spent.wall for spent in found.values()) <= passed


def test_sleeping_is_blocked_and_computing_is_not() -> None:
    times = StageTimes()
    with times.follow("read"):
        time.sleep(0.05)
    with times.follow("decode"):
        spin(0.05)
    found = times.snapshot()
    assert found["read"].cpu < 0.02 and found["read"].blocked > 0.03
    assert found["decode"].cpu >= 0.05 and found["decode"].blocked < 0.02


def test_waiting_for_a_core_is_not_taken_for_being_blocked() -> None:
    # More threads than cores, none of which ever sleeps; the interpreter lets one of them run at a time, so they
    # compute where it is not needed.
    times, data = StageTimes(), bytes(64_000_000)

    def work() -> None:
        with times.follow("decode"):
            hashlib.sha256(data).digest()

    if not Path("/proc/thread-self/schedstat").exists():
        pytest.skip("the kernel does not tell how long a thread waited for a core")
    threads = [threading.Thread(target=work) for _ in range(4 * len(os.sched_getaffinity(0)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = times.snapshot()["decode"]
    assert found.queued > found.cpu / 2
    # What is left is waiting for the interpreter.
    assert found.blocked < found.queued / 2


def test_items_that_are_slow_to_come_are_charged_to_their_own_stage() -> None:
    times, begun = StageTimes(), time.perf_counter()

    def slow() -> Iterator[int]:
        for number in range(3):
            time.sleep(0.02)
            yield number

    with times.follow("decode"):
        for _ in timed(slow(), "read"):
            time.sleep(0.01)
        for _ in timed(slow(), "read"):
            break
    passed, found = time.perf_counter() - begun, times.snapshot()
    assert found["read"].wall >= 0.08 and found["decode"].wall >= 0.03
    assert found["read"].wall + found["decode"].wall <= passed


def test_outside_of_a_followed_block_nothing_is_timed_and_nothing_changes() -> None:
    with stage("decode"):
        assert list(timed(iter([1, 2]), "read")) == [1, 2]


def test_a_listener_hears_every_stage_with_its_thread() -> None:
    heard: list[Span] = []
    times = StageTimes()
    with listen(heard.append), times.follow("graph"), stage("copy"):
        pass
    with times.follow("graph"):
        pass
    assert [(name, thread) for name, thread, _, _ in heard] == [(n, threading.get_ident()) for n in ("copy", "graph")]
    assert all(begin <= end for _, _, begin, end in heard)


def test_an_error_ends_the_clock_all_the_same() -> None:
    times = StageTimes()
    with pytest.raises(KeyError), times.follow("plan"), stage("decode"):
        raise KeyError
    with stage("decode"):
        pass
    assert times.snapshot()["decode"].count == 1


def test_a_stream_tells_what_its_stages_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_video(tmp_path / "a.mp4", frames=40, codec="h264")
    corpus = Corpus.build(tmp_path, "folders")
    usual = host_av.decode

    def slow(*arguments: object, **options: object) -> object:
        time.sleep(0.05)
        return usual(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(host_av, "decode", slow)
    requests = [[ClipRequest(0, (View(speed=1, start=at),))] for at in range(4)]
    options = {"frames": 4, "size": 16, "batch_size": 1, "device": "cpu", "threads": 1, "dtype": "float16"}
    with ClipStream(corpus, **options, processes=False) as stream:
        before = stream.stats.times.snapshot()
        for _ in stream.map(requests):
            pass
        found, stats = stream.stats.times.snapshot(), stream.stats
    assert before == {}
    assert set(found) == set(STAGES) - {"cut"}
    assert found["decode"].count == 4 and found["decode"].blocked > 0.15
    assert found["plan"].blocked < 0.1 and found["graph"].count == 4
    # The graph waited for the decoder, not the decoder for the graph.
    assert stats.starved > 0.1 and stats.ready <= 4


def test_times_of_a_stretch_are_a_difference_of_snapshots() -> None:
    early, late = StageTime(1.0, 0.5, 0.25, 1), StageTime(4.0, 1.0, 0.5, 3)
    assert late - early == StageTime(3.0, 0.5, 0.25, 2)
    assert (late - early).blocked == 2.25
    assert (late - early) + early == late
