"""Which packets must be decoded to get some frames: pure numpy, made before any I/O.

Decoding can begin only at a key frame. For frames 52 and 57 of a video with key frames 0, 48 and 96 it begins at 48 and
ends at 57; frames needed again after a later key frame make a second range, and what lies between is never read::

    frame    0 ......... 48 .. 52 ... 57 ........ 96 .. 101 .. 104
    needed                     x      x                 x      x
    ranges               [48 ......... 57]        [96 ......... 104]
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Range:
    """One run of frames to decode.

    Attributes:
        key: Number of the key frame that decoding begins with.
        timestamp: Time stamp, in ticks, to seek to for that key frame.
        wanted: Sorted frame numbers wanted of this run; the last one is where decoding may stop.
    """

    key: int
    timestamp: int
    wanted: NDArray[np.int64]


def plan(frames: NDArray[np.int64], key_frames: NDArray[np.int64], key_timestamps: NDArray[np.int64]) -> list[Range]:
    """Splits sorted unique frame numbers into runs that each begin at a key frame.

    A new run begins where seeking to the governing key frame of the next wanted frame passes over something; where
    that key frame comes straight after the last wanted one, going on decodes the same without a seek.

    Args:
        frames: Sorted unique frame numbers wanted.
        key_frames: Sorted numbers of the frames where decoding can begin.
        key_timestamps: Where to seek to for each of those.
    """
    if not len(frames):
        return []
    governing = np.maximum(np.searchsorted(key_frames, frames, side="right") - 1, 0)
    keys = key_frames[governing]
    apart = (governing[1:] > governing[:-1]) & (keys[1:] > frames[:-1] + 1)
    begins = np.flatnonzero(np.concatenate([[True], apart]))
    ends = np.append(begins[1:], len(frames))
    return [
        Range(int(keys[a]), int(key_timestamps[governing[a]]), frames[a:b]) for a, b in zip(begins, ends, strict=True)
    ]
