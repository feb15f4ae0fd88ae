"""What changed between two results of the same benchmark: figure by figure, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

Verdict = Literal["better", "worse", "within noise", "no ratio"]
DRAWS, LEVEL = 10_000, 0.95


@dataclass(frozen=True)
class Change:
    """One figure in both results.

    Attributes:
        name: Of the figure.
        unit: Of the figure.
        before: Median in the first result.
        after: Median in the second.
        ratio: Second over first; None where that is no number.
        low: Lower end of its 95 % interval.
        high: Upper end.
        verdict: "better" or "worse" where the interval excludes 1; "no ratio" where a median is not above 0.
        loss: What was lost, as a share: 0.2 for a rate that fell, or a time that rose, by 20 %. Negative: gained.
    """

    name: str
    unit: str
    before: float | None
    after: float | None
    ratio: float | None
    low: float | None
    high: float | None
    verdict: Verdict
    loss: float | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def fails(self, threshold: float) -> bool:
        """Whether it is worse by more than the threshold, and not by chance."""
        return self.verdict == "worse" and self.loss is not None and self.loss > threshold


def change(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Change:
    """Compare one figure.

    Args:
        name: Of the figure.
        before: `bench.measure.figures.figure`, of the first result.
        after: The same of the second.
    """
    old, new = before["median"], after["median"]
    interval = _interval(before, after) if _usable(before) and _usable(after) else None
    if interval is None:
        # Nothing over nothing is no change; a share of what was 0 is no number.
        same: Verdict = "within noise" if old == new and old is not None else "no ratio"
        return Change(name, before["unit"], old, new, None, None, None, same, None)
    ratio, (low, high) = new / old, interval
    higher = before["better"] == "higher"
    verdict: Verdict = "within noise"
    if low > 1 or high < 1:
        verdict = "better" if (low > 1) == higher else "worse"
    return Change(name, before["unit"], old, new, ratio, low, high, verdict, (1 - ratio) if higher else (ratio - 1))


def ratio_interval(before: Sequence[float], after: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the ratio of medians (after over before), by the percentile bootstrap.

    The rounds of two runs do not belong together in pairs, so both are drawn from on their own (Efron & Tibshirani,
    1993, chapter 8: two samples). The seed is fixed: the same files always give the same interval.
    """
    random = np.random.default_rng(0)
    medians = []
    for values in (before, after):
        sample = np.asarray(values, np.float64)
        medians.append(np.median(sample[random.integers(sample.size, size=(DRAWS, sample.size))], axis=1))
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(medians[1] / medians[0], [tail, 100 - tail])
    return float(low), float(high)


def compared(
    before: Mapping[str, Mapping[str, Any]], after: Mapping[str, Mapping[str, Any]], names: Sequence[str]
) -> list[Change]:
    """Changes of the named figures, the greatest loss first."""
    found = [change(name, before[name], after[name]) for name in names]
    return sorted(found, key=lambda one: -np.inf if one.loss is None else one.loss, reverse=True)


def _interval(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[float, float]:
    if _values(before) and _values(after):
        return ratio_interval(_values(before), _values(after))
    # Without the rounds: the widest ratio that the two intervals allow, which is wider than 95 % needs.
    return after["low"] / before["high"], after["high"] / before["low"]


def _values(figure: Mapping[str, Any]) -> list[float]:
    return list(figure.get("values", ()))


def _usable(figure: Mapping[str, Any]) -> bool:
    """Whether ratios of it are numbers: all that is drawn from must be above 0."""
    known = [figure["median"], figure["low"], figure["high"], *_values(figure)]
    return all(value is not None and value > 0 for value in known)
