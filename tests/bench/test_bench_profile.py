"""`profile_loader` over loaders of all kinds: what it takes from them, what it counts, what it says of them."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loader_checks import corpus_of, make_plain, requests_of

from bench import profile_loader
from bench.verdict import WINDOW
from bench.verdict.runner import count_samples
from dali_pipes import ClipRequest, ClipStream, DataError, SpeedLoader, View


class Sleepy(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Samples that each take a while to come from somewhere."""

    def __init__(self, pause: float, count: int = 4000) -> None:
        self.pause, self.count = pause, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> torch.Tensor:
        time.sleep(self.pause)
        return torch.full((3,), float(index))


class Counted:
    """Batches of two samples; counts how many were taken, and how often a loop was begun."""

    def __init__(self, length: int, pause: float = 0.0) -> None:
        self.length, self.pause = length, pause
        self.taken = self.begun = 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        self.begun += 1
        for _ in range(self.length):
            self.taken += 1
            time.sleep(self.pause)
            yield torch.zeros(2, 3)


def test_it_is_found_in_bench_without_importing_torch_first() -> None:
    code = (
        "import sys, bench; assert 'torch' not in sys.modules; from bench import profile_loader; print(profile_loader)"
    )
    assert "profile_loader" in subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout  # fmt: skip


def test_with_a_step_no_more_is_taken_than_twice_warmup_and_batches() -> None:
    loader, seen = Counted(5), []
    profile = profile_loader(loader, step=seen.append, batches=7, warmup=2)
    # With the step and alone, over as many epochs as it takes; the replayed batch is the step's only.
    assert loader.taken == 2 * 9
    assert loader.begun == 4
    assert len(seen) == 9 + 9 and all(batch is seen[8] for batch in seen[9:])
    assert (profile.batches, profile.samples) == (7, 14)
    assert profile.headroom and profile.alone and profile.lost is not None


def test_a_generator_is_gone_through_once_and_goes_on_afterwards() -> None:
    loader = Counted(30)
    batches = iter(loader)
    profile = profile_loader(batches, step=lambda batch: time.sleep(0.002), batches=6, warmup=2)
    assert loader.taken == 8
    assert profile.alone is None and profile.headroom is not None
    next(batches)
    assert loader.taken == 9


def test_a_generator_that_ends_early_is_timed_over_what_it_gave() -> None:
    profile = profile_loader(iter(Counted(5)), batches=50, warmup=2)
    assert (profile.batches, profile.samples) == (3, 6)
    assert profile.verdict.stage == "loader"


def test_too_few_batches_are_refused_in_one_line() -> None:
    with pytest.raises(DataError, match="warm-up of 5"):
        profile_loader(iter(Counted(2)))
    with pytest.raises(DataError, match="no samples"):
        profile_loader(iter(Counted(2)), warmup=2)
    with pytest.raises(DataError, match="batches=0"):
        profile_loader(Counted(2), batches=0)
    with pytest.raises(DataError, match="warm-up"):
        profile_loader([])


def test_an_error_of_the_step_comes_out_as_it_is() -> None:
    def broken(batch: object) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        profile_loader(Counted(9), step=broken)


@dataclasses.dataclass
class Pair:
    name: str
    clips: torch.Tensor


@pytest.mark.parametrize(
    ("batch", "samples"),
    [
        (torch.zeros(4, 2), 4),
        (torch.tensor(1.0), 1),
        (np.zeros((3, 2)), 3),
        (["name", {"label": 1, "clips": torch.zeros(5, 1)}], 5),
        ((torch.zeros(6), torch.zeros(2)), 6),
        (Pair("a", torch.zeros(7, 1)), 7),
    ],
)
def test_samples_are_the_first_dimension_of_the_first_tensor(batch: Any, samples: int) -> None:
    assert count_samples(batch) == samples


def test_batches_without_a_tensor_need_to_be_told() -> None:
    with pytest.raises(DataError, match="samples_of"):
        profile_loader([["a", "b"]] * 20)
    assert profile_loader([["a", "b"]] * 20, samples_of=len, batches=10).samples == 20


def test_a_slow_step_is_told_from_a_slow_loader_that_takes_turns_with_it() -> None:
    slow_step = profile_loader(Counted(100, 0.004), step=lambda batch: time.sleep(0.08), batches=8, warmup=1)
    assert slow_step.verdict.stage == "step"
    slow_loader = profile_loader(Counted(100, 0.08), step=lambda batch: time.sleep(0.02), batches=8, warmup=1)
    assert slow_loader.verdict.stage == "loader"
    # Nothing is made ready meanwhile, and so it is said that the two take turns.
    assert slow_loader.verdict.resource == WINDOW
    assert slow_loader.lost is not None and slow_loader.lost > 0.5


def test_a_data_loader_without_workers_is_advised_to_have_some() -> None:
    loader = torch.utils.data.DataLoader(Sleepy(0.03), batch_size=2)
    profile = profile_loader(loader, step=lambda batch: time.sleep(0.03), batches=8, warmup=1)
    assert (profile.verdict.stage, profile.verdict.resource) == ("fetch", WINDOW)
    assert "num_workers higher by one" in str(profile)
    assert profile.observed.stage("fetch").blocked >= 0.025


def test_workers_of_a_data_loader_that_wait_are_named_with_what_they_wait() -> None:
    loader = torch.utils.data.DataLoader(Sleepy(0.06), batch_size=2, num_workers=2)
    profile = profile_loader(loader, step=lambda batch: time.sleep(0.01), batches=12, warmup=4)
    assert profile.verdict.stage == "workers"
    stage = profile.observed.stage("workers")
    assert stage.blocked >= 0.05 and stage.cpu < 0.03
    if profile.verdict.resource == "workers":  # on a machine that is full it may be the cores
        assert "num_workers=" in str(profile)


def test_a_profile_of_our_loader_leaves_it_at_its_place(tmp_path: Path) -> None:
    corpus = corpus_of(make_plain(tmp_path, 4, 64))
    options: dict[str, Any] = {"frames": 4, "size": 32, "batch_size": 2, "device": "cpu", "threads": 1}
    with SpeedLoader(corpus, **options) as loader, SpeedLoader(corpus, **options) as other:
        first = next(iter(loader))
        profile = profile_loader(loader, batches=5, warmup=1)
        batches = iter(other)
        assert next(batches).requests == first.requests
        assert requests_of([next(iter(loader))]) == requests_of([next(batches)])
    assert profile.kind == "dali_pipes"
    assert {"plan", "read", "graph", "fetch"} <= {stage.name for stage in profile.observed.stages}
    assert profile.headroom is None and profile.lost is None
    assert profile.cpu > 0 and profile.read is not None and profile.read > 0


def test_a_stream_that_is_mapped_is_known_by_its_source(tmp_path: Path) -> None:
    corpus = corpus_of(make_plain(tmp_path, 2, 64))
    requests = [[ClipRequest(i % 2, (View(1, 0),)) for i in range(3)]] * 12
    with ClipStream(corpus, frames=4, size=32, batch_size=3, device="cpu", threads=1) as stream:
        profile = profile_loader(stream.map(requests), source=stream, batches=8, warmup=2)
    assert (profile.kind, profile.batches, profile.samples) == ("dali_pipes", 8, 24)
    assert profile.verdict.stage in {stage.name for stage in profile.observed.stages}


def test_a_profile_is_a_result_like_any_other_of_bench() -> None:
    profile = profile_loader(Counted(50, 0.002), step=lambda batch: time.sleep(0.002), batches=20)
    found = json.loads(json.dumps(profile.as_dict(), allow_nan=False))
    names = {"rate samples/s", "waiting for batches", "CPU s/sample", "step alone samples/s", "lost to data",
             "loader alone samples/s"}  # fmt: skip
    assert set(found["figures"]) == names
    rate = found["figures"]["rate samples/s"]
    assert rate["count"] == 10 and rate["low"] <= rate["median"] <= rate["high"] and rate["better"] == "higher"
    assert found["verdict"]["sentences"] == list(profile.verdict.sentences)
    assert "samples/s over 20 batches" in str(profile)
