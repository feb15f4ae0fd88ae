"""Random numbers as a pure function of where they are used.

A counter-based generator (Philox, Salmon et al., SC 2011) is keyed by the run's seed and the purpose, and its counter
by epoch, position, role, view and attempt. Nothing is carried from one draw to the next, so any sample of any run can
be made again alone, and neither threads nor ranks nor a resumed run can change what is drawn.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from dali_pipes.clips.request import Key


class Purpose(IntEnum):
    """What numbers are drawn for; each purpose has a stream of its own."""

    ORDER = 0
    START = 1
    AUGMENT = 2
    REPLACE = 3


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
