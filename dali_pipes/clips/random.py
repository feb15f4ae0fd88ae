"""Random numbers as a pure function of where they are used.

A counter-based generator (Philox, Salmon et al., SC 2011) is keyed by the run's seed and the purpose, and its counter
by epoch, position, role, view and attempt. Nothing is carried from one draw to the next, so any sample of any run can
be made again alone, and neither threads nor ranks nor a resumed run can change what is drawn.
"""

from __future__ import annotations

import threading
from enum import IntEnum

import numpy as np

from dali_pipes.clips.request import Key


class Purpose(IntEnum):
    """What numbers are drawn for; each purpose has a stream of its own."""

    ORDER = 0
    START = 1
    AUGMENT = 2
    REPLACE = 3
    SPEED = 4
    REVERSE = 5
    JITTER = 6


def generator(key: Key, purpose: Purpose, *, view: int = 0, attempt: int = 0) -> np.random.Generator:
    """A generator for one purpose at one place.

    Raises:
        ValueError: If a part of the key is negative.
    """
    if min(key) < 0:
        raise ValueError(f"{key} has a negative part; seed, epoch, position and role count from 0")
    place = key.role << 32 | view << 16 | attempt
    # The first counter word is left to the generator: it is what advances while drawing.
    return np.random.Generator(np.random.Philox(counter=[0, key.position, key.epoch, place], key=[key.seed, purpose]))


def passing_generator(key: Key, purpose: Purpose, *, attempt: int = 0) -> np.random.Generator:
    """The same numbers as `generator` of view 0, from this thread's one generator: making one costs several draws.

    It is good until the next call in this thread, so draw from it at once and do not keep it.

    Raises:
        ValueError: If a part of the key is negative.
    """
    seed, epoch, position, role = key
    # Negative parts, and numbers that numpy rounds on their way through a list (2**63 and more), are left to it.
    if not 0 <= seed | epoch | position < 2**63 or not 0 <= role < 2**31:
        return generator(key, purpose, attempt=attempt)
    return _MINE.at((0, position, epoch, role << 32 | attempt), (seed, purpose))


class _Reused(threading.local):
    """A generator for each thread, moved to the place wanted. Its state as made is that of no draw yet."""

    def __init__(self) -> None:
        self.bits = np.random.Philox(0)
        self.generator = np.random.Generator(self.bits)
        self.state = self.bits.state
        self.counter, self.key = self.state["state"]["counter"], self.state["state"]["key"]

    def at(self, counter: tuple[int, int, int, int], key: tuple[int, int]) -> np.random.Generator:
        self.counter[:] = counter
        self.key[:] = key
        self.bits.state = self.state
        return self.generator


_MINE = _Reused()
