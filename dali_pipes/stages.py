"""Where the time of a request goes: clocks of the stages that it passes through, always on.

    times = StageTimes()
    with times.follow("plan"):      # all that this thread does here belongs to a stage
        ...
        with stage("decode"):       # somewhere deep below; planning stands still meanwhile
            ...
    times.snapshot()["decode"].wall

A stage costs about two microseconds, so nobody has to switch it on. What is called outside of `follow` is not timed.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

STAGES = {
    "plan": "which frames, and what is drawn for each clip",
    "read": "opening files, reading packets",
    "cut": "packets into a small video for DALI",
    "decode": "decoding on the host, scaling included",
    "graph": "the DALI graph: decoding where DALI decodes, speed, crops, colours",
    "copy": "to torch, and out of DALI's memory",
}
"""Names of the stages, in the order of a request. The first four are the worker threads', the others the graph's."""

Span = tuple[str, int, float, float]
"""Stage, thread, begin and end in seconds of `time.perf_counter`."""


@dataclass(frozen=True)
class StageTime:
    """What a stage took, over all threads and without the stages within it.

    Attributes:
        wall: Seconds.
        cpu: Seconds on a core; only of the thread that asked, not of DALI's own.
        queued: Seconds in which the thread was ready to run and no core was free; 0 where the kernel does not tell.
        count: Times that it was entered.
    """

    wall: float = 0.0
    cpu: float = 0.0
    queued: float = 0.0
    count: int = 0

    @property
    def blocked(self) -> float:
        """Seconds spent waiting for something else than a core: storage, a network, a device, another thread."""
        return max(0.0, self.wall - self.cpu - self.queued)

    def __add__(self, other: StageTime) -> StageTime:
        return StageTime(
            self.wall + other.wall, self.cpu + other.cpu, self.queued + other.queued, self.count + other.count
        )

    def __sub__(self, other: StageTime) -> StageTime:
        return StageTime(
            self.wall - other.wall, self.cpu - other.cpu, self.queued - other.queued, self.count - other.count
        )


class StageTimes:
    """Totals of all stages, of any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._totals: dict[str, StageTime] = {}

    @contextmanager
    def follow(self, name: str) -> Iterator[None]:
        """Times what this thread does in the block; what lies in no other stage belongs to `name`."""
        outer, watch = getattr(_here, "watch", None), _Watch()
        _here.watch = watch
        watch.enter(name)
        try:
            yield
        finally:
            watch.leave()
            _here.watch = outer
            with self._lock:
                for key, (wall, cpu, queued, count) in watch.totals.items():
                    self._totals[key] = self._totals.get(key, StageTime()) + StageTime(wall, cpu, queued, int(count))

    def snapshot(self) -> dict[str, StageTime]:
        """Totals so far by stage; subtract an earlier snapshot for what came between."""
        with self._lock:
            return dict(self._totals)


def stage(name: str) -> AbstractContextManager[None]:
    """Times a block as a stage of its own, within `StageTimes.follow`; elsewhere it does nothing."""
    watch: _Watch | None = getattr(_here, "watch", None)
    return _NOTHING if watch is None else _Within(watch, name)


def timed(items: Iterable[T], name: str) -> Iterator[T]:
    """The same items; waiting for them is taken from the stage around and given to another one.

    For loops over packets, which are too many for two readings of a thread's clock each: of these stretches only the
    wall time moves, and their CPU time stays where it is.
    """
    watch: _Watch | None = getattr(_here, "watch", None)
    if watch is None:
        yield from items
        return
    clock, spent, count = time.perf_counter, 0.0, 0
    source = iter(items)
    try:
        while True:
            begun = clock()
            try:
                item = next(source)
            except StopIteration:
                spent += clock() - begun
                return
            spent += clock() - begun
            count += 1
            yield item
    finally:
        watch.move(name, spent)


def charge(totals: dict[str, StageTime]) -> None:
    """Adds what another process has done for this thread, while it waited in a stage, to the stages.

    Args:
        totals: As `StageTimes.snapshot` gives them there. The wall time is taken from the stage that this thread is in,
            where it has passed already.
    """
    watch: _Watch | None = getattr(_here, "watch", None)
    if watch is not None:
        watch.charge(totals)


@contextmanager
def listen(told: Callable[[Span], None]) -> Iterator[None]:
    """Calls `told` at the end of every stage within the block, in the thread of the stage; for traces.

    It must be quick and must not raise: `list.append` is meant.
    """
    _listeners.append(told)
    try:
        yield
    finally:
        _listeners.remove(told)


_here = threading.local()
_listeners: list[Callable[[Span], None]] = []
_NOTHING: AbstractContextManager[None] = nullcontext()


class _Watch:
    """The stages that one thread is in, and what it has spent in each: wall, cpu, queued, count."""

    def __init__(self) -> None:
        self.totals: dict[str, list[float]] = {}
        self._within: list[tuple[str, float]] = []
        self._mark = (0.0, 0.0, 0.0)

    def enter(self, name: str) -> None:
        self._charge()
        self._within.append((name, self._mark[0]))
        self.totals.setdefault(name, [0.0, 0.0, 0.0, 0])[3] += 1

    def leave(self) -> None:
        self._charge()
        name, begun = self._within.pop()
        for told in _listeners:
            told((name, threading.get_ident(), begun, self._mark[0]))

    def move(self, name: str, wall: float) -> None:
        """Gives wall time of the present stage to another."""
        self.totals.setdefault(name, [0.0, 0.0, 0.0, 0])[0] += wall
        if self._within:
            self.totals[self._within[-1][0]][0] -= wall

    def charge(self, totals: dict[str, StageTime]) -> None:
        """Adds the times of another process; see the function of this name."""
        here = self._within[-1][0] if self._within else ""
        for name, time_ in totals.items():
            spent = self.totals.setdefault(name, [0.0, 0.0, 0.0, 0])
            spent[1] += time_.cpu
            spent[2] += time_.queued
            if name != here:
                self.move(name, time_.wall)
                spent[3] += time_.count

    def _charge(self) -> None:
        now = (time.perf_counter(), time.thread_time(), _queued())
        if self._within:
            spent = self.totals[self._within[-1][0]]
            for at in range(3):
                spent[at] += now[at] - self._mark[at]
        self._mark = now


class _Within:
    """`with stage(...)`; a class of its own, since a generator would cost several times as much."""

    __slots__ = ("_name", "_watch")

    def __init__(self, watch: _Watch, name: str) -> None:
        self._watch, self._name = watch, name

    def __enter__(self) -> None:
        self._watch.enter(self._name)

    def __exit__(self, *_: object) -> None:
        self._watch.leave()


class _Schedule:
    """A thread's own line of Linux's schedstat; closed with the thread."""

    def __init__(self) -> None:
        self.file = -1
        with suppress(OSError):
            self.file = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if self.file >= 0:
            with suppress(OSError):
                os.close(self.file)


def _queued() -> float:
    """Seconds that this thread has waited for a core, since it began (Linux: Documentation/scheduler/sched-stats)."""
    schedule: _Schedule | None = getattr(_here, "schedule", None)
    if schedule is None:
        schedule = _here.schedule = _Schedule()
    if schedule.file < 0:
        return 0.0
    try:
        return int(os.pread(schedule.file, 96, 0).split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0
