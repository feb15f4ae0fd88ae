"""Load of GPU, video decoder, PCIe, host and storage over time, looked at by threads of their own.

    with Poller(device) as poller:
        begun = time.perf_counter()
        ...
        poller.summary(begun)  # {"gpu/sm_load": {"mean": 0.41, "p95": 0.9, "max": 1.0, "count": 52}, ...}

It never disturbs or ends a run. The probes of the GPU and those of the host have a thread each, so that a driver that
hangs takes nothing else along. A probe that raises is dropped with one warning; one that hangs is left behind; looks
become rarer where looking itself takes long.
"""

from __future__ import annotations

import importlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from ascnet.logs.monitor import Probe, gpu_probes, host_probes
from bench.measure.processes import cpu_seconds

logger = logging.getLogger("bench")

MEGABYTE = 1e6
# Looks kept of each probe: half an hour at the usual pace.
KEPT = 7200
# Share of one core that looking may take; beyond it looks are made less often.
SHARE = 0.02
# Longest that `close` waits for a thread.
PATIENCE = 2.0
Make = Callable[[], Mapping[str, Probe]]


class Poller:
    """Looks several times a second and keeps what it saw. A context manager.

    Loads lie between 0 and 1, `_cpus` count busy cores, `_gib` is memory, `_mb_s` megabytes a second. Each value of a
    rate is the mean since the look before.
    """

    def __init__(
        self,
        device: torch.device | None = None,
        every: float = 0.25,
        *,
        kept: int = KEPT,
        say: Callable[[str], None] = logger.warning,
        groups: Mapping[str, Make] | None = None,
    ) -> None:
        """
        Args:
            device: The GPU to look at; None, or no GPU: the host alone.
            every: Seconds between two looks.
            kept: Most looks kept of each probe; older ones are forgotten.
            say: Shows a line; it may be called from a thread of the poller.
            groups: Name -> makes probes, each group in a thread of its own; None: those of host and GPU.
        """
        self._every, self._kept, self._say = every, kept, say
        self._lock = threading.Lock()
        self._seen: dict[str, deque[tuple[float, float]]] = {}
        self._stop = threading.Event()
        if groups is None:
            groups = {"host": host}
            if device is not None and device.type == "cuda":
                groups["gpu"] = lambda: gpu(device)
        self._threads = [
            threading.Thread(target=self._run, args=(name, make), name=f"bench-poller-{name}", daemon=True)
            for name, make in groups.items()
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Poller:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def series(self, since: float = 0.0, until: float = float("inf")) -> dict[str, list[tuple[float, float]]]:
        """What was seen in a window of `time.perf_counter`: name -> (time, value) of each look. Never waits long."""
        with self._lock:
            known = {name: list(looks) for name, looks in self._seen.items()}
        inside = {name: [look for look in looks if since <= look[0] <= until] for name, looks in known.items()}
        return {name: looks for name, looks in sorted(inside.items()) if looks}

    def summary(self, since: float = 0.0, until: float = float("inf")) -> dict[str, dict[str, float]]:
        """Mean, 95th percentile, maximum and number of the looks in a window; nothing of what was not seen in it."""
        found = {}
        for name, looks in self.series(since, until).items():
            values = np.array([value for _, value in looks])
            found[name] = {
                "mean": float(values.mean()),
                "p95": float(np.percentile(values, 95)),
                "max": float(values.max()),
                "count": len(values),
            }
        return found

    def close(self) -> None:
        """End the threads; one that hangs in a driver is left behind. May be called more than once."""
        self._stop.set()
        deadline = time.monotonic() + PATIENCE
        for thread in self._threads:
            thread.join(timeout=max(0.0, deadline - time.monotonic()))

    def _run(self, group: str, make: Make) -> None:
        try:
            probes = dict(make())
        except Exception as error:
            self._warn(f"the load of the {group} is not recorded: {_brief(error)}")
            return
        pause = self._every
        # Waited for before the first look as well, or the first rates would be over no time at all.
        while probes and not self._stop.wait(pause):
            begun, spent = time.perf_counter(), time.thread_time()
            for name, probe in list(probes.items()):
                try:
                    value = float(probe())
                except Exception as error:
                    del probes[name]
                    self._warn(f"{name} is not recorded: {_brief(error)}")
                    continue
                # Only this is done under the lock: a probe that hangs must not hold up whoever reads.
                with self._lock:
                    looks = self._seen.setdefault(name, deque(maxlen=self._kept))
                    looks.append((time.perf_counter(), value))
            pause = max(self._every - (time.perf_counter() - begun), (time.thread_time() - spent) / SHARE)

    def _warn(self, text: str) -> None:
        with suppress(Exception):
            self._say(text)


def host() -> dict[str, Probe]:
    """What `ascnet` records of the host while it trains, and the CPUs of children and the storage's rate as well."""
    probes = {**host_probes(), "host/tree_cpus": per_second(cpu_seconds)}
    with suppress(OSError, ValueError, StopIteration):
        read_bytes()
        # What this process had to fetch from storage; reads that the page cache answers are not in it.
        probes["host/process_read_mb_s"] = per_second(lambda: read_bytes() / MEGABYTE)
    with suppress(Exception):
        psutil: Any = importlib.import_module("psutil")
        psutil.disk_io_counters().read_bytes  # noqa: B018 -- None in containers that hide their disks
        probes["host/disk_read_mb_s"] = per_second(lambda: psutil.disk_io_counters().read_bytes / MEGABYTE)
    return probes


def gpu(device: torch.device) -> dict[str, Probe]:
    """What NVML tells of one GPU; its encoder only where it has one.

    Raises:
        ImportError: Where pynvml is not installed.
        Exception: Whatever NVML says where there is no driver.
    """
    nvml: Any = importlib.import_module("pynvml")
    nvml.nvmlInit()
    # CUDA_VISIBLE_DEVICES renumbers devices, but only for CUDA; their UUIDs stay.
    handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
    probes = gpu_probes(nvml, handle)
    with suppress(Exception):
        nvml.nvmlDeviceGetEncoderUtilization(handle)
        probes["gpu/encoder_load"] = lambda: nvml.nvmlDeviceGetEncoderUtilization(handle)[0] / 100
    return probes


def per_second(total: Callable[[], float]) -> Probe:
    """The rate of a total that grows, from one look to the next; the first is from the making of the probe on."""
    last = (total(), time.perf_counter())

    def probe() -> float:
        nonlocal last
        before, last = last, (total(), time.perf_counter())
        return (last[0] - before[0]) / max(last[1] - before[1], 1e-9)

    return probe


def read_bytes(proc: Path = Path("/proc/self/io")) -> int:
    """Bytes that this process has fetched from storage so far (proc_pid_io(5)).

    Raises:
        OSError: Where the kernel does not tell.
        StopIteration: Where it tells, but not this.
    """
    lines = proc.read_text().splitlines()
    return int(next(line for line in lines if line.startswith("read_bytes:")).split()[1])


def _brief(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
