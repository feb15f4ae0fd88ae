"""An object that lives in a process of its own: what crashes or hangs there is an error here, with its reason."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import tempfile
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

# Seconds for a process to end by itself once it is told to.
PATIENCE = 2.0
# A path from the root up to its last part; results are committed, and say nothing of the machine's folders.
FOLDERS = re.compile(r"(?<![\w./])/(?:[^\s/'\"]+/)*(?=[^\s/'\"])")


class Failure(Exception):
    """No answer came; the message is the reason in one line."""


class Raised(Failure):
    """The object raised an error; its process stays."""


class Lost(Failure):
    """The process crashed, ended or hung; it is gone."""


class Isolated:
    """Makes an object in a spawned process, which stays up, and calls its methods there.

    Only the process that failed is lost. Starting does not wait, so several processes start side by side; the first
    call waits for the start as well. Ctrl-C is left to this process, which ends the others.

    Args:
        make: Makes the object; it and its arguments are pickled.
        arguments: What it is called with.
    """

    def __init__(self, make: Callable[..., Any], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        # What a library says before it aborts goes here: often the only reason it gives.
        descriptor, name = tempfile.mkstemp(prefix="bench-", suffix=".log")
        os.close(descriptor)
        self._said = Path(name)
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, name, make, arguments), daemon=True)
        self._process.start()
        theirs.close()

    def call(self, method: str, *arguments: Any, timeout: float) -> Any:
        """Call a method of the object.

        Args:
            method: Its name.
            arguments: What it is called with; pickled, as is what it returns.
            timeout: Seconds to wait for the answer.

        Raises:
            Raised: If it raised, or could not be made.
            Lost: If the process crashed, ended or did not answer in time.
        """
        try:
            self._pipe.send((method, arguments))
            ready = wait([self._pipe, self._process.sentinel], timeout)
            if not ready:
                self._end()
                raise Lost(f"no answer within {timeout:g} s")
            # An answer may lie in the pipe of a process that has ended since.
            if self._pipe.poll():
                fine, answer = self._pipe.recv()
                if fine:
                    return answer
                raise Raised(answer)
        except (OSError, EOFError):  # the other end is closed
            pass
        raise Lost(self._death())

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(PATIENCE)
        self._end()
        self._said.unlink(missing_ok=True)

    def _end(self) -> None:
        for stop in (self._process.terminate, self._process.kill):
            if self._process.is_alive():
                stop()
                self._process.join(PATIENCE)

    def _death(self) -> str:
        """Why the process is gone."""
        self._process.join(PATIENCE)
        code = self._process.exitcode
        if code is not None and code < 0:
            reason = f"killed by {signal.Signals(-code).name}"
        else:
            reason = f"ended with exit code {code}"
        lines = self._said.read_text(errors="replace").strip().splitlines()
        return f"{reason}, after it said: {without_folders(lines[-1])}" if lines else reason


def without_folders(text: str) -> str:
    """The text with only the last part of each absolute path in it."""
    return FOLDERS.sub("", text)


def in_one_line(error: BaseException) -> str:
    """Kind and last line of an error, without folders."""
    lines = str(error).strip().splitlines()
    return without_folders(f"{type(error).__name__}: {lines[-1].strip()}" if lines else type(error).__name__)


def _serve(pipe: Connection, log: str, make: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Answer calls until the other end is closed; in the spawned process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    failure = ""
    thing: Any = None
    try:
        thing = make(*arguments)
    except Exception as error:
        failure = in_one_line(error)
    while True:
        try:
            method, given = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((False, failure) if failure else (True, getattr(thing, method)(*given)))
        except Exception as error:
            pipe.send((False, in_one_line(error)))
