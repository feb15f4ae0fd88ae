"""What frozen features know: the playback speed of a clip, the arrow of time, and classes, layer by layer.

Speed consistency (SCP) trains for the first; appearance consistency (ACP) against it, since two clips of one video at
both speeds are to have one feature. Each probe is a linear classifier (`ascnet.evaluate.logistic`) of the pooled
features of single clips, or, for classes, of their mean over a video's clips.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ascnet.errors import UserError
from ascnet.evaluate.clip_scores import evaluating, normalised
from ascnet.evaluate.logistic import PENALTIES, ProbeResult, Samples, probe
from ascnet.evaluate.protocols import Protocol
from ascnet.precision import Precision
from dali_pipes import ClipRequest, ClipStream, Corpus, Progress, View, even_requests

LAST = "features"
"""Name of the encoder's own feature, the pooled last map."""


@dataclass(frozen=True)
class ViewFeatures:
    """Pooled features of each view of some videos.

    Attributes:
        rows: (N,) row numbers.
        vectors: (N, V, D) float32 by the name of the layer.
        failed: Why, by row number, for the videos left out.
    """

    rows: NDArray[np.int64]
    vectors: dict[str, NDArray[np.float32]]
    failed: dict[int, str]

    def of(self, rows: NDArray[np.int64], layer: str = LAST) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Row numbers, of those asked for, that are there, and their vectors."""
        there = np.isin(self.rows, rows)
        return self.rows[there], self.vectors[layer][there]


def view_features(
    encoder: nn.Module,
    corpus: Corpus,
    rows: Sequence[int] | NDArray[np.int64],
    request: Callable[[int], ClipRequest],
    protocol: Protocol,
    *,
    layers: bool = False,
    device: str | torch.device = "cpu",
    batch_size: int = 40,
    threads: int | None = None,
    what: str = "clips",
    progress: bool = True,
) -> ViewFeatures:
    """Describes the views that `request` asks of each video.

    Args:
        encoder: Has ``features(x)``: clips (B, 3, T, H, W) to the last feature map (B, D, t, h, w).
        corpus: The videos.
        rows: Which of them.
        request: Views of a video by row number, equally many of each.
        protocol: Frames, size, frame rate, colours and number format.
        layers: Whether the pooled map of every stage is kept, not the last one alone.
        device: Where the encoder runs.
        batch_size: Largest number of clips in a forward pass.
        threads: Decoding threads.
        what: Said beside the progress.
        progress: Whether to show it.

    Raises:
        UserError: If no video could be decoded.
    """
    device = torch.device(device)
    precision = Precision(protocol.precision, device)
    requests = [request(int(row)) for row in rows]
    if not requests:
        raise UserError(f"{what}: no videos to describe")
    views = len(requests[0].views)
    each = min(max(1, batch_size // views), len(requests))
    batches = [requests[at : at + each] for at in range(0, len(requests), each)]
    kept: list[int] = []
    vectors: dict[str, list[Tensor]] = {}
    failed: dict[int, str] = {}
    stream = ClipStream(
        corpus,
        frames=protocol.frames,
        size=protocol.size,
        batch_size=each,
        views=views,
        device=str(device),
        dtype="float16" if device.type == "cuda" and precision.compute != torch.float32 else "float32",
        short=protocol.short,
        fps=protocol.fps,
        threads=threads,
        max_bad=1.0,
    )
    encoder = encoder.to(device)
    progress_shown = Progress(what, len(requests), enabled=progress)
    with stream, progress_shown as meter, evaluating(encoder), _pooled_maps(encoder, layers) as maps:
        for asked, batch in zip(batches, stream.map(batches), strict=True):
            clips = normalised(batch.clips, protocol.mean, protocol.std).flatten(0, 1)
            found: dict[str, list[Tensor]] = {}
            for part in clips.split(batch_size):
                maps.clear()
                with precision.autocast():
                    last = encoder.features(part.to(precision.compute))  # type: ignore[operator]
                for name, pooled in (*maps.items(), (LAST, _pool(last))):
                    found.setdefault(name, []).append(pooled)
            for place, (wanted, delivered) in enumerate(zip(asked, batch.requests, strict=True)):
                # The stream puts another video in the place of one that it cannot decode.
                if wanted.video != delivered.video:
                    failed[wanted.video] = stream.stats.bad.get(corpus[wanted.video].uri, "cannot be decoded")
                    continue
                kept.append(wanted.video)
                for name, parts in found.items():
                    own = torch.cat(parts)[place * views : (place + 1) * views]
                    vectors.setdefault(name, []).append(own)
            meter.advance(len(asked))
    if not kept:
        raise UserError(f"{what}: none of {len(requests)} videos could be decoded; the first: {corpus[rows[0]].uri}")
    return ViewFeatures(
        np.array(kept, np.int64), {name: torch.stack(parts).numpy() for name, parts in vectors.items()}, failed
    )


@contextmanager
def _pooled_maps(encoder: nn.Module, wanted: bool) -> Iterator[dict[str, Tensor]]:
    """The pooled output of each stage of the encoder, filled by its forward pass."""
    maps: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and output.ndim == 5:
                maps[name] = _pool(output)

        return hook

    # Poolings between the stages hold nothing of their own.
    stages = [(name, child) for name, child in encoder.named_children() if any(True for _ in child.parameters())]
    handles = [child.register_forward_hook(keep(name)) for name, child in stages] if wanted else []
    try:
        yield maps
    finally:
        for handle in handles:
            handle.remove()


def _pool(feature_map: Tensor) -> Tensor:
    return feature_map.float().mean(dim=(2, 3, 4)).cpu()


def speed_requests(corpus: Corpus, protocol: Protocol, speeds: Sequence[float]) -> Callable[[int], ClipRequest]:
    """Evenly spaced clips of a video at each of the speeds, all of the first speed first."""

    def request(row: int) -> ClipRequest:
        shown: list[View] = []
        for speed in speeds:
            shown += even_requests(
                corpus, row, frames=protocol.frames, clips=protocol.clips, speed=speed, fps=protocol.fps
            ).views
        return ClipRequest(row, tuple(shown))

    return request


def arrow_requests(corpus: Corpus, protocol: Protocol) -> Callable[[int], ClipRequest]:
    """Evenly spaced clips of a video, all of them forward first, then the same windows backwards."""

    def request(row: int) -> ClipRequest:
        forward = even_requests(
            corpus, row, frames=protocol.frames, clips=protocol.clips, speed=protocol.speed, fps=protocol.fps
        ).views
        return ClipRequest(row, (*forward, *(replace(view, reverse=True) for view in forward)))

    return request


def long_enough(
    corpus: Corpus, rows: NDArray[np.int64], protocol: Protocol, speed: float
) -> tuple[NDArray[np.int64], dict[int, str]]:
    """Videos in which a clip at this speed fits, and why the others are left out.

    A clip that starts over at the video's end jumps, and would give its speed, or its direction, away.
    """
    step = speed if protocol.fps is None else speed * corpus.rate[rows] / protocol.fps
    span = np.floor((protocol.frames - 1) * step + 0.5) + 1
    fits = corpus.frames[rows] >= span
    left = {int(row): f"shorter than {protocol.frames} frames at {speed:g}x" for row in rows[~fits]}
    if not fits.any():
        raise UserError(
            f"none of {len(rows)} videos is as long as {protocol.frames} frames at {speed:g}x; set --frames"
        )
    return rows[fits], left


def clip_samples(
    features: ViewFeatures, corpus: Corpus, rows: NDArray[np.int64], answers: int, layer: str = LAST
) -> Samples:
    """One sample a clip: the views of a video are as many of each answer, those of answer 0 first."""
    found, vectors = features.of(rows, layer)
    count = vectors.shape[1]
    flat = vectors.reshape(-1, vectors.shape[-1]).astype(np.float64)
    wanted = np.tile(np.repeat(np.arange(answers), count // answers), len(found))
    videos = np.repeat(found, count)
    return Samples(flat, wanted, videos, corpus.groups[videos])


def video_samples(features: ViewFeatures, corpus: Corpus, rows: NDArray[np.int64], layer: str = LAST) -> Samples:
    """One sample a video with a label: the mean over its clips, and its class."""
    found, vectors = features.of(rows[corpus.labels[rows] >= 0], layer)
    return Samples(vectors.mean(axis=1, dtype=np.float64), corpus.labels[found], found, corpus.groups[found])


def run_probe(
    kind: str,
    encoder: nn.Module,
    corpus: Corpus,
    train: NDArray[np.int64],
    test: NDArray[np.int64],
    protocol: Protocol,
    *,
    speeds: Sequence[float] = (1.0, 2.0),
    penalties: Sequence[float] = PENALTIES,
    seed: int = 0,
    device: str | torch.device = "cpu",
    batch_size: int = 40,
    threads: int | None = None,
    progress: bool = True,
) -> tuple[dict[str, ProbeResult], dict[int, str]]:
    """One of the three probes.

    Args:
        kind: "speed" (which of `speeds` a clip has), "arrow" (forward or backwards) or "layers" (the video's class,
            from the pooled features of each stage).
        encoder: Stays as it is.
        corpus: The videos; for "layers" with labels.
        train: Row numbers to fit on.
        test: Row numbers to score on.
        protocol: Clips a video (for each answer), frames, size, frame rate, colours and number format.
        speeds: Of the speed probe, two or more.
        penalties: Of the logistic regression, to choose from.
        seed: Of the choice of videos that the penalty is chosen on.
        device: Where the encoder runs.
        batch_size: Largest number of clips in a forward pass.
        threads: Decoding threads.
        progress: Whether to show progress.

    Returns:
        Results by the name of the layer, and why videos were left out, by row number.

    Raises:
        UserError: For another kind, fewer than two speeds, or videos that cannot be used.
    """
    train, test = np.asarray(train, np.int64), np.asarray(test, np.int64)
    left: dict[int, str] = {}
    classes = {"speed": len(speeds), "arrow": 2, "layers": len(corpus.classes)}.get(kind)
    if classes is None:
        raise UserError(f"kind={kind!r} must be speed, arrow or layers")
    if kind == "layers":
        train, test = train[corpus.labels[train] >= 0], test[corpus.labels[test] >= 0]
        if not len(train) or not len(test):
            raise UserError("no training or no test video has a label; a probe of classes needs labels")
        ask = speed_requests(corpus, protocol, [protocol.speed])
    else:
        if len(set(speeds)) < 2 or len(set(speeds)) != len(speeds):
            raise UserError(f"speeds={list(speeds)} must be two or more different numbers")
        fastest = max(speeds) if kind == "speed" else protocol.speed
        for name, rows in (("train", train), ("test", test)):
            fits, short = long_enough(corpus, rows, protocol, fastest)
            left |= short
            train, test = (fits, test) if name == "train" else (train, fits)
        ask = speed_requests(corpus, protocol, speeds) if kind == "speed" else arrow_requests(corpus, protocol)
    features = view_features(
        encoder, corpus, np.concatenate([train, test]), ask, protocol, layers=kind == "layers", device=device,
        batch_size=batch_size, threads=threads, what=f"{kind} probe", progress=progress,
    )  # fmt: skip
    results = {}
    for layer in features.vectors:
        if kind == "layers":
            sides = [video_samples(features, corpus, rows, layer) for rows in (train, test)]
        else:
            sides = [clip_samples(features, corpus, rows, classes, layer) for rows in (train, test)]
        results[layer] = probe(sides[0], sides[1], classes, penalties=penalties, seed=seed)
    return results, left | features.failed
