"""Opening a video of the corpus, with FFmpeg's errors turned into one that names the video."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import av

from dali_pipes.corpus.probe import open_video
from dali_pipes.decode.limits import check_unchanged
from dali_pipes.errors import VideoError

if TYPE_CHECKING:
    from av.container import InputContainer

    from dali_pipes.corpus import Video


@contextmanager
def reading(video: Video, purpose: str) -> Iterator[InputContainer]:
    """An open container; what goes wrong inside comes out as VideoError.

    Args:
        video: Row of the corpus.
        purpose: What cannot be done where FFmpeg fails, for the message: "decoded" or "read".
    """
    try:
        with open_video(video.uri, video.offset, video.bytes, video.mtime_ns) as container:
            check_unchanged(video, container)
            yield container
    except av.FFmpegError as error:
        raise VideoError(video.uri, f"cannot be {purpose}: {error.strerror or error}") from error
    except (IndexError, OSError, UnicodeError) as error:
        raise VideoError(video.uri, f"cannot be read: {error}") from error
