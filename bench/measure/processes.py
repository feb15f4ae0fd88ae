"""CPU time of this process and of its children, and its memory, from Linux's /proc (proc_pid_stat(5))."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def cpu_seconds() -> float:
    """User and system time of this process, of all that it started and still run, and of those that it waited for.

    `resource.getrusage` knows children only once they have ended, and a DataLoader's workers live on. Children are
    known to a tick of the clock (10 ms as a rule), this process to a microsecond: a short round may take less than one.
    """
    own = os.getpid()
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for process, text in _told("stat"):
        # The command, in parentheses, may itself hold spaces and parentheses.
        fields = text[text.rindex(")") + 2 :].split()
        parents[process] = int(fields[1])
        waited_for = 13 if process == own else 11
        ticks[process] = sum(int(field) for field in fields[waited_for:15])
    total = sum(ticks[process] for process in ticks if _descends(process, own, parents))
    return time.process_time() + total / os.sysconf("SC_CLK_TCK")


def _told(file: str) -> Iterator[tuple[int, str]]:
    """What the kernel tells of each process in a file of its folder."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it has just ended
                yield int(entry.name), (entry / file).read_text()


def _descends(process: int, ancestor: int, parents: dict[int, int]) -> bool:
    while process in parents and process != ancestor:
        process = parents[process]
    return process == ancestor


def resident() -> float:
    """Resident memory of this process and of all that it started, MiB, from Linux's /proc (proc_pid_status(5)).

    What they share with this process through shared memory counts once, here.
    """
    own = os.getpid()
    parents: dict[int, int] = {}
    held: dict[int, int] = {}
    for process, text in _told("status"):
        told = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        parents[process] = int(told["PPid"])
        kinds = ("RssAnon", "RssFile", "RssShmem") if process == own else ("RssAnon", "RssFile")
        held[process] = sum(int(told.get(kind, "0 kB").split()[0]) for kind in kinds)
    return sum(held[process] for process in held if _descends(process, own, parents)) / 1024
