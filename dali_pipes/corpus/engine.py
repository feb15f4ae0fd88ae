"""The same job for many items, in processes that may hang, crash or eat memory without harming the rest.

Decoders crash on hostile files now and then, so each worker is a process of its own that is handed one item at a time.
The operating system ends it when an item takes too long, and a new one takes its place.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from dali_pipes.corpus import child
from dali_pipes.errors import DataError

ENGINES = ("local", "ray")
# Enough for a dozen 8K pictures; a header that asks for more is a lie or no training material.
MEMORY = 4 << 30


@dataclass(frozen=True)
class Lost:
    """In place of a result: the item took its worker down.

    Attributes:
        reason: How, in words.
    """

    reason: str


def default_workers() -> int:
    """One for each core that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_all(
    job: Callable[..., Any],
    items: Sequence[Any],
    *,
    options: dict[str, Any] | None = None,
    workers: int | None = None,
    timeout: float = 60.0,
    memory: int = MEMORY,
    engine: str = "local",
    address: str | None = None,
) -> Generator[tuple[int, Any], None, None]:
    """Call `job(item, **options)` for every item in worker processes.

    Args:
        job: A function that can be imported by name.
        items: What to call it with; must pickle.
        options: Keyword arguments, the same for all.
        workers: Processes; None for one per core.
        timeout: Seconds for one item, after which its worker is killed.
        memory: Bytes that a worker may allocate beyond what it starts with.
        engine: `local` for processes of this machine, `ray` for those of a Ray cluster (docs/cluster.md).
        address: Of the cluster, HOST:PORT; None for `RAY_ADDRESS` where it is set, else for Ray on this machine alone.

    Yields:
        (place in `items`, result or `Lost`), as they are done.

    Raises:
        DataError: There is no such engine, or no cluster.
        RuntimeError: Workers cannot be started.
    """
    if engine not in ENGINES:
        raise DataError(f"engine {engine!r}: expected {' or '.join(ENGINES)}")
    if engine == "ray":
        from dali_pipes.corpus.engine_ray import run_on_ray

        yield from run_on_ray(
            job, items, options=options or {}, workers=workers, timeout=timeout, memory=memory, address=address
        )
        return
    if address is not None:
        raise DataError(f"--address {address}: only --engine ray has one")
    todo = iter(enumerate(items))
    crew: dict[Connection, _Worker] = {}
    try:
        for _ in range(min(workers or default_workers(), len(items))):
            worker = _Worker(job, options or {}, timeout, memory)
            crew[worker.connection] = worker
        while crew:
            for ready in wait(list(crew)):
                worker = crew[ready]  # type: ignore[index]
                try:
                    result = worker.connection.recv()
                except (EOFError, OSError):
                    del crew[worker.connection]
                    reason = worker.ended(timeout)
                    if worker.item is None:
                        raise RuntimeError(f"a worker process did not start: {reason}") from None
                    yield worker.item, Lost(reason)
                    worker = _Worker(job, options or {}, timeout, memory)
                    crew[worker.connection] = worker
                    continue
                done, worker.item = worker.item, None
                # The next item first: the worker need not wait for what the caller does with this result.
                following = next(todo, None)
                if following is None:
                    del crew[worker.connection]
                    worker.stop()
                else:
                    worker.give(*following)
                if done is not None:
                    yield done, result
    finally:
        for worker in crew.values():
            worker.stop(kill=True)


class _Worker:
    """One worker process; it says once that it is ready, then answers each item with a result."""

    def __init__(self, job: Callable[..., Any], options: dict[str, Any], timeout: float, memory: int) -> None:
        self.item: int | None = None
        self.process, self.connection = child.start(__name__)
        self.connection.send((job, options, timeout, memory))

    def give(self, item: int, value: Any) -> None:
        self.item = item
        # A worker that died in between is found at the other end: its connection reads as closed.
        with contextlib.suppress(BrokenPipeError):
            self.connection.send(value)

    def ended(self, timeout: float) -> str:
        self.connection.close()
        code = self.process.wait()
        if code == -signal.SIGALRM:
            return f"took longer than {timeout:g} s"
        return child.ending(code)

    def stop(self, kill: bool = False) -> None:
        self.connection.close()
        if kill:
            self.process.kill()
        self.process.wait()


def serve(handle: int) -> None:
    """What a worker process does: answer items until the connection closes.

    Args:
        handle: File descriptor of the connection.
    """
    connection = Connection(handle)
    try:
        job, options, timeout, memory = connection.recv()
        _limit_memory(memory)
        # The alarm kills even a decoder that never returns to Python, and a worker whose parent is gone.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        connection.send(None)
        while True:
            item = connection.recv()
            signal.setitimer(signal.ITIMER_REAL, timeout)
            result = job(item, **options)
            signal.setitimer(signal.ITIMER_REAL, 0)
            connection.send(result)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _limit_memory(memory: int) -> None:
    try:
        import resource
        from pathlib import Path

        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + memory, resource.getrlimit(resource.RLIMIT_AS)[1]))
    except (ImportError, OSError, ValueError):
        # No such limit on this system: the time limit still holds.
        return
