"""Medians and their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A median and the interval that holds it with 95 % confidence.

    Attributes:
        median: The sample median.
        low: Lower end of the interval.
        high: Upper end of the interval.
        count: Number of measurements.
    """

    median: float
    low: float
    high: float
    count: int

    def as_dict(self) -> dict[str, float | int]:
        return asdict(self)


def estimate(values: Sequence[float], *, level: float = 0.95, draws: int = 10_000) -> Estimate:
    """The median with its percentile-bootstrap interval (Efron & Tibshirani, 1993, chapter 13).

    The bootstrap's seed is fixed, so the same measurements always give the same interval. One measurement gives an
    interval of no width: nothing is known of its spread.

    Args:
        values: At least one finite measurement.
        level: Confidence level, between 0 and 1.
        draws: Bootstrap samples.

    Raises:
        ValueError: If there is no value, or one is not finite.
    """
    sample = np.asarray(values, dtype=np.float64)
    if not sample.size or not np.isfinite(sample).all():
        raise ValueError(f"a median needs at least one value and only finite ones, got {list(values)}")
    picks = np.random.default_rng(0).integers(sample.size, size=(draws, sample.size))
    tail = 50 * (1 - level)
    low, high = np.percentile(np.median(sample[picks], axis=1), [tail, 100 - tail])
    return Estimate(float(np.median(sample)), float(low), float(high), int(sample.size))


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Ours over theirs, pair by pair: both of a pair were measured in the same round, under the same load."""
    return [a / b for a, b in zip(ours, theirs, strict=True)]
