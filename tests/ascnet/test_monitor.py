"""Load and memory: what is seen, and that nothing that fails reaches the run."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ascnet.logs.monitor import GIB, Monitor, ReplacedVideos, gpu_probes, host_probes, proc_probes
from dali_pipes import StreamStats

CPU = torch.device("cpu")
HOST = {"host/process_cpus", "host/cpu_load", "host/memory_load", "host/rss_gib"}


def wait_for(ready: Callable[[], Any]) -> Any:
    """The first value that counts as true, within a generous time."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if value := ready():
            return value
        time.sleep(0.01)
    raise AssertionError("never came")


def test_load_and_memory_of_the_host_are_seen_and_each_look_is_told_once() -> None:
    with Monitor(CPU, every=0.05) as monitor:
        seen = wait_for(monitor.read)
        assert seen.keys() == HOST
        assert 0.01 < seen["host/rss_gib"] < 1000 and 0 < seen["host/memory_load"] < 1
        assert 0 <= seen["host/cpu_load"] <= 1
        # Without another look there is nothing new.
        monitor.close()
        monitor.read()
        assert monitor.read() == {}
    assert not any(thread.name == "ascnet-monitor" for thread in threading.enumerate())


def test_monitor_that_is_switched_off_has_no_thread() -> None:
    before = threading.active_count()
    with Monitor(CPU, every=None) as monitor:
        assert threading.active_count() == before and monitor.read() == {}


def test_memory_of_this_process_grows_with_what_it_holds() -> None:
    probe = host_probes()["host/rss_gib"]
    before = probe()
    held = bytearray(os.urandom(1) * (256 << 20))
    assert 0.2 < probe() - before < 0.4
    del held


def test_busy_cpus_of_this_process_are_counted() -> None:
    probe = host_probes()["host/process_cpus"]
    probe()
    time.sleep(0.2)
    idle = probe()
    until = time.process_time() + 0.2
    while time.process_time() < until:
        pass
    assert idle < 0.5 * probe()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_proc_and_psutil_agree() -> None:
    psutil = pytest.importorskip("psutil")
    probes = proc_probes()
    assert probes.keys() | {"host/process_cpus"} == HOST
    assert probes["host/rss_gib"]() == pytest.approx(psutil.Process().memory_info().rss / GIB, rel=0.1)
    assert probes["host/memory_load"]() == pytest.approx(psutil.virtual_memory().percent / 100, abs=0.1)
    time.sleep(0.05)
    assert 0 <= probes["host/cpu_load"]() <= 1


def test_cpu_load_is_the_share_of_ticks_that_were_not_idle(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "statm").write_text("9 4 1")
    (tmp_path / "meminfo").write_text("MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 250 kB\n")
    (tmp_path / "stat").write_text("cpu  100 0 100 700 100 0 0 0 50 0\ncpu0 1 1\n")
    probes = proc_probes(tmp_path)
    (tmp_path / "stat").write_text("cpu  120 0 110 750 110 5 5 0 99 0\ncpu0 1 1\n")
    assert probes["host/cpu_load"]() == pytest.approx(0.4)
    assert probes["host/memory_load"]() == pytest.approx(0.75)
    assert probes["host/rss_gib"]() == 4 * os.sysconf("SC_PAGE_SIZE") / GIB


def test_value_that_cannot_be_read_is_said_once_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    class Driver:
        """What is used of pynvml, on a GPU without a video decoder."""

        def nvmlDeviceGetUtilizationRates(self, handle: str) -> SimpleNamespace:
            return SimpleNamespace(gpu=75)

        def nvmlDeviceGetDecoderUtilization(self, handle: str) -> list[int]:
            raise RuntimeError("Not Supported")

        def nvmlDeviceGetMemoryInfo(self, handle: str) -> SimpleNamespace:
            return SimpleNamespace(used=3 * GIB)

    said: list[str] = []
    monkeypatch.setattr("ascnet.logs.monitor.host_probes", lambda: gpu_probes(Driver(), "handle"))
    with Monitor(CPU, every=0.01, say=said.append) as monitor:
        seen = wait_for(monitor.read)
        for _ in range(3):
            seen = wait_for(monitor.read)
    assert seen == {"gpu/sm_load": 0.75, "gpu/memory_used_gib": 3.0}
    assert said == ["gpu/decoder_load is not recorded: Not Supported"]


def test_pcie_is_recorded_in_megabytes_and_left_out_where_the_gpu_does_not_tell() -> None:
    class Driver:
        """What is used of pynvml for PCIe; kilobytes a second, as NVML counts."""

        NVML_PCIE_UTIL_TX_BYTES, NVML_PCIE_UTIL_RX_BYTES = 0, 1

        def nvmlDeviceGetPcieThroughput(self, handle: str, counter: int) -> int:
            return (1500, 250000)[counter]

    class Virtual(Driver):
        def nvmlDeviceGetPcieThroughput(self, handle: str, counter: int) -> int:
            raise RuntimeError("Not Supported")

    probes = gpu_probes(Driver(), "handle")
    assert probes["gpu/pcie_rx_mb_s"]() == 250.0 and probes["gpu/pcie_tx_mb_s"]() == 1.5
    assert not any("pcie" in name for name in gpu_probes(Virtual(), "handle"))


def test_probe_that_hangs_holds_up_neither_reading_nor_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    hang = threading.Event()
    monkeypatch.setattr("ascnet.logs.monitor.host_probes", lambda: {"gpu/sm_load": lambda: float(hang.wait())})
    monitor = Monitor(CPU, every=0.01)
    begun = time.monotonic()
    assert monitor.read() == {}
    monitor.close()
    assert time.monotonic() - begun < 30
    hang.set()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize("there", [True, False], ids=["pynvml", "no-pynvml"])
def test_gpu_without_a_driver_costs_a_warning_and_nothing_else(there: bool) -> None:
    if there and importlib.util.find_spec("pynvml") is None:
        pytest.skip("needs the extra monitor")
    # In a process of its own: pynvml is imported, or hidden, for good.
    code = f"""
import sys, time, torch
if not {there}:
    sys.modules["pynvml"] = None
from ascnet.logs.monitor import Monitor
said = []
with Monitor(torch.device("cuda"), 0.01, say=said.append) as monitor:
    deadline = time.monotonic() + 60
    while "host/rss_gib" not in (seen := monitor.read()) and time.monotonic() < deadline:
        time.sleep(0.01)
assert "host/rss_gib" in seen, seen
print(said)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert ("not recorded" if there else 'pip install "dali-pipes[monitor]"') in done.stdout
    assert done.stdout.count("recorded") == 1


def test_warning_that_cannot_be_shown_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def say(text: str) -> None:
        raise ValueError("I/O operation on closed file")

    def fail() -> dict[str, Callable[[], float]]:
        raise RuntimeError("no such thing")

    monkeypatch.setattr("ascnet.logs.monitor.host_probes", fail)
    with Monitor(CPU, every=0.01, say=say) as monitor:
        time.sleep(0.05)
        assert monitor._thread is not None and monitor._thread.is_alive() and monitor.read() == {}


def test_replaced_videos_of_loader_and_positives_are_counted_together_by_reason() -> None:
    loader = SimpleNamespace(
        stats=StreamStats(samples=90, replaced=3, replaced_by_reason={"no such file": 2, "corrupt": 1}, bad={"a": "x"})
    )
    stream = SimpleNamespace(
        stats=StreamStats(samples=10, replaced=1, replaced_by_reason={"corrupt": 1}, bad={"a": "x", "b": "y"})
    )
    counts = ReplacedVideos(loader, stream)
    found = counts.read()
    assert found["data/replaced"] == 4 and found["data/replaced_share"] == 0.04 and found["data/samples"] == 100
    assert found["data/replaced/no such file"] == 2 and found["data/replaced/corrupt"] == 2
    assert found["data/bad_videos"] == 2 and found["data/host_decoded_videos"] == 0
    stream.stats.samples, stream.stats.replaced = 30, 6
    # Counts go on; the share is that of the 20 samples since then.
    later = counts.read()
    assert later["data/replaced"] == 9 and later["data/replaced_share"] == 0.25
    assert counts.read()["data/replaced_share"] == 0
    assert ReplacedVideos(loader, None).read()["data/replaced"] == 3
    assert ReplacedVideos(object(), None).read() == {}
