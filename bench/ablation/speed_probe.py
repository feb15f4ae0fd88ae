"""What frozen features know of playback speed: a linear classifier of single clips, 1x or 2x.

Speed consistency (SCP) trains for this, appearance consistency (ACP) against it: two clips of one video at both speeds
are to have one feature. Train and test clips come from different videos, each with as many clips of either speed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ascnet.evaluate.logistic import fit
from ascnet.evaluate.protocols import Protocol
from dali_pipes import ClipStream, Corpus, even_requests, track
from dali_pipes.errors import DataError

SPEEDS = (1.0, 2.0)
# Strength of the penalty on the classifier's weights; the features are standardised, so that it means the same for
# every encoder.
PENALTY = 0.01
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class ClipFeatures:
    """Features of single clips.

    Attributes:
        rows: (N,) int64 row numbers of the videos.
        vectors: (N, V, D) float32, V clips of each.
        failed: Why, by row number, for the videos that could not be decoded.
    """

    rows: NDArray[np.int64]
    vectors: NDArray[np.float32]
    failed: dict[int, str]


def clip_features(
    encoder: nn.Module,
    corpus: Corpus,
    rows: NDArray[np.int64],
    protocol: Protocol,
    *,
    device: torch.device,
    threads: int | None = None,
    videos: int = 8,
    progress: bool = True,
) -> ClipFeatures:
    """Describes evenly spaced clips of each video, by the protocol's frames, size and speed, in float32.

    The mean over a video's clips is the feature that `ascnet retrieve` compares.

    Args:
        encoder: Has ``features(x)``: clips (B, 3, T, H, W) to the last feature map (B, D, t, h, w).
        corpus: The videos.
        rows: Which of them.
        protocol: How.
        device: Where the encoder runs.
        threads: Decoding threads.
        videos: Videos in a forward pass.
        progress: Whether to show progress.

    Raises:
        DataError: If none of the videos can be decoded, or training normalised colours in another way.
    """
    if (protocol.mean, protocol.std) != IMAGENET:
        raise DataError(f"data.augment.mean={list(protocol.mean)}: only ImageNet's mean and std are supported here")
    requests = [
        even_requests(
            corpus, int(row), frames=protocol.frames, clips=protocol.clips, speed=protocol.speed, fps=protocol.fps
        )
        for row in rows
    ]
    batches = [requests[at : at + videos] for at in range(0, len(requests), videos)]
    kept, vectors, failed = [], [], {}
    stream = ClipStream(
        corpus,
        frames=protocol.frames,
        size=protocol.size,
        batch_size=min(videos, max(1, len(requests))),
        views=protocol.clips,
        device=str(device),
        short=protocol.short,
        fps=protocol.fps,
        threads=threads,
    )
    training = encoder.training
    encoder = encoder.to(device).eval()
    with stream, torch.inference_mode():
        batch_numbers = track(batches, f"clips at {protocol.speed:g}x", unit="batches", enabled=progress)
        for asked, batch in zip(batch_numbers, stream.map(batches), strict=True):
            clips = batch.clips.flatten(0, 1).float()
            pooled = encoder.features(clips).mean(dim=(2, 3, 4))  # type: ignore[operator]
            found = pooled.view(len(asked), protocol.clips, -1).cpu().numpy()
            for place, (request, delivered) in enumerate(zip(asked, batch.requests, strict=True)):
                # The stream puts another video in the place of one that it cannot decode.
                if request.video == delivered.video:
                    kept.append(request.video)
                    vectors.append(found[place])
                else:
                    failed[request.video] = stream.stats.bad.get(corpus[request.video].uri, "cannot be decoded")
    encoder.train(training)
    if not kept:
        raise DataError(f"{corpus.path or 'the corpus'}: none of {len(rows)} videos could be decoded")
    return ClipFeatures(np.array(kept, np.int64), np.stack(vectors), failed)


def at_speeds(protocol: Protocol) -> list[Protocol]:
    """The protocol at each of the speeds to tell apart."""
    return [replace(protocol, speed=speed) for speed in SPEEDS]


def samples(features: list[ClipFeatures], rows: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
    """Clips (M, D) of the videos that have features at every speed, and the number of each clip's speed (M,)."""
    common = [int(row) for row in rows if all(row in part.rows for part in features)]
    vectors, speeds = [], []
    for number, part in enumerate(features):
        places = {int(row): place for place, row in enumerate(part.rows)}
        chosen = part.vectors[[places[row] for row in common]]
        vectors.append(chosen.reshape(-1, chosen.shape[-1]))
        speeds.append(np.full(len(vectors[-1]), number))
    return torch.from_numpy(np.concatenate(vectors)).double(), torch.from_numpy(np.concatenate(speeds))


def probe(train: tuple[torch.Tensor, torch.Tensor], test: tuple[torch.Tensor, torch.Tensor]) -> dict[str, float]:
    """Accuracy in percent of logistic regression of two classes, on its training clips and on the test clips.

    Full batches, float64, L-BFGS to its optimum: nothing is drawn, so equal features give equal figures.

    Args:
        train: Features (M, D) and classes (M,), 0 or 1.
        test: The same of other videos.

    Raises:
        DataError: If there are no clips, or features are not finite.
    """
    (x, y), (x_test, y_test) = train, test
    if not len(x) or not len(x_test):
        raise DataError("speed probe: no training or no test video has clips at both speeds")
    if not (torch.isfinite(x).all() and torch.isfinite(x_test).all()):
        raise DataError("speed probe: features are not finite numbers")
    # The penalty of two classes with weights of their own is twice that of the one set of weights between them.
    fitted = fit(x.numpy(), y.numpy(), len(SPEEDS), 2 * PENALTY)

    def accuracy(features: torch.Tensor, classes: torch.Tensor) -> float:
        return 100.0 * float((fitted.scores(features.numpy()).argmax(axis=1) == classes.numpy()).mean())

    return {"accuracy": accuracy(x_test, y_test), "train_accuracy": accuracy(x, y)}
