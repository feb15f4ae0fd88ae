"""Giving memory that is free back to the system, now and then.

Frames are allocated by the threads that decode them and freed by the one that runs the graph, decoders come and go, and
the C library's heaps fray: over 24,000 clips a process that needs 710 MB came to hold 950. glibc puts that right when
asked to, in about 10 ms.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from time import monotonic

# Seconds from one time to the next.
INTERVAL = 10.0


class HeapTrimmer:
    """Trims the C library's heaps at most every so often; elsewhere than with glibc it does nothing.

    Args:
        interval: Seconds between two trims.
    """

    def __init__(self, interval: float = INTERVAL) -> None:
        self.interval = interval
        self._next = monotonic() + interval
        self._trim = None
        with suppress(OSError, AttributeError):
            self._trim = ctypes.CDLL(None).malloc_trim

    def __call__(self) -> bool:
        """Trims where it is time to; whether it did. Other threads go on meanwhile."""
        if self._trim is None or monotonic() < self._next:
            return False
        self._trim(0)
        self._next = monotonic() + self.interval
        return True
