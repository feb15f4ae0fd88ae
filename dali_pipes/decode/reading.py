"""Opening a video of the corpus, with FFmpeg's errors turned into one that names the video."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import av
from av.stream import Discard

from dali_pipes.corpus.probe import open_video
from dali_pipes.decode.limits import check_unchanged
from dali_pipes.errors import VideoError
from dali_pipes.stages import stage, timed

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

    from dali_pipes.corpus import Video


# Their headers say all that packets need: codec, size, time stamps in order of presentation.
_TELLING = (".mp4", ".m4v", ".mov", ".mkv", ".webm")
# Of these codecs a packet of such a container is a frame, which FFmpeg need not look into to tell.
_WHOLE = ("h264", "hevc", "vp9")


@contextmanager
def reading(video: Video, purpose: str, *, undecoded: bool = False) -> Iterator[InputContainer]:
    """An open container; what goes wrong inside comes out as VideoError.

    Args:
        video: Row of the corpus.
        purpose: What it is opened for, for the message where FFmpeg fails: "decoded" or "read".
        undecoded: Rely on the header where the container has one that tells enough; see `open_video`.
    """
    undecoded = undecoded and video.uri.lower().endswith(_TELLING)
    try:
        with stage("read"):
            place = (video.uri, video.offset, video.bytes, video.mtime_ns)
            whole = video.sliceable and video.codec in _WHOLE
            opened = open_video(*place, undecoded=undecoded, unparsed=whole)
        with opened as container:
            check_unchanged(video, container)
            # The sound would be read as well, packet by packet, only to be thrown away.
            for stream in container.streams:
                if stream.type != "video":
                    stream.discard = Discard.all
            yield container
    except av.FFmpegError as error:
        raise VideoError(video.uri, f"cannot be {purpose}: {error.strerror or error}") from error
    except (IndexError, OSError, UnicodeError) as error:
        raise VideoError(video.uri, f"cannot be read: {error}") from error


def packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
    """The packets from where the container stands, the time that reading them takes set apart from decoding."""
    return timed(container.demux(stream), "read")
