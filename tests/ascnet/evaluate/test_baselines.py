"""Scores without learning: chance is exact, the descriptors see what they are named after and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from ascnet.errors import UserError
from ascnet.evaluate.baselines import chance, colour, motion


def test_chance_agrees_with_drawing_at_random() -> None:
    rng = np.random.default_rng(0)
    gallery = np.repeat([0, 1, 2, 3], [1, 4, 10, 15])
    queries = np.array([0, 0, 1, 2, 3, 3, 3, 9])
    draws = np.array([rng.permutation(gallery) for _ in range(20_000)])
    exact = chance(queries, gallery, (1, 5, 20))
    for k, value in exact.items():
        simulated = 100 * np.mean([(draws[:, :k] == label).any(axis=1).mean() for label in queries])
        # 20,000 draws leave a standard error below 0.4 points.
        assert value == pytest.approx(simulated, abs=1.2)


def test_chance_at_one_is_the_share_of_the_class() -> None:
    assert chance([1], [1, 2, 3, 4], (1,)) == {1: pytest.approx(25.0)}


def test_chance_of_the_whole_gallery_is_certain_where_the_class_occurs() -> None:
    assert chance([0, 7], [0, 1, 2], (3, 50)) == {3: pytest.approx(50.0), 50: pytest.approx(50.0)}


def test_chance_without_labels_is_refused() -> None:
    with pytest.raises(UserError, match="needs labels"):
        chance([-1], [0], (1,))


def moving_square(direction: int) -> np.ndarray:
    frames = np.zeros((9, 64, 64, 3), np.uint8)
    for number, frame in enumerate(frames):
        left = 4 + 6 * (number if direction > 0 else 8 - number)
        frame[24:40, left : left + 8] = (200, 60, 20)
    return frames


def test_colour_does_not_know_the_order_of_frames() -> None:
    np.testing.assert_allclose(colour(moving_square(1)), colour(moving_square(-1)), atol=1e-6)


def test_motion_knows_where_something_moves_and_not_what_stands_still() -> None:
    frames = moving_square(1)
    lit = np.maximum(frames, 0)
    lit[:, :12] = (90, 90, 90)  # a still object
    np.testing.assert_array_equal(motion(frames), motion(lit))
    energy = motion(frames).reshape(32, 32)
    assert energy[12:20].sum() == pytest.approx(energy.sum())
    assert energy.sum() > 0


def test_one_frame_shows_no_motion() -> None:
    assert not motion(moving_square(1)[:1]).any()
