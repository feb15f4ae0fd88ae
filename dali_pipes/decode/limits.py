"""Is the file still the one that was indexed? Asked at each opening, before anything is decoded.

A file may be overwritten while a run reads it, and what it says now may ask for any amount of memory. The index has
looked at everything in a process of its own with limits; here a decoder shares the process with training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dali_pipes.corpus.probe import MAX_SIDE
from dali_pipes.errors import VideoError

if TYPE_CHECKING:
    from av.container import InputContainer

    from dali_pipes.corpus import Video

# How much larger than its row pictures may become: a change of size that the packets did not tell is four times a side
# in adaptive streaming, and decoders round sizes up.
_GROWTH = 16
_ROUNDING = 256


def check_unchanged(video: Video, container: InputContainer) -> None:
    """Compare what a container says with the video's row, and bound what its decoder may allocate.

    Args:
        video: Row of the corpus.
        container: Just opened.

    Raises:
        VideoError: If codec or picture size are others than those of the row.
    """
    streams = container.streams.video
    if not streams:
        raise VideoError(video.uri, "the file has changed since it was indexed: it has no video stream")
    context = streams[0].codec_context
    if context is None:
        raise VideoError(video.uri, "the file has changed since it was indexed: there is no decoder for its codec")
    codec = context.codec.canonical_name
    if codec != video.codec:
        raise VideoError(video.uri, f"the file has changed since it was indexed: {codec} instead of {video.codec}")
    width, height = context.width, context.height
    fits = (width, height) == (video.width, video.height) if video.uniform else max(width, height) <= MAX_SIDE
    if not fits:
        raise VideoError(
            video.uri,
            f"the file has changed since it was indexed: {width} x {height} instead of {video.width} x {video.height}",
        )
    # The packets may ask for more than the header; FFmpeg refuses that before it takes the memory.
    largest = _GROWTH * (width + _ROUNDING) * (height + _ROUNDING) if video.uniform else MAX_SIDE * MAX_SIDE
    context.options = {"max_pixels": str(min(largest, MAX_SIDE * MAX_SIDE))}
