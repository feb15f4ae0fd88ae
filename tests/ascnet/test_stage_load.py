"""Times of the loader's stages in the log of a run."""

from __future__ import annotations

import time
from types import SimpleNamespace

from ascnet.logs.stages import StageLoad
from dali_pipes import StreamStats


def test_times_are_those_of_the_samples_since_the_last_look() -> None:
    stats = StreamStats()
    load = StageLoad(SimpleNamespace(stats=stats), None, object())
    assert load.read() == {}
    with stats.times.follow("decode"):
        time.sleep(0.04)
    stats.samples, stats.batches, stats.ready = 4, 2, 1
    found = load.read()
    assert set(found) == {"stage/decode_ms", "stage/decode_blocked_ms", "data/ready_share"}
    assert found["stage/decode_ms"] >= 10 and found["data/ready_share"] == 0.5
    assert 5 < found["stage/decode_blocked_ms"] <= found["stage/decode_ms"]
    # Nothing was delivered since.
    assert load.read() == {}
    stats.samples, stats.batches, stats.ready = 8, 4, 3
    later = load.read()
    assert later["stage/decode_ms"] == 0 and later["data/ready_share"] == 1


def test_two_streams_are_added_up_over_the_samples_of_both() -> None:
    batches, positives = StreamStats(), StreamStats()
    load = StageLoad(SimpleNamespace(stats=batches), SimpleNamespace(stats=positives))
    for stats in (batches, positives):
        with stats.times.follow("read"):
            time.sleep(0.02)
        stats.samples, stats.batches = 1, 1
    found = load.read()
    total = sum(stats.times.snapshot()["read"].wall for stats in (batches, positives))
    assert abs(found["stage/read_ms"] - 500 * total) < 1e-6
    assert found["data/ready_share"] == 0
