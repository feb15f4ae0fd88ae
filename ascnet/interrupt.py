"""Ctrl-C and SIGTERM as a flag that the training loop looks at between steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupt:
    """Set by the first signal; the second one raises KeyboardInterrupt at once.

    Attributes:
        name: Name of the signal that came, such as "SIGTERM"; "" while none has.
    """

    def __init__(self) -> None:
        self.name = ""

    def __bool__(self) -> bool:
        return bool(self.name)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.name:
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name


@contextmanager
def catch_interrupts() -> Iterator[Interrupt]:
    """Turns SIGINT and SIGTERM into a flag within the block; elsewhere than in the main thread it stays unset."""
    interrupt = Interrupt()
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
