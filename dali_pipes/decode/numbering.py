"""Which frame is this? Numbers packets and decoded frames of a video.

Two ways, chosen by the probe and kept in the manifest (column ``numbering``):

``pts``
    The container's presentation time stamps are those of the frames. A frame's number follows from its time stamp, so
    it does not matter where decoding began.
``count``
    The container has no usable presentation time stamps (MPEG-4 in AVI with two B-frames in a row, for example, where
    only decoding times are stored). Frames are counted from the key frame that decoding began with.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import floor
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from dali_pipes.corpus import Video


def numberer(video: Video) -> Callable[[int | None], int]:
    """A function from a presentation time stamp to the number of the frame that has it, -1 where none has.

    Made once for each decode: it is called for every packet and every frame.
    """
    if video.timestamps is not None:
        return partial(_exact, video.timestamps)
    frames, start, step = video.frames, video.start, video.step
    if frames <= 1:
        return lambda pts: 0 if pts == start and frames else -1

    def number(pts: int | None) -> int:
        if pts is None:
            return -1
        place = floor((pts - start) / step + 0.5)
        return place if 0 <= place < frames else -1

    return number


def _exact(stamps: NDArray[np.int64], pts: int | None) -> int:
    if pts is None:
        return -1
    at = int(np.searchsorted(stamps, pts))
    return at if at < len(stamps) and stamps[at] == pts else -1
