"""What the machine gave: time of threads on cores and waiting for one, and the cores left by other programs (Linux)."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from dali_pipes.corpus.engine import default_workers

_TICK = 1 / os.sysconf("SC_CLK_TCK")


class ThreadTime(NamedTuple):
    """One thread so far.

    Attributes:
        name: As the kernel has it, at most 15 characters.
        cpu: Seconds on a core.
        queued: Seconds ready to run with no core free; 0 where the kernel does not tell.
    """

    name: str
    cpu: float
    queued: float


def thread_times(process: int | str = "self") -> dict[int, ThreadTime]:
    """All threads of a process, by their numbers.

    From schedstat, which counts nanoseconds and knows of waiting for a core; where the kernel was built without it,
    from stat, to a tick of 10 ms as a rule.
    """
    found = {}
    with suppress(OSError):
        for entry in Path(f"/proc/{process}/task").iterdir():
            with suppress(OSError):  # it has just ended
                head, _, rest = (entry / "stat").read_text().rpartition(") ")
                fields = rest.split()
                cpu, queued = (int(fields[11]) + int(fields[12])) * _TICK, 0.0
                with suppress(OSError, ValueError):
                    counted = (entry / "schedstat").read_text().split()
                    cpu, queued = int(counted[0]) / 1e9, int(counted[1]) / 1e9
                found[int(entry.name)] = ThreadTime(head.partition("(")[2], cpu, queued)
    return found


def process_children() -> list[int]:
    """Processes that descend from this one, as far as they still run."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, ValueError, IndexError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(") ")[2].split()[1])
    own, found = os.getpid(), []
    for process in parents:
        above = parents[process]
        while above != own and above in parents:
            above = parents[above]
        if above == own:
            found.append(process)
    return found


def cores_usable() -> float:
    """Cores that this process may use: its affinity, or its control group's quota where that is less."""
    cores = float(default_workers())
    with suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, float(quota) / float(period))  # "max" is no number: no limit
    with suppress(OSError, ValueError):
        quota = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").read_text()
        period = Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us").read_text()
        if float(quota) > 0:
            cores = min(cores, float(quota) / float(period))
    return cores


def idle_seconds() -> float:
    """Seconds that the cores this process may use have stood idle, all together, since boot (proc_stat(5))."""
    usable, idle = os.sched_getaffinity(0), 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in usable:
            idle += int(fields[3]) + int(fields[4])  # idle, and idle while something waits for a disk
    return idle * _TICK


def cores_free(*, cores: float, used: float, idle: float, stretch: float, threads: float) -> float:
    """Cores that a pipeline can have beside what else runs.

    What it used and what stood idle it can have in any case. On a full machine a fair scheduler gives it more as soon
    as more of its threads are ready to run: it got `used` of `cores` with `used * stretch` threads ready on average, so
    others keep as many ready as fit that share, and with all of its threads ready it would get theirs.

    Args:
        cores: Cores that it may use.
        used: Cores that it did use.
        idle: Cores that stood idle.
        stretch: Its seconds ready to run, by its seconds on a core; 1: it never waited for one.
        threads: Its threads.
    """
    others = max(0.0, stretch * (cores - used))
    share = cores * threads / (threads + others)
    return max(0.01, min(cores, max(used + idle, share)))


def queued_for_others(*, cores: float, used: float, idle: float) -> float:
    """Share of a pipeline's waiting for cores that is the doing of other programs: their share of the cores in use."""
    others = max(0.0, cores - used - idle)
    return others / (others + used) if others + used > 0 else 0.0
