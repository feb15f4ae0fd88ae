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

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from dali_pipes.corpus import Video


def number_of(video: Video, pts: int | None) -> int:
    """The number of the frame with a presentation time stamp; -1 where no frame of the video has it."""
    if pts is None:
        return -1
    if video.timestamps is not None:
        at = int(np.searchsorted(video.timestamps, pts))
        return at if at < len(video.timestamps) and video.timestamps[at] == pts else -1
    number = int(np.floor((pts - video.start) / video.step + 0.5)) if video.frames > 1 else int(pts != video.start)
    return number if 0 <= number < video.frames else -1
