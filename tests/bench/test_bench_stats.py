"""Medians, intervals, ratios."""

from __future__ import annotations

import numpy as np
import pytest

from bench.measure.stats import estimate, ratios


def test_the_median_lies_in_its_interval_and_the_interval_in_the_measurements() -> None:
    values = [9.0, 1.0, 4.0, 2.0, 3.0]
    result = estimate(values)
    assert result.median == 3.0 and result.count == 5
    assert min(values) <= result.low <= result.median <= result.high <= max(values)
    assert result.low < result.high


def test_the_interval_holds_the_true_median_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        result = estimate(random.normal(10.0, 1.0, size=15).tolist(), draws=500)
        held += result.low <= 10.0 <= result.high
    assert 0.88 <= held / 200 <= 0.99


def test_the_same_measurements_give_the_same_interval() -> None:
    assert estimate([1.0, 2.0, 5.0]) == estimate([1.0, 2.0, 5.0])


def test_one_measurement_has_an_interval_of_no_width() -> None:
    result = estimate([2.5])
    assert (result.low, result.median, result.high) == (2.5, 2.5, 2.5)


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [float("inf")]])
def test_values_that_have_no_median_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="at least one value and only finite ones"):
        estimate(values)


def test_ratios_are_taken_pair_by_pair_so_that_a_slow_spell_cancels_out() -> None:
    assert ratios([10.0, 5.0, 20.0], [5.0, 2.5, 10.0]) == [2.0, 2.0, 2.0]
    with pytest.raises(ValueError):
        ratios([1.0], [1.0, 2.0])
