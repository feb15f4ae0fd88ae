"""Videos in, one vector a clip or a video out, while the next ones are being decoded.

One stream serves the whole job. Several batches are on the way in it, and what the encoder makes of a batch is fetched
from the device only after the next one has been sent there, so that neither waits for the other.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ascnet.evaluate.clips import requests_of
from ascnet.evaluate.protocols import IMAGENET, Protocol
from ascnet.precision import Precision
from dali_pipes import ClipBatch, ClipRequest, ClipStream, Corpus, VideoError

# Bytes of clips that may be on the way to the encoder.
_ON_THE_WAY = 2**30


@dataclass(frozen=True)
class Described:
    """One video, described or not.

    Attributes:
        row: Row number in the corpus.
        starts: ``(V,)`` int64 first frames of its clips.
        vectors: ``(V, D)`` float32, one a clip; none where it could not be decoded.
        error: Why it could not; "" where it could.
    """

    row: int
    starts: NDArray[np.int64]
    vectors: NDArray[np.float32]
    error: str = ""

    def mean(self) -> NDArray[np.float32]:
        """The video's own vector, ``(D,)``."""
        return np.asarray(self.vectors.mean(axis=0, dtype=np.float32))


def open_stream(
    corpus: Corpus,
    protocol: Protocol,
    *,
    device: torch.device,
    batch_size: int = 40,
    threads: int | None = None,
    decoder: Literal["auto", "dali", "host"] = "auto",
) -> ClipStream:
    """The stream that `describe` reads from.

    Args:
        corpus: The videos.
        protocol: Clips, frames, size and speed.
        device: Where the clips are made.
        batch_size: Clips in a batch, at most; the clips of a video stay together all the same.
        threads: As for `dali_pipes.ClipStream`.
        decoder: As for `dali_pipes.ClipStream`.
    """
    per_batch = max(1, batch_size // protocol.clips)
    compute = Precision(protocol.precision, device).compute
    return ClipStream(
        corpus,
        frames=protocol.frames,
        size=protocol.size,
        batch_size=per_batch,
        views=protocol.clips,
        device=str(device),
        dtype="float16" if device.type == "cuda" and compute != torch.float32 else "float32",
        short=protocol.short,
        fps=protocol.fps,
        decoder=decoder,
        threads=threads,
        prefetch=_prefetch(protocol, per_batch, threads),
        # What cannot be decoded is listed at the end, however much it is; nothing is trained on replacements here.
        max_bad=1.0,
    )


def describe(
    encoder: nn.Module, stream: ClipStream, rows: Iterable[int], protocol: Protocol, *, batch_size: int = 40
) -> Iterator[Described]:
    """Describe videos, each once, nearly in the order asked for.

    Args:
        encoder: Has ``features(x)``: clips ``(B, 3, T, H, W)`` to the last feature map ``(B, D, t, h, w)``; in
            evaluation mode, on the stream's device.
        stream: From `open_stream`.
        rows: Row numbers; taken as they are needed.
        protocol: As for the stream.
        batch_size: Clips in a forward pass.

    Yields:
        A result for every row. A video that cannot be decoded is one of them.
    """
    precision = Precision(protocol.precision, stream.device)
    sent: tuple[Sequence[ClipRequest], Sequence[ClipRequest], torch.Tensor] | None = None
    for asked, batch in _clips(stream, _batches(stream.corpus, rows, protocol, stream.batch_size)):
        if isinstance(batch, VideoError):
            yield _failed(stream, asked[0], batch.reason)
            continue
        with torch.inference_mode():
            found = _features(encoder, _normalised(batch.clips, protocol), batch_size, precision)
        if sent is not None:
            yield from _results(stream, *sent)
        sent = (asked, batch.requests, found)
    if sent is not None:
        yield from _results(stream, *sent)


def _batches(
    corpus: Corpus, rows: Iterable[int], protocol: Protocol, per_batch: int
) -> Iterator[Sequence[ClipRequest]]:
    waiting: list[int] = []
    for row in rows:
        waiting.append(int(row))
        if len(waiting) == per_batch:
            yield requests_of(corpus, waiting, protocol, "query")
            waiting = []
    if waiting:
        yield requests_of(corpus, waiting, protocol, "query")


def _clips(
    stream: ClipStream, batches: Iterator[Sequence[ClipRequest]]
) -> Iterator[tuple[Sequence[ClipRequest], ClipBatch | VideoError]]:
    """Batches with their clips. One that the stream gave up, because too many in a row were bad, comes again singly."""
    again: deque[Sequence[ClipRequest]] = deque()
    waiting: deque[Sequence[ClipRequest]] = deque()
    while True:
        while len(waiting) <= stream.prefetch:
            requests = again.popleft() if again else next(batches, None)
            if requests is None:
                break
            stream.submit(requests)
            waiting.append(requests)
        if not waiting:
            return
        asked = waiting.popleft()
        try:
            yield asked, stream.get()
        except VideoError as error:
            if len(asked) > 1:
                again.extend([request] for request in asked)
            else:
                yield asked, error


def _results(
    stream: ClipStream, asked: Sequence[ClipRequest], delivered: Sequence[ClipRequest], found: torch.Tensor
) -> Iterator[Described]:
    # Waits for the device; the batch after this one is on its way there already.
    vectors = found.cpu().numpy().reshape(len(asked), stream.views, -1)
    for request, got, own in zip(asked, delivered, vectors, strict=True):
        # The stream puts another video in the place of one that it cannot decode: right for training, but a feature
        # under the wrong name here.
        if request.video != got.video:
            yield _failed(stream, request, "cannot be decoded")
        elif not np.isfinite(own).all():
            yield _failed(stream, request, "its feature is not a finite number")
        else:
            yield Described(request.video, np.array([view.start for view in request.views], np.int64), own)


def _failed(stream: ClipStream, request: ClipRequest, reason: str) -> Described:
    reason = stream.stats.bad.get(stream.corpus[request.video].uri, reason)
    return Described(request.video, np.empty(0, np.int64), np.empty((0, 0), np.float32), reason)


def _features(encoder: nn.Module, clips: torch.Tensor, batch_size: int, precision: Precision) -> torch.Tensor:
    """(B, V, C, T, H, W) -> (B * V, D) float32 on the device."""
    pooled = []
    for part in clips.flatten(0, 1).split(batch_size):
        with precision.autocast():
            feature_map = encoder.features(part.to(precision.compute))  # type: ignore[operator]
        pooled.append(feature_map.float().mean(dim=(2, 3, 4)))
    return torch.cat(pooled)


def _normalised(clips: torch.Tensor, protocol: Protocol) -> torch.Tensor:
    """Clips (..., C, T, H, W) that the stream normalised by ImageNet's colours, by those of the protocol instead."""
    if (protocol.mean, protocol.std) == IMAGENET:
        return clips
    mean, std, given, by = (
        torch.tensor(values, device=clips.device).view(3, 1, 1, 1)
        for values in (protocol.mean, protocol.std, *IMAGENET)
    )
    return (clips.float() * by + given - mean) / std


def _prefetch(protocol: Protocol, per_batch: int, threads: int | None) -> int:
    """Batches to keep on the way: enough that every decoding thread has a video, within bounds of memory."""
    size = per_batch * protocol.clips * protocol.frames * 3 * 4 * protocol.size**2
    busy = -(-2 * (threads or os.cpu_count() or 1) // per_batch)
    return max(2, min(busy, _ON_THE_WAY // size))
