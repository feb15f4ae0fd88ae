"""Regularised logistic regression on features: no draws, no learning rate, one optimum.

    minimise  mean cross-entropy + penalty / 2 * |weights|^2     over the weights; the bias is not penalised

in float64 by L-BFGS. Features are standardised by the training set's mean and deviation, so that a penalty means the
same for every encoder. The penalty is chosen on training videos that are held out, never on the test videos. In the
notation of scikit-learn's `LogisticRegression`, C = 1 / (samples * penalty).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ascnet.errors import UserError
from ascnet.evaluate.holdout import hold_out

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
HELD_OUT = 0.25
"""Share of the training videos that the penalty is chosen on."""


@dataclass(frozen=True)
class Samples:
    """Features and what is asked about them.

    Attributes:
        features: (N, D).
        answers: (N,) class numbers.
        videos: (N,) which video each is of; samples of one video are never on both sides of a division.
        groups: (N,) which recording or person each is of; None: each video is its own.
    """

    features: NDArray[np.float64]
    answers: NDArray[np.int64]
    videos: NDArray[np.int64]
    groups: NDArray[np.int64] | None = None

    def part(self, which: NDArray[np.bool_]) -> Samples:
        """Some of them."""
        groups = None if self.groups is None else self.groups[which]
        return Samples(self.features[which], self.answers[which], self.videos[which], groups)


@dataclass(frozen=True)
class Classifier:
    """Scores of features by a fitted regression."""

    mean: Tensor
    scale: Tensor
    weights: Tensor
    bias: Tensor

    def scores(self, features: ArrayLike) -> NDArray[np.float64]:
        """(N, D) to (N, C) logits."""
        x = (_tensor(features) - self.mean) / self.scale
        return (x @ self.weights + self.bias).numpy()


@dataclass(frozen=True)
class ProbeResult:
    """What a probe found; accuracies in percent.

    Attributes:
        accuracy: On the samples of the test videos.
        standard_error: Of that, over test videos: samples of one video are not independent.
        chance: Share of the commonest answer among the test samples.
        train_accuracy: On the training samples.
        penalty: The one chosen.
        samples: Test samples.
        videos: Test videos.
        train_videos: Training videos.
    """

    accuracy: float
    standard_error: float
    chance: float
    train_accuracy: float
    penalty: float
    samples: int
    videos: int
    train_videos: int


def fit(features: ArrayLike, answers: ArrayLike, classes: int, penalty: float) -> Classifier:
    """The optimum for one penalty.

    Args:
        features: (N, D).
        answers: (N,) class numbers.
        classes: How many there are.
        penalty: On the squared weights, above 0.

    Raises:
        UserError: If there are no samples, or a feature is not a finite number.
    """
    x, y = _tensor(features), torch.from_numpy(np.asarray(answers, np.int64).copy())
    if not len(x) or not penalty > 0:
        raise UserError(f"{len(x)} samples and penalty={penalty}; expected samples, and a penalty above 0")
    mean, deviation = x.mean(dim=0), x.std(dim=0, correction=0)
    # A feature that never changes says nothing; it must not be divided by 0.
    scale = torch.where(deviation > 1e-12 * (1 + mean.abs()), deviation, torch.ones_like(deviation))
    x = (x - mean) / scale
    weights = torch.zeros(x.shape[1] + 1, classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weights], max_iter=1000, tolerance_grad=1e-8, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(x @ weights[:-1] + weights[-1], y) + penalty / 2 * weights[:-1].square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    fitted = weights.detach()
    return Classifier(mean, scale, fitted[:-1], fitted[-1])


def probe(
    train: Samples,
    test: Samples,
    classes: int,
    *,
    penalties: Sequence[float] = PENALTIES,
    seed: int = 0,
) -> ProbeResult:
    """Fits on training videos and scores on test videos.

    Args:
        train: Samples to fit on.
        test: Samples of other videos.
        classes: How many answers there are.
        penalties: To choose from; a single one is taken as it is.
        seed: Of the choice of the held-out training videos.

    Raises:
        UserError: If a video is on both sides, there are no samples, or features are not finite numbers.
    """
    both = np.intersect1d(train.videos, test.videos)
    if len(both):
        raise UserError(f"{len(both)} videos are among the training and the test videos of a probe; they must differ")
    if not len(train.answers) or not len(test.answers):
        raise UserError(f"{len(train.answers)} training and {len(test.answers)} test samples; a probe needs both")
    penalty = penalties[0] if len(penalties) == 1 else _choose(train, classes, penalties, seed)
    fitted = fit(train.features, train.answers, classes, penalty)
    right = fitted.scores(test.features).argmax(axis=1) == test.answers
    return ProbeResult(
        accuracy=100.0 * float(right.mean()),
        standard_error=error_over_videos(right, test.videos),
        chance=100.0 * float(np.bincount(test.answers).max() / len(test.answers)),
        train_accuracy=100.0 * float((fitted.scores(train.features).argmax(axis=1) == train.answers).mean()),
        penalty=penalty,
        samples=len(test.answers),
        videos=len(np.unique(test.videos)),
        train_videos=len(np.unique(train.videos)),
    )


def error_over_videos(right: NDArray[np.bool_], videos: NDArray[np.int64]) -> float:
    """Standard error, in percent, of the share of right answers, with whole videos drawn and not single samples.

    sqrt(sum over videos of (right - share * samples)^2 * V / (V - 1)) / N; 0 for a single video, where it is unknown.
    """
    _, place = np.unique(videos, return_inverse=True)
    counts = np.bincount(place)
    if len(counts) < 2:
        return 0.0
    residuals = np.bincount(place, right) - right.mean() * counts
    return 100.0 * float(np.sqrt((residuals**2).sum() * len(counts) / (len(counts) - 1)) / len(right))


def _choose(train: Samples, classes: int, penalties: Sequence[float], seed: int) -> float:
    """The penalty with the best accuracy on held-out training videos; of equal ones the largest."""
    held = _held_out(train, seed)
    inner, outer = train.part(~held), train.part(held)
    accuracies = {}
    for penalty in sorted(penalties, reverse=True):
        scores = fit(inner.features, inner.answers, classes, penalty).scores(outer.features)
        accuracies[penalty] = float((scores.argmax(axis=1) == outer.answers).mean())
    return max(accuracies, key=lambda penalty: accuracies[penalty])


def _held_out(train: Samples, seed: int) -> NDArray[np.bool_]:
    """Which samples the penalty is chosen on: those of whole groups, or of whole videos where that cannot be."""
    videos, first, place = np.unique(train.videos, return_index=True, return_inverse=True)
    # The answer of a video's first sample stands for it: samples ask the same of every video, or are all of one class.
    answers = train.answers[first]
    candidates = [videos] if train.groups is None else [train.groups[first], videos]
    for names in candidates:
        try:
            return hold_out(answers, names, HELD_OUT, seed)[place]
        except UserError:
            continue
    raise UserError(
        f"{len(videos)} training videos are too few to choose a penalty on some of them; give a single penalty"
    )


def _tensor(features: ArrayLike) -> Tensor:
    values = np.asarray(features, np.float64)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise UserError(f"features of shape {values.shape} that are finite numbers throughout are needed: (N, D)")
    return torch.from_numpy(values)
