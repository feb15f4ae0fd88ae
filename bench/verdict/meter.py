"""A pipeline of ours at work, watched: clocks of its stages, threads, cores, and from these what each stage asks."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from bench.measure.processes import cpu_seconds
from bench.verdict.machine import (
    ThreadTime,
    cores_free,
    cores_usable,
    idle_seconds,
    process_children,
    queued_for_others,
    thread_times,
)
from bench.verdict.model import Observed, Pool, Stage
from dali_pipes import ClipStream, SpeedLoader
from dali_pipes.decode import processes
from dali_pipes.stages import StageTime, StageTimes

K = TypeVar("K")

WORKERS, GRAPH, CONSUMER = "workers", "graph", "consumer"
_ON_GRAPH = ("graph", "copy")
_DALI = "[DALI]"  # how the names of its threads begin


@dataclass(frozen=True)
class Reading:
    """What happened between two moments; seconds unless said otherwise.

    Attributes:
        seconds: Wall time.
        cpu: CPU time of this process and its children.
        idle: Time that the usable cores stood idle, all together.
        cores: Cores that this process may use.
        threads: Time of each thread of this process on a core and waiting for one.
        children: The same for child processes that ran at both moments, by process and thread.
        stages: Clocks of the stream's stages.
        ready: Batches that were ready when asked for.
        batches: Batches delivered.
        read: Bytes that this process and those children read from files and sockets; None where it cannot be told.
    """

    seconds: float
    cpu: float
    idle: float
    cores: float
    threads: dict[int, ThreadTime]
    children: dict[tuple[int, int], ThreadTime]
    stages: dict[str, StageTime]
    ready: int
    batches: int
    read: int | None

    @property
    def used(self) -> float:
        """Cores used."""
        return self.cpu / self.seconds

    @property
    def stretch(self) -> float:
        """Time ready to run, by time on a core, over all threads."""
        threads = [*self.threads.values(), *self.children.values()]
        cpu, queued = sum(one.cpu for one in threads), sum(one.queued for one in threads)
        return (cpu + queued) / cpu if cpu > 0 else 1.0

    @property
    def others(self) -> float:
        """Share of the waiting for cores that is other programs' doing."""
        return queued_for_others(cores=self.cores, used=self.used, idle=self.idle / self.seconds)

    def cores_free(self, threads: float) -> float:
        """Cores that so many threads can have; see :func:`bench.verdict.machine.cores_free`."""
        idle = self.idle / self.seconds
        return cores_free(cores=self.cores, used=self.used, idle=idle, stretch=self.stretch, threads=threads)


class Meter:
    """Watches from `start` to `stop`; what runs in between is not touched.

    Args:
        source: A stream or loader whose stages are to be told apart; None: there is none.

    Example:
        >>> meter = Meter(loader)                                   # doctest: +SKIP
        >>> meter.start(); train(loader); reading = meter.stop()    # doctest: +SKIP
        >>> judge(observe(reading, loader, samples=640))            # doctest: +SKIP
    """

    def __init__(self, source: ClipStream | SpeedLoader | None = None) -> None:
        self._stats = None if source is None else source.stats

    def start(self) -> None:
        """Begins to watch."""
        self._before = self._now()

    def stop(self) -> Reading:
        """What happened since `start`; it goes on watching."""
        old, new = self._before, self._now()
        nothing = StageTime()
        return Reading(
            seconds=new.seconds - old.seconds,
            cpu=new.cpu - old.cpu,
            idle=max(0.0, new.idle - old.idle),
            cores=new.cores,
            threads=_between(old.threads, new.threads, born=True),
            children=_between(old.children, new.children, born=False),
            stages={name: spent - old.stages.get(name, nothing) for name, spent in new.stages.items()},
            ready=new.ready - old.ready,
            batches=new.batches - old.batches,
            read=None if new.read is None or old.read is None else max(0, new.read - old.read),
        )

    def _now(self) -> Reading:
        processes = process_children()
        children = {(p, t): spent for p in processes for t, spent in thread_times(p).items()}
        stats = self._stats
        return Reading(
            seconds=time.perf_counter(),
            cpu=cpu_seconds(),
            idle=idle_seconds(),
            cores=cores_usable(),
            threads=thread_times(),
            children=children,
            stages={} if stats is None else stats.times.snapshot(),
            ready=0 if stats is None else stats.ready,
            batches=0 if stats is None else stats.batches,
            read=_bytes_read([os.getpid(), *processes]),
        )


def stream_of(source: ClipStream | SpeedLoader) -> ClipStream:
    """The stream behind a loader, or the stream itself."""
    return source._stream if isinstance(source, SpeedLoader) else source


def observe(
    reading: Reading,
    source: ClipStream | SpeedLoader,
    *,
    samples: int,
    calling: Mapping[str, StageTime] | None = None,
    caller: int | None = None,
) -> Observed:
    """What a sample asked of each stage of a stream or loader of ours.

    Args:
        reading: Of a :class:`Meter` made for it.
        source: The stream or loader.
        samples: Samples delivered meanwhile.
        calling: Clocks of the thread that took the batches: "fetch" (in the loader's hands, waiting included) and
            "step" (what it did with them, the device waited for). None: only the loader is looked at.
        caller: Number that the kernel has for that thread; None: the present one.
    """
    stream = stream_of(source)
    calling = dict(calling or {})
    others = reading.others
    own = {thread.native_id for thread in stream._engine.workers._threads} | {stream._engine.thread.native_id}
    own.add(threading.get_native_id() if caller is None else caller)
    dali = [spent for spent in reading.threads.values() if spent.name.startswith(_DALI)]
    rest = [s for t, s in reading.threads.items() if t not in own and not s.name.startswith(_DALI)]
    found = []
    for name, spent in _mended(reading.stages).items():
        pool = GRAPH if name in _ON_GRAPH else WORKERS
        found.append(stage_from(name, spent, samples, pool=pool, others=others))
    helping = sum(one.cpu for one in dali) / samples
    # What the graph waits for is mostly its own threads; of that, their waiting for cores is left to the cores' bound.
    unheld = sum(one.queued for one in dali) * (1 - others) / stream.threads / samples
    found = [_helped(one, helping, unheld) if one.name == "graph" else one for one in found]
    rest_cpu = sum(one.cpu for one in rest) / samples
    if "step" in calling:
        step = stage_from("step", calling["step"], samples, pool=CONSUMER, others=others)
        found.append(Stage(step.name, step.cpu, step.blocked, CONSUMER, helpers=rest_cpu, queued=step.queued))
        rest_cpu = 0.0
    if "fetch" in calling:
        found.append(busy_part("fetch", calling["fetch"], samples, others))
    # What our own decoding processes have done is in the stages of the threads that waited for it.
    decoders = processes.members()
    children = sum(one.cpu for (process, _), one in reading.children.items() if process not in decoders) / samples
    if rest_cpu + children > 0:
        found.append(Stage("other", rest_cpu + children))
    pools = [Pool(WORKERS, stream.threads, setting="threads"), Pool(GRAPH, 1), Pool(CONSUMER, 1)]
    return Observed(
        stages=tuple(found),
        pools=tuple(pools),
        cores=reading.cores_free(2.0 * stream.threads + 2),
        rate=samples / reading.seconds,
        in_flight=stream.prefetch + 1,
        window="prefetch",
        ready=reading.ready / reading.batches if reading.batches else None,
    )


def stage_from(name: str, spent: StageTime, samples: int, *, pool: str, others: float) -> Stage:
    """A stage by its clock.

    Args:
        name: Of the stage.
        spent: Its clock.
        samples: Samples that it was spent on.
        pool: Whose threads spent it.
        others: Share of the waiting for cores that other programs caused.
    """
    return Stage(
        name,
        max(0.0, spent.cpu) / samples,
        spent.blocked / samples,
        pool,
        queued=max(0.0, spent.queued) * others / samples,
    )


def busy_part(name: str, spent: StageTime, samples: int, others: float) -> Stage:
    """A stage of the calling thread, its waiting left out: that is for other stages, which have clocks of their own."""
    return Stage(name, max(0.0, spent.cpu) / samples, 0.0, CONSUMER, queued=max(0.0, spent.queued) * others / samples)


def calling_clocks(times: StageTimes, before: Mapping[str, StageTime]) -> dict[str, StageTime]:
    """What was added to some clocks since a snapshot."""
    return {name: spent - before.get(name, StageTime()) for name, spent in times.snapshot().items()}


def _mended(stages: Mapping[str, StageTime]) -> dict[str, StageTime]:
    """The clocks with the CPU time of reading packets where their wall time is.

    Packets are too many to read a thread's CPU clock for each, so :func:`dali_pipes.stages.timed` moves their wall time
    alone. A stage that has more CPU time than wall time has spent the difference in there.
    """
    mended, moved_cpu, moved_queued = {}, 0.0, 0.0
    for name, spent in stages.items():
        over = spent.cpu + spent.queued - spent.wall
        if name in _ON_GRAPH or name == "read" or over <= 0:
            mended[name] = spent
            continue
        share = spent.cpu / (spent.cpu + spent.queued)
        moved_cpu, moved_queued = moved_cpu + over * share, moved_queued + over * (1 - share)
        cpu, queued = spent.cpu - over * share, spent.queued - over * (1 - share)
        mended[name] = StageTime(spent.wall, cpu, queued, spent.count)
    if "read" in mended:
        read = mended["read"]
        mended["read"] = StageTime(read.wall, read.cpu + moved_cpu, read.queued + moved_queued, read.count)
    return mended


def _helped(stage: Stage, helpers: float, unheld: float) -> Stage:
    return Stage(stage.name, stage.cpu, max(0.0, stage.blocked - unheld), stage.pool, helpers, stage.queued)


def _between(old: Mapping[K, ThreadTime], new: Mapping[K, ThreadTime], *, born: bool) -> dict[K, ThreadTime]:
    """What each thread has done since; threads begun meanwhile too if `born`."""
    nothing = ThreadTime("", 0.0, 0.0)
    found = {}
    for key, now in new.items():
        if key in old or born:
            before = old.get(key, nothing)
            found[key] = ThreadTime(now.name, max(0.0, now.cpu - before.cpu), max(0.0, now.queued - before.queued))
    return found


def _bytes_read(processes: list[int]) -> int | None:
    """Bytes that processes have read so far, from wherever; None if none of them tells."""
    total, told = 0, False
    for process in processes:
        try:
            with open(f"/proc/{process}/io") as file:
                total += int(next(line for line in file if line.startswith("rchar")).split()[1])
                told = True
        except (OSError, ValueError, StopIteration):
            continue
    return total if told else None
