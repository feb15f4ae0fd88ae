"""Decoding on the host: exact frames as RGB arrays, whoever decodes them.

Used for what DALI cannot decode on the device at hand, and by everything that wants a few frames of one video. PyAV
takes every video and is the quickest (:mod:`dali_pipes.decode.host_av`), in a process of its own at best
(:mod:`dali_pipes.decode.processes`). Threads that decode small copies with short GOPs leave them to torchcodec where it
is installed (:mod:`dali_pipes.decode.host_torchcodec`). All give the same pictures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dali_pipes.decode import host_av, host_torchcodec, processes
from dali_pipes.decode.picture import square_in, working_size

if TYPE_CHECKING:
    from dali_pipes.corpus import Video


def decode_frames(
    video: Video,
    frames: NDArray[np.int64],
    *,
    short_side: int | None = None,
    square: bool = False,
    apart: bool = False,
) -> NDArray[np.uint8]:
    """Decodes some frames of one video.

    Args:
        video: Row of the corpus.
        frames: Sorted unique frame numbers.
        short_side: Scale so that the shorter side has this many pixels, aspect kept; None or a size larger than the
            video's: as it is.
        square: Give the largest centred square alone.
        apart: In another process, so that threads which decode at the same time do not wait for each other; what is not
            on this machine is decoded in this one all the same.

    Returns:
        ``(N, H, W, 3)`` uint8 RGB, upright; H and W are equal with ``square``.

    Raises:
        VideoError: If the file cannot be opened or a frame cannot be decoded.
    """
    width, height = working_size(video.width, video.height, short_side)
    # Turned pictures are cut below: a centre between pixels must be rounded in the picture as it is shown.
    cut = square and not video.rotation
    out = None
    if apart and processes.takes(video):
        out = processes.decode(video, frames, width, height, square=cut)
    elif (width, height) == (video.width, video.height) and host_torchcodec.takes(video):
        out = host_torchcodec.decode(video, frames)
    if out is None:
        out = host_av.decode(video, frames, width, height, square=cut)
    if video.rotation:
        out = np.rot90(out, -video.rotation // 90, axes=(1, 2))
    if square:
        left, top, side = square_in(out.shape[2], out.shape[1])
        out = out[:, top : top + side, left : left + side]
    return out
