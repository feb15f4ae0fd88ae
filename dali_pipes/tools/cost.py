"""What random clips cost: how many frames must be decoded for those that are wanted.

Decoding can begin only at key frames, so what lies before a clip's first frame back to the last key frame (the lead-in)
is decoded and thrown away, and so are the frames that a clip faster than 1x leaves out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from dali_pipes.clips.speed import Timing, check_speed, frame_indices, last_start, stride
from dali_pipes.corpus import Video
from dali_pipes.decode.plan import plan
from dali_pipes.errors import DataError

# Of a longer video that many starts are drawn; of a shorter one each is looked at.
STARTS = 512


@dataclass(frozen=True)
class Cost:
    """Frames decoded for one clip at one speed, on average over its starts.

    Attributes:
        speed: Playback speed.
        starts: Starts that the average is over.
        wanted: Different frames that a clip shows.
        decoded: Frames decoded for it.
        lead_in: Of these, frames before the first one wanted of each run.
        most: Frames decoded for the most expensive start.
    """

    speed: float
    starts: int
    wanted: float
    decoded: float
    lead_in: float
    most: int


def clip_cost(video: Video, *, frames: int = 16, speed: float = 1.0, starts: int = STARTS, seed: int = 0) -> Cost:
    """Average cost of a clip with a random start.

    Args:
        video: Row of a corpus.
        frames: Frames per clip.
        speed: Playback speed.
        starts: How many starts to draw at most.
        seed: Of the draws.

    Raises:
        DataError: The speed is outside 0.25..16, or there are no frames.
    """
    if frames < 1:
        raise DataError(f"frames={frames} must be at least 1")
    speed = check_speed(speed)
    timing = Timing(video.frames, video.rate, video.timestamps)
    room = last_start(timing, frames, stride(speed, video.rate, None)) + 1
    firsts = np.arange(room) if room <= starts else np.random.default_rng(seed).integers(room, size=starts)
    counts = np.zeros((len(firsts), 3), np.int64)
    for i, first in enumerate(firsts):
        wanted = np.unique(frame_indices(timing, int(first), frames, speed))
        runs = plan(wanted, video.key_frames, video.key_timestamps)
        counts[i, 0] = len(wanted)
        counts[i, 1] = sum(int(run.wanted[-1]) - run.key + 1 for run in runs)
        counts[i, 2] = sum(int(run.wanted[0]) - run.key for run in runs)
    shown, decoded, lead_in = counts.mean(axis=0).tolist()
    return Cost(speed, len(firsts), shown, decoded, lead_in, int(counts[:, 1].max()))


def mean_cost(videos: Iterable[Video], *, frames: int, speeds: Sequence[float], starts: int) -> Cost:
    """The same over videos and speeds, each counted alike; its `speed` is the mean speed."""
    costs = [clip_cost(video, frames=frames, speed=speed, starts=starts) for video in videos for speed in speeds]
    return Cost(
        speed=float(np.mean(speeds)),
        starts=sum(cost.starts for cost in costs),
        wanted=float(np.mean([cost.wanted for cost in costs])),
        decoded=float(np.mean([cost.decoded for cost in costs])),
        lead_in=float(np.mean([cost.lead_in for cost in costs])),
        most=max(cost.most for cost in costs),
    )
