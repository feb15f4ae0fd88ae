"""Threads that work through a queue and can be stopped at once.

`concurrent.futures.ThreadPoolExecutor` works through everything that is queued before the interpreter may end, whether
anybody wants the results or not; with several batches of videos queued, a program that is done would go on decoding.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


class Workers:
    """A few daemon threads and their queue.

    Args:
        threads: How many.
        name: Of the threads, for debuggers.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._queue: queue.SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]] | None]
        self._queue = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, name=f"{name}-{i}", daemon=True) for i in range(threads)]
        for thread in self._threads:
            thread.start()

    def submit(self, task: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Queues a call; its result or exception comes with the future."""
        future: Future[Any] = Future()
        self._queue.put((future, task, arguments))
        return future

    def close(self) -> None:
        """Drops what is queued, lets what has begun come to its end and joins the threads."""
        self._stopping.set()
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            # The garbage collector may close from one of these very threads.
            if thread is not threading.current_thread():
                thread.join()

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            future, task, arguments = job
            if self._stopping.is_set():
                future.cancel()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(task(*arguments))
            except BaseException as error:  # whatever it is belongs to whoever waits for the future
                future.set_exception(error)
