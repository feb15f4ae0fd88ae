"""The same job for many items on the machines of a Ray cluster.

A Ray task takes a few items and runs them as one machine would: in a guarded process of its own, so that a hostile file
never takes a Ray worker down. What Ray adds is where tasks run, and that those of a lost machine run elsewhere.
"""

from __future__ import annotations

import logging
import math
import os
import pickle
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from types import FrameType
from typing import Any

from dali_pipes.corpus.engine import Lost, default_workers, run_all
from dali_pipes.errors import DataError

# How long one task should take: starting its process must not count, and little may be lost with a machine.
TASK_SECONDS = 4.0
MOST_ITEMS = 256
# How often Ray itself runs a task again whose worker or machine died.
RETRIES = 3
# Results pass through the object store only when they are large; they are fetched at once.
_OBJECT_STORE = 200 << 20
_ANSWER_SECONDS = 10.0


def run_on_ray(
    job: Callable[..., Any],
    items: Sequence[Any],
    *,
    options: dict[str, Any],
    workers: int | None,
    timeout: float,
    memory: int,
    address: str | None,
) -> Generator[tuple[int, Any], None, None]:
    """Call `job(item, **options)` for every item on a Ray cluster; the arguments are those of `run_all`.

    A job may run more than once for an item whose machine died, so what it writes must appear whole or not at all. Its
    result is handed out once.

    Yields:
        (place in `items`, result or `Lost`), as they are done.

    Raises:
        DataError: Ray is not installed, no cluster answers, or a machine of it cannot run the job.
    """
    if not items:
        return
    with _connected(address, workers) as ray:
        flight = _Flight(ray, pickle.dumps((job, options)), items, timeout, memory, workers)
        try:
            while flight.fill():
                yield from flight.landed()
        finally:
            flight.cancel()


class _Flight:
    """The tasks under way, and the items still to be given to one."""

    def __init__(
        self, ray: Any, what: bytes, items: Sequence[Any], timeout: float, memory: int, workers: int | None
    ) -> None:
        self._ray, self._what, self._items = ray, what, items
        self._limits = (timeout, memory)
        self._workers = workers
        self._next = 0
        # Chunks that came down with their worker more often than Ray tries are split up, to find the one at fault.
        self._alone: deque[int] = deque()
        self._under_way: dict[Any, list[int]] = {}
        self._seconds, self._done = 0.0, 0
        self._task = ray.remote(num_cpus=1, max_retries=RETRIES)(_work)

    def fill(self) -> bool:
        """Submit tasks as far as the cluster can use them; False where all is done."""
        cores = max(int(self._ray.cluster_resources().get("CPU", 1)), 1)
        # Twice as many tasks as cores: none waits for this program, and a cluster that grows by need sees the need.
        most = self._workers or 2 * cores
        while len(self._under_way) < most and (chunk := self._chunk(most)):
            values = [self._items[place] for place in chunk]
            self._under_way[self._task.remote(self._what, values, *self._limits)] = chunk
        return bool(self._under_way)

    def _chunk(self, most: int) -> list[int]:
        if self._alone:
            return [self._alone.popleft()]
        size = 1
        if self._done:
            size = min(int(TASK_SECONDS * self._done / max(self._seconds, 1e-6)), MOST_ITEMS)
        left = len(self._items) - self._next
        # Towards the end smaller ones, so that all machines end at about the same time.
        size = min(max(size, 1), math.ceil(left / most))
        self._next += size
        return list(range(self._next - size, self._next))

    def landed(self) -> Iterator[tuple[int, Any]]:
        """Results of the tasks that are done; waits for one at least."""
        from ray.exceptions import RayError, RayTaskError

        ready, _ = self._ray.wait(list(self._under_way), num_returns=1)
        for task in ready:
            chunk = self._under_way.pop(task)
            try:
                seconds, results = self._ray.get(task)
            except RayTaskError as error:
                raise DataError(f"a machine of the Ray cluster cannot run the job: {_words(error)}") from error
            except RayError as error:
                if len(chunk) == 1:
                    yield chunk[0], Lost(f"took its Ray worker down ({type(error).__name__})")
                else:
                    self._alone.extend(chunk)
                continue
            self._seconds, self._done = self._seconds + seconds, self._done + len(chunk)
            yield from zip(chunk, results, strict=True)

    def cancel(self) -> None:
        """End what is still under way."""
        if not self._under_way:
            return
        tasks = list(self._under_way)
        for task in tasks:
            # Without force: the interrupt lets a task end its guarded process first.
            self._ray.cancel(task, force=False)
        self._ray.wait(tasks, num_returns=len(tasks), timeout=5.0)


def _work(what: bytes, values: list[Any], timeout: float, memory: int) -> tuple[float, list[Any]]:
    """What a Ray task does: seconds taken, and the results in the order of the values."""
    begun = time.monotonic()
    job, options = pickle.loads(what)
    results: dict[int, Any] = {}
    with closing(run_all(job, values, options=options, workers=1, timeout=timeout, memory=memory)) as done:
        results.update(done)
    return time.monotonic() - begun, [results[place] for place in range(len(values))]


@contextmanager
def _connected(address: str | None, workers: int | None) -> Iterator[Any]:
    """Ray, connected to a cluster; a connection that is there already is used and left."""
    # Before the import, which reads them: nothing is reported to anybody, and nothing said about GPUs.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise DataError("--engine ray needs Ray: pip install 'dali-pipes[ray]'") from error
    if ray.is_initialized():
        yield ray
        return
    where = address or os.environ.get("RAY_ADDRESS") or "local"
    settings: dict[str, Any] = {}
    if where == "local":
        cores = workers or default_workers()
        settings = {"num_cpus": cores, "include_dashboard": False, "object_store_memory": _OBJECT_STORE}
    else:
        _reach(where)
    try:
        try:
            # Stopped half-way, its start leaves processes behind, and may crash this one at its end.
            with _held_back(signal.SIGINT, signal.SIGTERM):
                ray.init(where, log_to_driver=False, logging_level=logging.CRITICAL, **settings)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise DataError(f"--address {where}: no Ray cluster answers there: {_words(error)}") from error
        yield ray
    finally:
        ray.shutdown()


def _reach(where: str) -> None:
    """Raise DataError where nothing listens: Ray itself would try for minutes."""
    host, _, port = where.rpartition("://")[2].rpartition(":")
    if not host or not port.isdigit():
        return  # such as "auto"
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"--address {where}: no Ray cluster answers there: {reason}") from error


@contextmanager
def _held_back(*numbers: signal.Signals) -> Iterator[None]:
    """Signals take effect at the end of the block; a second one of a kind at once.

    Afterwards the handlers are what they were: Ray puts in one of its own for SIGTERM, which would end the program
    without closing anything.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # None is a handler that was not put in by Python, and cannot be put back.
    before = {number: handler for number in numbers if (handler := signal.getsignal(number)) is not None}
    came: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        came.append(number)
        signal.signal(number, before[signal.Signals(number)])

    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, hold)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for late in came:
        signal.raise_signal(late)


def _words(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
