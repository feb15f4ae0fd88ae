"""Which frames a view of a request shows: speed, reverse and jitter together. A function of the request alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dali_pipes.clips.random import Purpose, generator
from dali_pipes.clips.request import ClipRequest
from dali_pipes.clips.speed import MOST_JITTER, Short, Timing, frame_indices


def clip_frames(
    timing: Timing, request: ClipRequest, view: int, frames: int, *, fps: float | None = None, short: Short = "loop"
) -> NDArray[np.int64]:
    """Frame numbers of one view of a request, in the order in which they are shown.

    Args:
        timing: The video's clock.
        request: The request; the moves of jitter are drawn from its key.
        view: Number of the view.
        frames: Frames in the clip, T.
        fps: Reference rate for 1x in frames per second; None: the video's own rate.
        short: What happens past the last frame; see :func:`frame_indices`.

    Returns:
        ``(T,)`` int64 frame numbers.

    Raises:
        ValueError: If the view is out of range, or does not fit and ``short`` is ``skip``.
    """
    wanted = request.views[view]
    offsets = None
    if wanted.jitter:
        if not 0 <= wanted.jitter <= MOST_JITTER:
            raise ValueError(f"jitter={wanted.jitter} must lie in 0..{MOST_JITTER}")
        draws = generator(request.key, Purpose.JITTER, view=view)
        offsets = draws.uniform(-wanted.jitter, wanted.jitter, frames)
    numbers = frame_indices(timing, wanted.start, frames, wanted.speed, fps=fps, short=short, offsets=offsets)
    return numbers[::-1] if wanted.reverse else numbers
