"""What ends a run before its last step: Ctrl-C and SIGTERM as a flag, and a limit of time."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

REASONS = ("", "SIGINT", "SIGTERM", "time limit")
"""What may have ended a run, by the number that the processes agree on; the largest counts."""

STATUS = {"SIGINT": 130, "SIGTERM": 143}
"""Exit status of a run that a signal ended; all others end with 0."""

ECHO = 5.0
"""Seconds within which `torchrun` may hand on a signal that this process has had from the terminal already."""


class Interrupt:
    """Set by the first signal; the second one raises KeyboardInterrupt at once.

    Attributes:
        name: Name of the signal that came, such as "SIGTERM"; "" while none has.
    """

    def __init__(self, echo: float = 0.0) -> None:
        """
        Args:
            echo: Seconds for which further signals are taken for the first one once more.
        """
        self.name = ""
        self._echo, self._came = echo, 0.0

    def __bool__(self) -> bool:
        return bool(self.name)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self.name:
            self.name, self._came = signal.Signals(number).name, time.monotonic()
        elif time.monotonic() - self._came >= self._echo:
            raise KeyboardInterrupt


@contextmanager
def catch_interrupts() -> Iterator[Interrupt]:
    """Turns SIGINT and SIGTERM into a flag within the block; elsewhere than in the main thread it stays unset."""
    interrupt = Interrupt(ECHO if "TORCHELASTIC_RUN_ID" in os.environ else 0.0)
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, interrupt._handle) for number in numbers}
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class TimeLimit:
    """Says when a run has to stop, so that its last step and its checkpoint still come in time."""

    def __init__(self, minutes: float | None, started: float) -> None:
        """
        Args:
            minutes: The limit; None: there is none.
            started: When the time began, `time.monotonic()`.
        """
        self._end = None if minutes is None else started + 60 * minutes
        # Till a checkpoint has been written, nobody knows how long that takes.
        self._saving = 0.0 if minutes is None else min(30.0, 0.05 * 60 * minutes)
        self._step = 0.0

    def saw_step(self, seconds: float) -> None:
        """Takes note of how long a step took; the longest of late ones counts."""
        self._step = max(seconds, 0.9 * self._step)

    def saw_checkpoint(self, seconds: float) -> None:
        """Takes note of how long the writing of a checkpoint took."""
        self._saving = 2 * seconds

    def reached(self) -> bool:
        """Whether another step and a checkpoint might end too late."""
        return self._end is not None and time.monotonic() + 2 * self._step + self._saving >= self._end
