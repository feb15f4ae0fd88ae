"""An independent check of what a corpus row promises, written as a careful reader of the video would read it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from dali_pipes.corpus import Video


def picture(frame: av.VideoFrame) -> np.ndarray:
    """A frame's pixels in its own format where numpy has one for it, else as RGB."""
    try:
        return frame.to_ndarray()
    except (ValueError, AssertionError):  # formats without an array form, odd widths
        return frame.to_ndarray(format="rgb24")


def full_decode(path: Path | str) -> list[av.VideoFrame]:
    """All frames of a sequential decode, up to an error where there is one."""
    frames: list[av.VideoFrame] = []
    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            # What FFmpeg puts in place of damaged parts depends on the number of threads; the product decodes with one.
            container.streams.video[0].codec_context.thread_count = 1
            frames.extend(container.decode(video=0))
    except (av.FFmpegError, IndexError):
        pass
    return frames


def _number(video: Video, frame: av.VideoFrame) -> int:
    assert frame.pts is not None
    if video.timestamps is not None:
        return int(np.searchsorted(video.timestamps, frame.pts))
    return round((frame.pts - video.start) / video.step)


def read_from(video: Video, key: int) -> Iterator[tuple[int, av.VideoFrame]]:
    """Numbered frames from a key frame on, as the columns of the row say they are to be read."""
    with av.open(video.uri, metadata_errors="ignore") as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        if key > 0:
            container.seek(int(video.key_timestamps[key]), stream=stream, backward=True, any_frame=False)
        counted = int(video.key_frames[key])
        for frame in container.decode(stream):
            if video.numbering == "count":
                yield counted, frame
                counted += 1
            elif _number(video, frame) >= video.key_frames[key]:
                yield _number(video, frame), frame


def wrong_key_frames(video: Video, frames: list[av.VideoFrame]) -> list[str]:
    """Where decoding from a key frame differs from the sequential decode, up to 3 frames past the next key frame."""
    wrong = []
    ends = [*video.key_frames[1:].tolist(), video.frames]
    for key, end in enumerate(ends):
        stop = min(end + 3, video.frames)
        expected = int(video.key_frames[key])
        problem = "nothing comes out"
        for number, frame in read_from(video, key):
            if number != expected or not np.array_equal(picture(frame), picture(frames[number])):
                problem = f"frame {expected} is wrong (came as {number})"
                break
            expected += 1
            problem = "" if expected >= stop else f"ends before frame {expected}"
            if not problem:
                break
        if problem:
            wrong.append(f"{video.uri}: key frame {video.key_frames[key]}: {problem}")
    return wrong
