"""Load and memory of GPU, video decoder and host, looked at now and then by a thread of its own.

Nothing here may disturb a run: what cannot be read is said once and left out.
"""

from __future__ import annotations

import importlib
import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

logger = logging.getLogger("ascnet")

GIB = 2**30
Probe = Callable[[], float]


class Monitor:
    """Looks every few seconds, and `read` gives what was seen since the last time. A context manager.

        with Monitor(device, every=1.0) as monitor:
            ...
            monitor.read()  # {"gpu/sm_load": 0.93, "gpu/decoder_load": 0.41, "host/rss_gib": 11.2, ...}

    Loads are means and lie between 0 and 1; amounts of memory are the largest seen. The GPU's are those of one device,
    whoever uses it.
    """

    def __init__(
        self, device: torch.device, every: float | None = 1.0, *, say: Callable[[str], None] = logger.warning
    ) -> None:
        """
        Args:
            device: Where this process trains.
            every: Seconds between two looks; None: never, and `read` has only what torch knows of its own memory.
            say: Shows a line; it may be called from the monitor's thread.
        """
        self._device, self._every, self._say = device, every, say
        self._lock = threading.Lock()
        self._seen: dict[str, list[float]] = {}
        self._stop = threading.Event()
        self._nvml: Any = None
        self._uuid = ""
        if device.type == "cuda":
            # CUDA_VISIBLE_DEVICES renumbers devices, but only for CUDA; their UUIDs stay. Asked here, because the
            # monitor's thread has a current device of its own.
            with suppress(Exception):
                self._uuid = str(torch.cuda.get_device_properties(device).uuid)
        self._thread: threading.Thread | None = None
        if every is not None:
            self._thread = threading.Thread(target=self._run, name="ascnet-monitor", daemon=True)
            self._thread.start()

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read(self) -> dict[str, float]:
        """What was seen since the last call; nothing of what cannot be seen here. Never waits, never raises."""
        with self._lock:
            seen, self._seen = self._seen, {}
        found = {name: max(v) if name.endswith("_gib") else sum(v) / len(v) for name, v in seen.items()}
        if self._device.type == "cuda":
            with suppress(Exception):
                found["gpu/allocated_peak_gib"] = torch.cuda.max_memory_allocated(self._device) / GIB
                found["gpu/reserved_peak_gib"] = torch.cuda.max_memory_reserved(self._device) / GIB
        return found

    def close(self) -> None:
        """Ends the thread; one that hangs in a driver is left behind."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=2.0)

    def _run(self) -> None:
        probes = self._probes()
        while True:
            for name, probe in list(probes.items()):
                try:
                    value = probe()
                except Exception as error:
                    del probes[name]
                    self._warn(f"{name} is not recorded: {' '.join(str(error).split()) or type(error).__name__}")
                    continue
                # Only this is done under the lock: a probe that hangs must not hold up whoever reads.
                with self._lock:
                    self._seen.setdefault(name, []).append(value)
            if self._stop.wait(self._every):
                break
        if self._nvml is not None:
            with suppress(Exception):
                self._nvml.nvmlShutdown()

    def _probes(self) -> dict[str, Probe]:
        probes: dict[str, Probe] = {}
        for make in (host_probes, self._gpu_probes):
            try:
                probes.update(make())
            except Exception as error:
                self._warn(f"some loads are not recorded: {' '.join(str(error).split()) or type(error).__name__}")
        return probes

    def _gpu_probes(self) -> dict[str, Probe]:
        if self._device.type != "cuda":
            return {}
        try:
            nvml = importlib.import_module("pynvml")
        except ImportError:
            self._warn('the load of the GPU is not recorded: pip install "dali-pipes[monitor]"')
            return {}
        nvml.nvmlInit()
        self._nvml = nvml
        return gpu_probes(nvml, nvml.nvmlDeviceGetHandleByUUID(f"GPU-{self._uuid}"))

    def _warn(self, text: str) -> None:
        with suppress(Exception):
            self._say(text)


def gpu_probes(nvml: Any, handle: Any) -> dict[str, Probe]:
    """Values of a GPU by their names.

    Args:
        nvml: The module pynvml, initialised.
        handle: NVML's handle of the device.
    """
    probes: dict[str, Probe] = {
        "gpu/sm_load": lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100,
        "gpu/decoder_load": lambda: nvml.nvmlDeviceGetDecoderUtilization(handle)[0] / 100,
        "gpu/memory_used_gib": lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used / GIB,
    }
    # Virtual GPUs have no PCIe counters: asked once, so that these are left out there without a warning.
    with suppress(Exception):
        for name, counter in (("rx", nvml.NVML_PCIE_UTIL_RX_BYTES), ("tx", nvml.NVML_PCIE_UTIL_TX_BYTES)):
            nvml.nvmlDeviceGetPcieThroughput(handle, counter)
            # NVML counts KB/s over the last 20 ms, seen from the GPU: rx is what it receives.
            probes[f"gpu/pcie_{name}_mb_s"] = partial(_pcie, nvml, handle, counter)
    return probes


def _pcie(nvml: Any, handle: Any, counter: int) -> float:
    return float(nvml.nvmlDeviceGetPcieThroughput(handle, counter)) / 1000


def host_probes() -> dict[str, Probe]:
    """Values of this process and its machine by their names: by psutil where it is installed, else from /proc."""
    probes: dict[str, Probe] = {"host/process_cpus": _process_cpus()}
    try:
        psutil: Any = importlib.import_module("psutil")
    except ImportError:
        return {**probes, **proc_probes()}
    process = psutil.Process()
    psutil.cpu_percent()  # the first call has no earlier one to compare with
    return {
        **probes,
        "host/cpu_load": lambda: psutil.cpu_percent() / 100,
        "host/memory_load": lambda: psutil.virtual_memory().percent / 100,
        "host/rss_gib": lambda: process.memory_info().rss / GIB,
    }


def proc_probes(proc: Path = Path("/proc")) -> dict[str, Probe]:
    """The host's values from Linux's own files; empty where there are none."""
    if not (proc / "self" / "statm").exists():
        return {}
    page = os.sysconf("SC_PAGE_SIZE")
    last = _cpu_ticks(proc)

    def cpu() -> float:
        nonlocal last
        before, last = last, _cpu_ticks(proc)
        busy, total = last[0] - before[0], last[1] - before[1]
        return busy / total if total > 0 else 0.0

    def memory() -> float:
        lines = (proc / "meminfo").read_text().splitlines()
        amounts = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
        return 1 - amounts["MemAvailable"] / amounts["MemTotal"]

    return {
        "host/cpu_load": cpu,
        "host/memory_load": memory,
        "host/rss_gib": lambda: int((proc / "self" / "statm").read_text().split()[1]) * page / GIB,
    }


def _cpu_ticks(proc: Path) -> tuple[int, int]:
    # user nice system idle iowait irq softirq steal; guest time is part of user time already.
    ticks = [int(word) for word in (proc / "stat").read_text().split("\n", 1)[0].split()[1:9]]
    return sum(ticks) - sum(ticks[3:5]), sum(ticks)


def _process_cpus() -> Probe:
    """CPUs that this process keeps busy, all of its threads together."""
    last = (time.process_time(), time.perf_counter())

    def probe() -> float:
        nonlocal last
        before, last = last, (time.process_time(), time.perf_counter())
        return (last[0] - before[0]) / max(last[1] - before[1], 1e-9)

    return probe


class ReplacedVideos:
    """Videos that others took the place of, in the batches and among the positives together, in this process."""

    def __init__(self, *streams: Any) -> None:
        """
        Args:
            streams: Loader and stream: what has `stats`, a `dali_pipes.StreamStats`; others, and None, are left out.
        """
        self._stats = [stats for stats in (getattr(stream, "stats", None) for stream in streams) if stats is not None]
        self._samples = self._replaced = 0

    def read(self) -> dict[str, float]:
        """Counts since the run began or was resumed, and the share since the last call.

        Returns:
            data/samples delivered, data/replaced of them, data/replaced/REASON; data/replaced_share since the last
            call; data/bad_videos (files that could not be decoded) and data/host_decoded_videos (files that DALI could
            not decode, but the host could).
        """
        if not self._stats:
            return {}
        samples, replaced = sum(stats.samples for stats in self._stats), sum(stats.replaced for stats in self._stats)
        found = {
            "data/samples": float(samples),
            "data/replaced": float(replaced),
            "data/replaced_share": (replaced - self._replaced) / max(1, samples - self._samples),
            "data/bad_videos": float(len({uri for stats in self._stats for uri in list(stats.bad)})),
            "data/host_decoded_videos": float(len({uri for stats in self._stats for uri in list(stats.host_decoded)})),
        }
        self._samples, self._replaced = samples, replaced
        for stats in self._stats:
            # Copied at once: the threads of the stream go on counting.
            for reason, count in dict(stats.replaced_by_reason).items():
                name = f"data/replaced/{reason}"
                found[name] = found.get(name, 0.0) + count
        return found
