"""The poller: what it sees, and that nothing that fails or hangs reaches the run."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.measure.poller import Poller, host, per_second, read_bytes


def wait_for(ready: Callable[[], Any]) -> Any:
    """The first value that counts as true, within a generous time."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if value := ready():
            return value
        time.sleep(0.01)
    raise AssertionError("never came")


def counting() -> dict[str, Callable[[], float]]:
    values = iter(range(1, 10**6))
    return {"count": lambda: float(next(values))}


def test_load_of_the_host_is_seen_and_summed_up() -> None:
    with Poller(every=0.02) as poller:
        seen = wait_for(lambda: poller.summary() if "host/rss_gib" in poller.summary() else None)
        assert 0.01 < seen["host/rss_gib"]["mean"] <= seen["host/rss_gib"]["max"] < 1000
        assert seen["host/rss_gib"]["count"] >= 1
    assert not any(thread.name.startswith("bench-poller") for thread in threading.enumerate())


def test_summary_is_that_of_a_window() -> None:
    with Poller(every=0.005, groups={"test": counting}) as poller:
        wait_for(lambda: len(poller.series().get("count", ())) >= 8)
        looks = poller.series()["count"][:8]
    window = poller.summary(looks[2][0], looks[5][0])["count"]
    assert window == {"mean": 4.5, "p95": pytest.approx(5.85), "max": 6.0, "count": 4}
    assert poller.summary(looks[-1][0] + 1e6) == {}


def test_only_so_many_looks_are_kept() -> None:
    with Poller(every=0.001, kept=3, groups={"test": counting}) as poller:
        wait_for(lambda: poller.summary().get("count", {"max": 0})["max"] > 6)
        looks = [value for _, value in poller.series()["count"]]
    assert len(looks) == 3 and looks[2] - looks[0] == 2


def test_probe_that_raises_is_said_once_and_the_others_go_on() -> None:
    said: list[str] = []

    def fail() -> float:
        raise RuntimeError("Not\nSupported")

    with Poller(every=0.005, say=said.append, groups={"test": lambda: {"bad": fail, **counting()}}) as poller:
        wait_for(lambda: poller.summary().get("count", {"count": 0})["count"] > 3)
        assert poller.summary().keys() == {"count"}
    assert said == ["bad is not recorded: Not Supported"]


def test_probe_that_hangs_holds_up_neither_other_groups_nor_the_end() -> None:
    hang = threading.Event()
    groups: dict[str, Any] = {"gpu": lambda: {"stuck": lambda: float(hang.wait())}, "host": counting}
    poller = Poller(every=0.005, groups=groups)
    try:
        wait_for(lambda: poller.summary().get("count", {"count": 0})["count"] > 3)
        begun = time.monotonic()
        poller.close()
        assert time.monotonic() - begun < 30
        assert "stuck" not in poller.summary()
    finally:
        hang.set()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_gpu_that_is_not_there_costs_a_warning_and_nothing_else() -> None:
    said: list[str] = []
    with Poller(torch.device("cuda"), every=0.02, say=said.append) as poller:
        wait_for(lambda: said and "host/rss_gib" in poller.summary())
    assert len(said) == 1 and said[0].startswith("the load of the gpu is not recorded: ")
    assert not any(name.startswith("gpu/") for name in poller.summary())


def test_host_is_seen_without_psutil(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    probes = host()
    assert {"host/process_cpus", "host/tree_cpus", "host/rss_gib", "host/cpu_load"} <= probes.keys()
    assert probes["host/rss_gib"]() > 0.01 and "host/disk_read_mb_s" not in probes


def test_warning_that_cannot_be_shown_ends_nothing() -> None:
    def say(text: str) -> None:
        raise ValueError("I/O operation on closed file")

    def fail() -> float:
        raise RuntimeError("no")

    with Poller(every=0.005, say=say, groups={"test": lambda: {"bad": fail, **counting()}}) as poller:
        wait_for(lambda: poller.summary().get("count", {"count": 0})["count"] > 2)


def test_rate_is_what_a_total_grew_by_in_the_time_between() -> None:
    totals = iter([10.0, 10.0, 30.0])
    probe = per_second(lambda: next(totals))
    assert probe() == 0.0
    begun = time.perf_counter()
    time.sleep(0.05)
    rate = probe()
    assert 20 / (time.perf_counter() - begun + 0.05) < rate <= 20 / 0.05


def test_bytes_fetched_from_storage_are_those_that_the_kernel_names(tmp_path: Path) -> None:
    path = tmp_path / "io"
    path.write_text("rchar: 900\nwchar: 2\nread_bytes: 4096\nwrite_bytes: 1\ncancelled_write_bytes: 0\n")
    assert read_bytes(path) == 4096
