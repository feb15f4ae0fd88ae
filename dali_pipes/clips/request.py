"""What is asked for and what comes back: View, ClipRequest, ClipBatch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

    from dali_pipes.augment import Draws


class Key(NamedTuple):
    """Names the place of a request in a run. All of its randomness is a function of these integers.

    Attributes:
        seed: The run's seed.
        epoch: Pass over the corpus.
        position: Place within the epoch, counted over all ranks.
        role: 0 for the sampler's own requests; other users of the same position (retrieved positives) take others.
    """

    seed: int = 0
    epoch: int = 0
    position: int = 0
    role: int = 0


@dataclass(frozen=True)
class View:
    """One clip of a video.

    Attributes:
        speed: Playback speed; 2.0 shows the video twice as fast.
        start: Number of the first frame of the clip's window.
        draws: The augmentation to apply, or None to let the stream draw it from the request's key. A stream without
            colour changes or blur refuses draws that have them.
        reverse: Whether the window is shown backwards, from its last frame to ``start``.
        jitter: Largest move of a frame within the window, in distances between two frames of the clip, 0 to 0.5. The
            moves are drawn from the request's key.
    """

    speed: float
    start: int
    draws: Draws | None = None
    reverse: bool = False
    jitter: float = 0.0


@dataclass(frozen=True)
class ClipRequest:
    """One or more clips of one video, decoded together.

    Attributes:
        video: Row number in the corpus.
        views: The clips wanted, in the order in which they come back.
        key: Where the request stands in the run; give every request its own, or their augmentations are the same.
    """

    video: int
    views: tuple[View, ...]
    key: Key = field(default_factory=Key)


@dataclass(frozen=True)
class ClipBatch:
    """A batch of clips.

    Attributes:
        clips: ``(B, V, C, T, H, W)``, on the stream's device.
        speeds: ``(B, V)`` float32 playback speeds, on the same device.
        videos: ``(B,)`` int64 row numbers of the videos delivered, on the same device. Where a video could not be
            decoded this is its replacement's number.
        starts: ``(B, V)`` int64 first frame numbers of the windows, on the CPU.
        requests: The requests delivered, replacements in place of what they replaced.
        epoch: Pass over the corpus this batch belongs to; -1 where requests did not come from a SpeedLoader.
        positions: ``(B,)`` int64 places within the epoch, on the CPU.
        speed_labels: ``(B, V)`` int64 on the stream's device: the place of each view's speed among the loader's
            distinct speeds, slowest first. None without ``SpeedLoader(label_speeds=True)``.
    """

    clips: torch.Tensor
    speeds: torch.Tensor
    videos: torch.Tensor
    starts: torch.Tensor
    requests: tuple[ClipRequest, ...]
    epoch: int
    positions: torch.Tensor
    speed_labels: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.requests)
