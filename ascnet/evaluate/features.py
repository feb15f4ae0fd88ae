"""Features of whole videos: the mean over evenly spaced clips of the encoder's pooled last feature map.

Decoding goes on while the encoder computes: the stream keeps batches on the way, and the result of a batch is fetched
from the device only when the next one has been sent there. On several processes each takes its share of the batches;
their composition does not depend on how many processes there are.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ascnet.errors import UserError
from ascnet.evaluate.clips import augment_of, requests_of
from ascnet.evaluate.protocols import IMAGENET, Pool, Protocol, Role
from ascnet.evaluate.store import FeatureStore, weights_digest
from ascnet.parallel.distributed import World
from ascnet.precision import Precision
from dali_pipes import ClipRequest, ClipStream, Corpus, Progress

# Bytes of clips that may be on the way to the encoder.
_ON_THE_WAY = 2**30


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
    role: Role = "query",
    batch_size: int = 40,
    device: str | torch.device = "cpu",
    decoder: Literal["auto", "dali", "host"] = "auto",
    threads: int | None = None,
    progress: bool = True,
    cache: str | os.PathLike[str] | None = None,
    world: World | None = None,
) -> Features:
    """Describe each video by one vector.

    Args:
        encoder: Has ``features(x)``: clips ``(B, 3, T, H, W)`` to the last feature map ``(B, D, t, h, w)``. It is
            moved to the device and put in evaluation mode for the while.
        corpus: The videos.
        rows: Row numbers.
        protocol: Clips, frames, size, speed, pooling and number format.
        role: What the videos are; protocols may treat the gallery otherwise than queries.
        batch_size: Clips in a forward pass; it changes speed and memory, not the result.
        device: Where the encoder runs and the clips are made.
        decoder: As for `dali_pipes.ClipStream`.
        threads: As for `dali_pipes.ClipStream`.
        progress: Whether to show progress.
        cache: Folder of features made earlier, and to be found again; None: none.
        world: All processes of the run, of which each describes a part of the videos; None: this one alone.

    Returns:
        The features, without the videos that cannot be decoded; they are listed in `failed` with the reason. On all
        processes but the first there are none.

    Raises:
        UserError: If `rows` is empty or no video could be decoded; if the device lacks the number format.
    """
    wanted = [int(row) for row in rows]
    if not wanted:
        raise UserError("no videos to describe")
    device, world = torch.device(device), world or World(torch.device(device))
    known, store = _nothing(), None
    if cache is not None and world.is_first:
        recipe = protocol.recipe(role) | {"device": device.type, "decoder": decoder}
        store = FeatureStore(cache, weights_digest(encoder), corpus.fingerprint, recipe)
        known = Features(*store.load())
    there = set(world.share(lambda: known.rows.tolist()))
    todo = [row for row in wanted if row not in there]
    parts = []
    if todo:
        made = _Made()
        with world.together():
            # The composition of the batches, and with it every last digit, does not depend on who has which.
            per_batch = min(max(1, batch_size // protocol.clips), len(todo))
            batches = [todo[at : at + per_batch] for at in range(0, len(todo), per_batch)][world.rank :: world.size]
            options: dict[str, Any] = {
                "batch_size": per_batch,
                "device": str(device),
                "short": protocol.short,
                "fps": protocol.fps,
                "decoder": decoder,
                "threads": threads,
                "prefetch": _prefetch(protocol, per_batch, threads),
            }
            precision = Precision(protocol.precision, device)
            name = "features" if world.size == 1 else f"features, process 1 of {world.size}"
            meter = Progress(name, sum(map(len, batches)), enabled=progress and world.is_first)
            encoder = encoder.to(device)
            try:
                if batches:
                    _run(encoder, corpus, batches, protocol, role, batch_size, precision, options, meter, made)
            except BaseException:
                # Interrupted: what is made need not be made again.
                _keep(store, [known, made.features()])
                raise
        parts = world.gather(made.features())
    if not world.is_first:
        return _nothing()
    everything = _joined([known, *parts])
    if len(everything.rows) > len(known.rows):
        _keep(store, [everything])
    found = everything.of(wanted)
    if not len(found.rows):
        raise UserError(f"none of the {len(wanted)} videos could be decoded; the first: {corpus[wanted[0]].uri}")
    return found


class _Made:
    """What a process has described so far."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.vectors: list[NDArray[np.float32]] = []
        self.failed: dict[int, str] = {}

    def features(self) -> Features:
        if not self.rows:
            return Features(_nothing().rows, _nothing().vectors, self.failed)
        # An interrupt may have come between a vector and its row.
        return Features(np.array(self.rows, np.int64), np.stack(self.vectors[: len(self.rows)]), self.failed)


def _run(
    encoder: nn.Module,
    corpus: Corpus,
    batches: list[list[int]],
    protocol: Protocol,
    role: Role,
    batch_size: int,
    precision: Precision,
    options: dict[str, Any],
    meter: Progress,
    made: _Made,
) -> None:
    """Describe the videos of all batches, given by their rows."""
    augment = augment_of(protocol, role)
    dtype: Literal["float16", "float32"] = "float32"
    if precision.compute != torch.float32 and "cuda" in options["device"]:
        dtype = "float16"
    stream = ClipStream(
        corpus,
        frames=protocol.frames,
        size=protocol.size,
        views=protocol.clips,
        augment=augment,
        dtype=dtype,
        **options,
    )
    sent: tuple[list[ClipRequest], tuple[ClipRequest, ...], torch.Tensor] | None = None

    def take() -> None:
        if sent is None:
            return
        asked, delivered, on_device = sent
        # Waits for the device; the batch after this one is on its way there already.
        found = on_device.cpu().numpy()
        for at, (request, got) in enumerate(zip(asked, delivered, strict=True)):
            # The stream puts another video in the place of one that it cannot decode: right for training, but a
            # feature under the wrong name here.
            if request.video == got.video:
                made.vectors.append(found[at])
                made.rows.append(request.video)
            else:
                reason = stream.stats.bad.get(stream.corpus[request.video].uri, "cannot be decoded")
                made.failed[request.video] = reason
        meter.advance(len(asked))

    waiting: deque[list[ClipRequest]] = deque()

    def plan() -> Iterator[list[ClipRequest]]:
        # As they are needed: those of a large corpus at once would take gigabytes.
        for rows in batches:
            waiting.append(requests_of(corpus, rows, protocol, role))
            yield waiting[-1]

    with stream, meter, _evaluating(encoder):
        for batch in stream.map(plan()):
            clips = batch.clips if augment is not None else _normalised(batch.clips, protocol)
            found = _describe(encoder, clips, batch_size, precision, protocol.pool)
            take()
            sent = (waiting.popleft(), batch.requests, found)
        take()


def _prefetch(protocol: Protocol, per_batch: int, threads: int | None) -> int:
    """Batches to keep on the way: enough that every decoding thread has a video, within bounds of memory."""
    size = per_batch * protocol.clips * protocol.frames * 3 * 4 * protocol.size**2
    busy = -(-2 * (threads or os.cpu_count() or 1) // per_batch)
    return max(2, min(busy, _ON_THE_WAY // size))


def _joined(parts: Sequence[Features]) -> Features:
    """All parts as one."""
    failed = {row: why for part in parts for row, why in part.failed.items()}
    parts = [part for part in parts if len(part.rows)]
    if not parts:
        return Features(_nothing().rows, _nothing().vectors, failed)
    rows, vectors = (np.concatenate([getattr(part, name) for part in parts]) for name in ("rows", "vectors"))
    return Features(rows, vectors, failed)


def _nothing() -> Features:
    return Features(np.empty(0, np.int64), np.empty((0, 0), np.float32))


def _keep(store: FeatureStore | None, parts: Sequence[Features]) -> None:
    whole = _joined(parts)
    if store is not None and len(whole.rows):
        store.save(whole.rows, whole.vectors)


def _normalised(clips: torch.Tensor, protocol: Protocol) -> torch.Tensor:
    """Clips (..., C, T, H, W) that the stream normalised by ImageNet's colours, by those of the protocol instead."""
    if (protocol.mean, protocol.std) == IMAGENET:
        return clips
    mean, std, given, by = (
        torch.tensor(values, device=clips.device).view(3, 1, 1, 1)
        for values in (protocol.mean, protocol.std, *IMAGENET)
    )
    return (clips.float() * by + given - mean) / std


def _describe(
    encoder: nn.Module, clips: torch.Tensor, batch_size: int, precision: Precision, pool: Pool
) -> torch.Tensor:
    """(B, V, C, T, H, W) -> (B, D) float32 on the device."""
    videos, views = clips.shape[:2]
    flat = clips.flatten(0, 1)
    pooled = []
    for part in flat.split(batch_size):
        with precision.autocast():
            feature_map = encoder.features(part.to(precision.compute))  # type: ignore[operator]
        pooled.append(_pooled(feature_map.float(), pool))
    return torch.cat(pooled).view(videos, views, -1).mean(dim=1)


def _pooled(feature_map: torch.Tensor, pool: Pool) -> torch.Tensor:
    """(B, C, t, h, w) -> (B, C), or with `max` (B, C * t * (h // 2) * (w // 2))."""
    if pool == "average":
        return feature_map.mean(dim=(2, 3, 4))
    if min(feature_map.shape[3:]) < 2:
        shape = " x ".join(map(str, feature_map.shape[2:]))
        raise UserError(f"the last feature map is {shape}: too small to be pooled 1 x 2 x 2; clips must be larger")
    return torch.nn.functional.max_pool3d(feature_map, (1, 2, 2)).flatten(1)


@contextlib.contextmanager
def _evaluating(encoder: nn.Module) -> Iterator[None]:
    training = encoder.training
    encoder.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        encoder.train(training)
