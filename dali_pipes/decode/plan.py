"""Which packets must be decoded to get some frames: made before any I/O.

Decoding can begin only at a key frame. For frames 52 and 57 of a video with key frames 0, 48 and 96 it begins at 48 and
ends at 57; frames needed again after a later key frame make a second range, and what lies between is never read::

    frame    0 ......... 48 .. 52 ... 57 ........ 96 .. 101 .. 104
    needed                     x      x                 x      x
    ranges               [48 ......... 57]        [96 ......... 104]
"""

from __future__ import annotations

import sys
from bisect import bisect_right
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
    # Plain numbers: numpy takes ten times as long for so few of them where pictures fill the processor's caches.
    if not len(frames):
        return []
    numbers = frames.tolist()
    at = max(bisect_right(key_frames, numbers[0]) - 1, 0)
    begins = [(0, at)]  # where ranges begin, and at which key frame
    following = _key_frame(key_frames, at + 1)
    for place in range(1, len(numbers)):
        if numbers[place] >= following:
            at = bisect_right(key_frames, numbers[place], lo=at) - 1
            following = _key_frame(key_frames, at + 1)
            if key_frames[at] > numbers[place - 1] + 1:
                begins.append((place, at))
    ends = [place for place, _ in begins[1:]] + [len(numbers)]
    return [
        Range(int(key_frames[at]), int(key_timestamps[at]), frames[begin:end])
        for (begin, at), end in zip(begins, ends, strict=True)
    ]


def _key_frame(key_frames: NDArray[np.int64], at: int) -> int:
    return int(key_frames[at]) if at < len(key_frames) else sys.maxsize
