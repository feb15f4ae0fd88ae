"""Is each video of a corpus what its row says, and do frames taken anywhere equal those of a sequential decode?"""

from __future__ import annotations

import io
import zlib
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from dali_pipes.corpus import Video
from dali_pipes.corpus.storage import StorageOptions, configure_storage, stat_source
from dali_pipes.corpus.storage.address import scheme, split_tar
from dali_pipes.decode.choice import choose
from dali_pipes.decode.host import decode_frames
from dali_pipes.decode.picture import Picture
from dali_pipes.decode.reading import reading
from dali_pipes.decode.slice import cut
from dali_pipes.errors import VideoError

CLIP = 8


def verify_video(video: Video, *, deep: bool, storage: StorageOptions) -> str:
    """Compare a video with its row and with a sequential decode of it.

    Args:
        video: Row of the corpus.
        deep: Every frame, instead of a clip at the start, at the end, and at a place between.
        storage: How remote files are reached.

    Returns:
        `right`, `right with limit: ...` or `error: ...`; an error that the index has not recorded begins `error: now`.
    """
    configure_storage(storage)
    av.logging.set_level(None)
    if video.error:
        # That a server was lost says nothing about the video.
        return f"error: {'now ' if video.error.startswith('server lost') else ''}{video.error}"
    try:
        problem = _changed(video) or _compare(video, deep)
    except VideoError as error:
        problem = error.reason
    if problem:
        return f"error: now {problem}"
    return f"right with limit: {video.notes}" if video.notes else "right"


def _changed(video: Video) -> str:
    if scheme(video.uri) == "tar":
        # The shard's headers need not be read again for each of its members.
        shard = split_tar(video.uri)[1]
        return "" if stat_source(shard).mtime_ns == video.mtime_ns else "in another shard (time of change differs)"
    state = stat_source(video.uri)
    same = (state.bytes, state.mtime_ns) == (video.bytes, video.mtime_ns)
    return "" if same else "another file (size or time of change differ)"


def _compare(video: Video, deep: bool) -> str:
    truth, failure = _sequential(video)
    if len(truth) != video.frames:
        return f"a sequential decode gives {len(truth)} frames, the row says {video.frames}; {failure}".rstrip("; ")
    # Only what goes to DALI somewhere is ever cut out.
    sliced = any(choose(video, device).decoder == "dali" for device in ("cpu", "gpu"))
    rng = np.random.default_rng(zlib.crc32(video.uri.rpartition("/")[2].encode()))
    starts = [0, max(video.frames - CLIP, 0), int(rng.integers(max(video.frames - CLIP, 1)))]
    if deep:
        starts = [*range(0, video.frames, CLIP)][::-1]  # backwards, so that each clip is sought
    for start in starts:
        wanted = np.arange(start, min(start + CLIP, video.frames))
        found = [_checksum(picture) for picture in decode_frames(video, wanted)]
        wrong = [i for i, value in zip(wanted, found, strict=True) if value != truth[i]]
        if wrong:
            return f"frame {wrong[0]} differs from a sequential decode"
        if sliced and _sliced(video, wanted) != [truth[i] for i in wanted]:
            return f"packets cut out for frames {wanted[0]}..{wanted[-1]} decode to other pictures"
    return ""


def _sequential(video: Video) -> tuple[list[int], str]:
    """Checksums of all frames, and why there are no more."""
    found: list[int] = []
    picture = Picture(video.width, video.height)
    try:
        with reading(video, "decoded") as container:
            container.streams.video[0].codec_context.thread_count = 1
            for frame in container.decode(video=0):
                found.append(_checksum(_upright(video, frame, picture)))
    except VideoError as error:
        return found, error.reason
    return found, ""


def _sliced(video: Video, wanted: NDArray[np.int64]) -> list[int]:
    piece = cut(video, wanted)
    picture = Picture(video.width, video.height)
    places = set(piece.frames.tolist())
    with av.open(io.BytesIO(piece.data.tobytes()), "r") as container:
        container.streams.video[0].codec_context.thread_count = 1
        frames = enumerate(container.decode(video=0))
        return [_checksum(_upright(video, frame, picture)) for i, frame in frames if i in places]


def _upright(video: Video, frame: Any, picture: Picture) -> NDArray[np.uint8]:
    out = np.empty((1, video.height, video.width, 3), np.uint8)
    picture(frame, out, 0)
    return np.rot90(out, -video.rotation // 90, axes=(1, 2))[0] if video.rotation else out[0]


def _checksum(picture: NDArray[np.uint8]) -> int:
    return zlib.crc32(np.ascontiguousarray(picture).data)
