"""Decoding with torchcodec, where it is installed: for small videos with short GOPs.

On such videos little is decoded and a loop in Python costs as much as the decoding, above all with several threads that
take turns at the interpreter. torchcodec makes all frames in one call that leaves the interpreter to the others. On raw
videos PyAV is quicker: it skips what nothing refers to and scales while it converts.

Nothing rests on torchcodec's own numbering of frames: the file must be the one that was indexed, as far as its size and
time of change tell, and each frame that comes back must have the time stamp that the index has for it. Otherwise, and
whatever goes wrong, the answer is None, and PyAV decodes the video or says what is wrong with it.
"""

from __future__ import annotations

import ctypes
import os
import threading
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dali_pipes.corpus.storage.address import local_path
from dali_pipes.errors import first_line

if TYPE_CHECKING:
    from dali_pipes.corpus import Video

# Set to 0: do not use it though it is installed.
SWITCH = "DALI_PIPES_TORCHCODEC"
# Mean frames from one key frame to the next, and pixels of a picture, up to which it is the quicker one.
LONGEST_GOP = 16
MOST_PIXELS = 256 * 256
_FORMATS = ("yuv420p", "yuvj420p")


@cache
def missing() -> str:
    """Why torchcodec is not used at all; empty where it is."""
    if os.environ.get(SWITCH, "1") == "0":
        return f"{SWITCH}=0"
    try:
        import torchcodec.decoders  # noqa: F401
    # It looks for FFmpeg's libraries when it is imported, and what it raises where there are none has changed before.
    except Exception as error:
        return first_line(error)
    return ""


def takes(video: Video) -> bool:
    """Whether torchcodec decodes a video, unscaled, exactly and faster than PyAV."""
    return (
        video.constant
        and video.sliceable
        and video.uniform
        and video.numbering == "pts"
        and video.offset < 0
        and not video.rotation
        and video.pixel_format in _FORMATS
        and video.width * video.height <= MOST_PIXELS
        and video.frames <= LONGEST_GOP * len(video.key_frames)
        and not missing()
    )


def decode(video: Video, frames: NDArray[np.int64]) -> NDArray[np.uint8] | None:
    """Decodes some frames of a video that :func:`takes` accepts, in its own size.

    Args:
        video: Row of the corpus.
        frames: Sorted unique frame numbers.

    Returns:
        ``(N, H, W, 3)`` uint8 RGB, as stored; None where it could not be done.
    """
    path = local_path(video.uri)
    if path is None or not _unchanged(path, video):
        return None
    try:
        batch = _decoder(path).get_frames_at(frames.tolist())
    except (RuntimeError, ValueError, IndexError):
        return None
    expected = (video.start + frames * video.step) * (video.time_base_num / video.time_base_den)
    pictures: NDArray[np.uint8] = batch.data.numpy()
    right = np.abs(batch.pts_seconds.numpy() - expected).max(initial=0.0) < _half_frame(video)
    return pictures if right and pictures.shape[1:3] == (video.height, video.width) else None


def _decoder(path: str) -> Any:
    from torchcodec.decoders import VideoDecoder

    _keep_to_one_thread()
    # Without the scan that "exact" makes at every opening: the index knows what the scan would find.
    return VideoDecoder(path, dimension_order="NHWC", num_ffmpeg_threads=1, device="cpu", seek_mode="approximate")


_thread = threading.local()


def _keep_to_one_thread() -> None:
    """Makes torch work alone for the thread that calls, and for no other.

    torchcodec copies every frame with torch, which would share even these small copies with an OpenMP thread for each
    caller; those then spin on the cores that decode. `torch.set_num_threads` would also slow down training.
    """
    if getattr(_thread, "alone", False):
        return
    import torch

    torch.get_num_threads()  # torch sets this up at a thread's first call, which must not come later than ours
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).omp_set_num_threads(1)
    _thread.alone = True


def _unchanged(path: str, video: Video) -> bool:
    try:
        status = os.stat(path)
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (video.bytes, video.mtime_ns)


def _half_frame(video: Video) -> float:
    return 0.5 * video.step * video.time_base_num / video.time_base_den
