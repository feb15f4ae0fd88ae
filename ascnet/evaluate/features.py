"""Features of whole videos: the mean over evenly spaced clips of the encoder's average-pooled last feature map.

Source: the retrieval protocol of RSPNet (AAAI 2021), 10 clips a video, centre crop.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ascnet.errors import UserError
from ascnet.evaluate.protocols import IMAGENET, Protocol
from ascnet.precision import Precision
from dali_pipes import ClipStream, Corpus, Progress, even_requests


@dataclass(frozen=True)
class Features:
    """Features of some of a corpus's videos.

    Attributes:
        rows: ``(N,)`` int64 row numbers in the corpus, in the order asked for.
        vectors: ``(N, D)`` float32.
        failed: Why, by row number, for the videos that could not be decoded; they are not among `rows`.
    """

    rows: NDArray[np.int64]
    vectors: NDArray[np.float32]
    failed: dict[int, str] = field(default_factory=dict)

    def of(self, rows: Sequence[int] | NDArray[np.int64]) -> Features:
        """Those of the given rows that are there, in the given order."""
        place = {int(row): at for at, row in enumerate(self.rows)}
        at = [place[int(row)] for row in rows if int(row) in place]
        wanted = {int(row) for row in rows}
        failed = {row: why for row, why in self.failed.items() if row in wanted}
        return Features(self.rows[at], self.vectors[at], failed)


def extract(
    encoder: nn.Module,
    corpus: Corpus,
    rows: Sequence[int] | NDArray[np.int64],
    protocol: Protocol,
    *,
    batch_size: int = 40,
    device: str | torch.device = "cpu",
    decoder: Literal["auto", "dali", "host"] = "auto",
    threads: int | None = None,
    progress: bool = True,
) -> Features:
    """Describe each video by one vector.

    Args:
        encoder: Has ``features(x)``: clips ``(B, 3, T, H, W)`` to the last feature map ``(B, D, t, h, w)``. It is
            moved to the device and put in evaluation mode for the while.
        corpus: The videos.
        rows: Row numbers.
        protocol: Clips, frames, size, speed and number format.
        batch_size: Clips in a forward pass; it changes speed and memory, not the result.
        device: Where the encoder runs and the clips are made.
        decoder: As for `dali_pipes.ClipStream`.
        threads: As for `dali_pipes.ClipStream`.
        progress: Whether to show progress.

    Returns:
        The features, without the videos that cannot be decoded; they are listed in `failed` with the reason.

    Raises:
        UserError: If `rows` is empty or no video could be decoded; if the device lacks the number format.
    """
    wanted = [int(row) for row in rows]
    if not wanted:
        raise UserError("no videos to describe")
    device = torch.device(device)
    precision = Precision(protocol.precision, device)
    per_batch = min(max(1, batch_size // protocol.clips), len(wanted))
    requests = [
        even_requests(corpus, row, frames=protocol.frames, clips=protocol.clips, speed=protocol.speed, fps=protocol.fps)
        for row in wanted
    ]
    batches = [requests[at : at + per_batch] for at in range(0, len(requests), per_batch)]
    kept: list[int] = []
    vectors: list[torch.Tensor] = []
    failed: dict[int, str] = {}
    stream = ClipStream(
        corpus,
        frames=protocol.frames,
        size=protocol.size,
        batch_size=per_batch,
        views=protocol.clips,
        device=str(device),
        dtype="float16" if device.type == "cuda" and precision.compute != torch.float32 else "float32",
        short=protocol.short,
        fps=protocol.fps,
        decoder=decoder,
        threads=threads,
    )
    encoder = encoder.to(device)
    with stream, Progress("features", len(wanted), enabled=progress) as meter, _evaluating(encoder):
        for asked, batch in zip(batches, stream.map(batches), strict=True):
            found = _describe(encoder, _normalised(batch.clips, protocol), batch_size, precision)
            for at, (request, delivered) in enumerate(zip(asked, batch.requests, strict=True)):
                # The stream puts another video in the place of one that it cannot decode: right for training, but a
                # feature under the wrong name here.
                if request.video == delivered.video:
                    kept.append(request.video)
                    vectors.append(found[at])
                else:
                    failed[request.video] = stream.stats.bad.get(corpus[request.video].uri, "cannot be decoded")
            meter.advance(len(asked))
    if not kept:
        raise UserError(f"none of the {len(wanted)} videos could be decoded; the first: {corpus[wanted[0]].uri}")
    return Features(np.array(kept, np.int64), torch.stack(vectors).numpy(), failed)


def _normalised(clips: torch.Tensor, protocol: Protocol) -> torch.Tensor:
    """Clips (..., C, T, H, W) that the stream normalised by ImageNet's colours, by those of the protocol instead."""
    if (protocol.mean, protocol.std) == IMAGENET:
        return clips
    mean, std, given, by = (
        torch.tensor(values, device=clips.device).view(3, 1, 1, 1)
        for values in (protocol.mean, protocol.std, *IMAGENET)
    )
    return (clips.float() * by + given - mean) / std


def _describe(encoder: nn.Module, clips: torch.Tensor, batch_size: int, precision: Precision) -> torch.Tensor:
    """(B, V, C, T, H, W) -> (B, D) float32 on the CPU."""
    videos, views = clips.shape[:2]
    flat = clips.flatten(0, 1)
    pooled = []
    for part in flat.split(batch_size):
        with precision.autocast():
            feature_map = encoder.features(part.to(precision.compute))  # type: ignore[operator]
        pooled.append(feature_map.float().mean(dim=(2, 3, 4)))
    return torch.cat(pooled).view(videos, views, -1).mean(dim=1).cpu()


@contextlib.contextmanager
def _evaluating(encoder: nn.Module) -> Iterator[None]:
    training = encoder.training
    encoder.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        encoder.train(training)
