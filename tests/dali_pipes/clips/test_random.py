"""Random numbers depend on where they are used and on nothing else."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from dali_pipes import Key
from dali_pipes.clips.random import Purpose, generator


def test_the_same_place_gives_the_same_numbers_whatever_was_drawn_before() -> None:
    key = Key(7, 3, 11, 1)
    first = generator(key, Purpose.START).random(5)
    generator(Key(7, 3, 12, 1), Purpose.START).random(1000)
    assert np.array_equal(generator(key, Purpose.START).random(5), first)


def test_every_part_of_the_place_changes_the_numbers() -> None:
    small = (0, 1, 2)
    drawn = {
        tuple(generator(Key(seed, epoch, position, role), purpose, view=view, attempt=attempt).integers(2**62, size=2))
        for seed, epoch, position, role in itertools.product((0, 1), small, small, (0, 1))
        for purpose in Purpose
        for view, attempt in itertools.product(small, small)
    }
    assert len(drawn) == 2 * 3 * 3 * 2 * len(Purpose) * 9


def test_long_draws_of_neighbouring_places_do_not_overlap() -> None:
    a = generator(Key(0, 0, 0), Purpose.AUGMENT).integers(2**62, size=4000)
    b = generator(Key(0, 0, 1), Purpose.AUGMENT).integers(2**62, size=4000)
    assert not np.isin(a, b).any()


def test_numbers_spread_evenly_over_places() -> None:
    drawn = np.array([generator(Key(0, e, p), Purpose.START).random() for e in range(20) for p in range(200)])
    counts = np.histogram(drawn, bins=10, range=(0, 1))[0]
    assert abs(counts - 400).max() < 5 * np.sqrt(400 * 0.9)


@pytest.mark.parametrize("key", [Key(-1), Key(0, -1), Key(0, 0, -1), Key(0, 0, 0, -1)])
def test_negative_parts_are_refused(key: Key) -> None:
    with pytest.raises(ValueError, match="negative"):
        generator(key, Purpose.START)
