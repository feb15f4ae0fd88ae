"""Scores of videos by a classifier of clips: evenly spaced clips, one or more crops of each, and their mean."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ascnet.errors import UserError
from ascnet.precision import Precision
from dali_pipes import Augment, ClipRequest, ClipStream, Corpus, Draws, Progress, View, even_requests

CROPS = (1, 3, 10)
"""Crops of a clip: the centred square; squares at both ends and in the middle of the longer side; five smaller squares
(corners and centre, 7/8 of the shorter side) as they are and mirrored."""

PLAIN = Augment(flip=0, jitter=0, grayscale=0)


@dataclass(frozen=True)
class Views:
    """What of a video the classifier sees, and how its answers are joined.

    Attributes:
        frames: Frames per clip.
        size: Edge of a clip, pixels.
        clips: Evenly spaced clips a video; one is centred.
        crops: 1, 3 or 10, see `CROPS`.
        average: Mean of the logits, or of their softmax.
        speed: Playback speed.
        fps: Reference frame rate of 1x; None: each video's own.
        short: What a video shorter than a clip does.
        mean: Subtracted per channel, RGB in [0, 1].
        std: Divided by per channel.
    """

    frames: int = 16
    size: int = 112
    clips: int = 10
    crops: int = 1
    average: Literal["logits", "softmax"] = "logits"
    speed: float = 1.0
    fps: float | None = None
    short: Literal["loop", "pad"] = "loop"
    mean: tuple[float, float, float] = PLAIN.mean
    std: tuple[float, float, float] = PLAIN.std

    def __post_init__(self) -> None:
        if self.crops not in CROPS:
            raise UserError(f"crops={self.crops} must be 1, 3 or 10")
        if self.average not in ("logits", "softmax"):
            raise UserError(f"average={self.average!r} must be logits or softmax")

    def card(self) -> str:
        """In words, for a protocol card."""
        rate = "" if self.fps is None else f", 1x = {self.fps:g} frames/s"
        crops = {1: "centre crop", 3: "3 crops", 10: "10 crops"}[self.crops]
        clips = "1 centred clip" if self.clips == 1 else f"{self.clips} evenly spaced clips"
        return (
            f"{clips} a video, {crops}, {self.frames} frames at {self.speed:g}x{rate}, {self.size} x {self.size}, "
            f"short videos {self.short}; mean of {self.average}"
        )


@dataclass(frozen=True)
class VideoScores:
    """Mean scores of videos.

    Attributes:
        rows: (N,) row numbers, ascending.
        scores: (N, C) float64.
        failed: Why, by row number, for the videos that could not be decoded.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float64]
    failed: dict[int, str]


def crops_of(count: int, width: int, height: int) -> list[Draws]:
    """The regions that so many crops of an upright picture show, and whether they are mirrored."""
    short, size = min(width, height), (width, height)
    if count in (1, 3):
        places = [0.5] if count == 1 else [0.0, 0.5, 1.0]
        starts = [(int(place * (width - short)), int(place * (height - short))) for place in places]
        return [_region(corner, short, size) for corner in starts]
    side = short * 7 / 8
    right, bottom = width - side, height - side
    corners = [(0.0, 0.0), (right, 0.0), (0.0, bottom), (right, bottom), (right / 2, bottom / 2)]
    return [_region(corner, side, size)._replace(flip=flip) for flip in (False, True) for corner in corners]


def _region(corner: Sequence[float], side: float, size: tuple[int, int]) -> Draws:
    (left, top), (width, height) = corner, size
    return Draws(left / width, top / height, (left + side) / width, (top + side) / height)


def view_requests(corpus: Corpus, row: int, views: Views, together: int) -> list[ClipRequest]:
    """All views of one video, those of `together` clips in a request, in the order of the clips."""
    even = even_requests(corpus, row, frames=views.frames, clips=views.clips, speed=views.speed, fps=views.fps)
    if views.crops == 1:
        # Without draws the stream takes the centred square, which it can cut out without scaling.
        shown = list(even.views)
    else:
        video = corpus[row]
        regions = crops_of(views.crops, video.shown_width, video.shown_height)
        shown = [View(view.speed, view.start, region) for view in even.views for region in regions]
    step = together * views.crops
    return [ClipRequest(row, tuple(shown[at : at + step])) for at in range(0, len(shown), step)]


def score_videos(
    classifier: nn.Module,
    corpus: Corpus,
    rows: Sequence[int] | NDArray[np.int64],
    views: Views,
    *,
    precision: Precision,
    batch_size: int = 40,
    threads: int | None = None,
    prepare: Callable[[torch.Tensor], torch.Tensor] | None = None,
    stop: Callable[[], bool] = lambda: False,
    what: str = "test",
    progress: bool = True,
) -> VideoScores | None:
    """Mean scores of each video.

    Args:
        classifier: Clips (B, 3, T, H, W) to logits (B, C). Put in evaluation mode for the while.
        corpus: The videos.
        rows: Which of them.
        views: What is shown, and how answers are joined.
        precision: Number format and device.
        batch_size: Largest number of clips in a forward pass; it changes speed and memory alone.
        threads: Decoding threads.
        prepare: Last change to clips before the classifier; None: to the number format.
        stop: Asked between batches.
        what: Said beside the progress.
        progress: Whether to show it.

    Returns:
        The scores, without videos that cannot be decoded; None where `stop` said so.
    """
    wanted = sorted({int(row) for row in rows})
    together = max(
        [n for n in range(1, views.clips + 1) if views.clips % n == 0 and n * views.crops <= batch_size] + [1]
    )
    requests = [request for row in wanted for request in view_requests(corpus, row, views, together)]
    each = max(1, batch_size // (together * views.crops))
    batches = [requests[at : at + each] for at in range(0, len(requests), each)]
    left = dict.fromkeys(wanted, views.clips // together)
    sums: dict[int, torch.Tensor] = {}
    failed: dict[int, str] = {}
    if not wanted:
        return VideoScores(np.empty(0, np.int64), np.empty((0, 0)), {})
    prepare = prepare or (lambda clips: clips.to(precision.compute))
    half = precision.device.type == "cuda" and precision.name in ("bf16", "fp16")
    stream = ClipStream(
        corpus,
        frames=views.frames,
        size=views.size,
        batch_size=min(each, len(requests)),
        views=together * views.crops,
        device=str(precision.device),
        # Ten crops are cut from pictures a little larger than they are, the others from the whole.
        augment=PLAIN if views.crops == 10 else None,
        dtype="float16" if half else "float32",
        short=views.short,
        fps=views.fps,
        threads=threads,
        max_bad=1.0,
    )
    with stream, Progress(what, len(wanted), enabled=progress) as meter, evaluating(classifier):
        for asked, batch in zip(batches, stream.map(batches), strict=True):
            if stop():
                return None
            found = _answers(
                classifier, normalised(batch.clips, views.mean, views.std), views, precision, prepare, batch_size
            )
            for place, (request, delivered) in enumerate(zip(asked, batch.requests, strict=True)):
                row = request.video
                # The stream puts another video in the place of one that it cannot decode.
                if row != delivered.video:
                    failed[row] = stream.stats.bad.get(corpus[row].uri, "cannot be decoded")
                sums[row] = sums[row] + found[place] if row in sums else found[place]
                left[row] -= 1
                meter.advance(left[row] == 0)
    kept = [row for row in wanted if row not in failed]
    if not kept:
        # Another process may have some; the caller knows.
        return VideoScores(np.empty(0, np.int64), np.empty((0, 0)), failed)
    scores = torch.stack([sums[row] for row in kept]) / (views.clips * views.crops)
    return VideoScores(np.array(kept, np.int64), scores.numpy(), failed)


def _answers(
    classifier: nn.Module,
    clips: torch.Tensor,
    views: Views,
    precision: Precision,
    prepare: Callable[[torch.Tensor], torch.Tensor],
    batch_size: int,
) -> torch.Tensor:
    """(B, V, 3, T, H, W) -> the sum over the views, (B, C) float64 on the CPU."""
    parts = []
    for part in clips.flatten(0, 1).split(batch_size):
        with precision.autocast():
            parts.append(classifier(prepare(part)).double())
    answers = torch.cat(parts)
    if views.average == "softmax":
        answers = answers.softmax(dim=1)
    return answers.view(*clips.shape[:2], -1).sum(dim=1).cpu()


def normalised(clips: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Clips (..., 3, T, H, W) that the stream normalised by ImageNet's colours, by others instead."""
    if (tuple(mean), tuple(std)) == (PLAIN.mean, PLAIN.std):
        return clips
    wanted, by, given, scale = (
        torch.tensor(values, device=clips.device).view(3, 1, 1, 1) for values in (mean, std, PLAIN.mean, PLAIN.std)
    )
    return (clips.float() * scale + given - wanted) / by


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[Any]:
    """Evaluation mode and no gradients within the block; the mode is as before behind it."""
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train(training)
