"""What is drawn, and that it is drawn from the key alone. What the graph makes of it: test_pipeline.py."""

from __future__ import annotations

import numpy as np
import pytest

from dali_pipes import Augment, DataError, Draws, Key
from dali_pipes.augment import PLAIN, center_crop, on_pixels, pack, random_region
from dali_pipes.clips.random import Purpose, generator


def many(augment: Augment, count: int = 2000, width: int = 320, height: int = 240) -> np.ndarray:
    """Draws of many positions, (count, 10), in the order of Draws' fields."""
    keys = (Key(0, 0, position) for position in range(count))
    return np.array([augment.draw(generator(key, Purpose.AUGMENT), width, height) for key in keys], np.float64)


def test_regions_keep_to_the_area_and_ratio_asked_for() -> None:
    left, top, right, bottom = many(Augment(), width=300, height=300).T[:4]
    assert min(left.min(), top.min()) >= 0
    assert max(right.max(), bottom.max()) <= 1 + 1e-9
    area = (right - left) * (bottom - top)
    ratio = (right - left) / (bottom - top)
    assert 0.4 - 1e-6 <= area.min() < 0.42
    assert 0.9 < area.max() <= 1 + 1e-6
    assert 0.75 - 1e-6 <= ratio.min() < 0.76
    assert 1.32 < ratio.max() <= 4 / 3 + 1e-6
    assert abs(np.log(ratio).mean()) < 0.03  # even in the logarithm
    # Regions lie anywhere in the room that they leave.
    for low, high in ((left, right), (top, bottom)):
        place = low[high - low < 0.95] / (1 - (high - low))[high - low < 0.95]
        assert abs(place.mean() - 0.5) < 0.03
        assert place.min() < 0.02 and place.max() > 0.98


@pytest.mark.parametrize(("width", "height"), [(1000, 20), (20, 1000)])
def test_where_no_region_fits_the_centred_one_of_the_nearest_ratio_is_taken(width: int, height: int) -> None:
    region = random_region(np.random.default_rng(0), width, height, (0.9, 1.0), (3 / 4, 4 / 3))
    left, top, right, bottom = region
    assert left == pytest.approx(1 - right)
    assert top == pytest.approx(1 - bottom)
    ratio = (right - left) * width / ((bottom - top) * height)
    assert ratio == pytest.approx(4 / 3 if width > height else 3 / 4)
    assert max(right - left, bottom - top) == pytest.approx(1)


def test_the_same_numbers_are_used_up_whether_or_not_a_region_fits() -> None:
    fits, never = np.random.default_rng(3), np.random.default_rng(3)
    random_region(fits, 320, 240, (0.4, 1.0), (3 / 4, 4 / 3))
    random_region(never, 1000, 20, (0.9, 1.0), (3 / 4, 4 / 3))
    assert fits.random() == never.random()


def test_probabilities_and_ranges_of_colours() -> None:
    augment = Augment(flip=0.3, brightness=0.4, contrast=0.2, saturation=0.6, hue=0.1, grayscale=0.25, blur=0.5)
    draws = many(augment)
    flip, brightness, contrast, saturation, hue, blur = draws.T[4:]
    assert abs(flip.mean() - 0.3) < 0.04
    assert abs((saturation == 0).mean() - 0.25) < 0.04
    assert abs((blur > 0).mean() - 0.5) < 0.04
    assert blur[blur > 0].min() >= 0.1 and blur.max() <= 2.0
    for values, low, high in (
        (brightness, 0.6, 1.4),
        (contrast, 0.8, 1.2),
        (saturation[saturation > 0], 0.4, 1.6),
        (hue, -36, 36),
    ):
        assert low <= values.min() < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < values.max() <= high


def test_without_jitter_colours_stay() -> None:
    draws = many(Augment(jitter=0.0, grayscale=0.0), 100)
    assert (draws[:, 5:8] == 1).all()
    assert (draws[:, 8:] == 0).all()
    some = many(Augment(jitter=0.8, grayscale=0.0))
    assert abs((some[:, 5] == 1).mean() - 0.2) < 0.04


def test_draws_are_a_function_of_the_key_and_the_view() -> None:
    def draw(key: Key, view: int = 0) -> Draws:
        return Augment().draw(generator(key, Purpose.AUGMENT, view=view), 320, 240)

    key = Key(1, 2, 3)
    assert draw(key) == draw(key)
    others = [Key(2, 2, 3), Key(1, 3, 3), Key(1, 2, 4), Key(1, 2, 3, 1)]
    assert all(draw(other) != draw(key) for other in others)
    assert draw(key, view=1) != draw(key)


def test_a_probability_that_changes_leaves_the_other_draws_alone() -> None:
    some, none = many(Augment(blur=1.0, flip=1.0), 50), many(Augment(blur=0.0, flip=0.0), 50)
    assert np.array_equal(some[:, :4], none[:, :4])
    assert np.array_equal(some[:, 5:9], none[:, 5:9])


@pytest.mark.parametrize(("width", "height"), [(320, 240), (240, 320), (96, 96), (7, 1000)])
def test_the_centre_crop_is_the_largest_centred_square(width: int, height: int) -> None:
    draws = center_crop(width, height)
    side = min(width, height)
    assert (draws.right - draws.left) * width == pytest.approx(side)
    assert (draws.bottom - draws.top) * height == pytest.approx(side)
    # On whole pixels, and centred as near as they allow.
    left, top = draws.left * width, draws.top * height
    assert left == pytest.approx((width - side) // 2) and top == pytest.approx((height - side) // 2)
    assert draws[4:] == Draws()[4:]


def test_draws_are_handed_to_the_graph_in_its_order() -> None:
    inputs = pack([Draws(0.1, 0.2, 0.8, 0.9, True, 1.1, 1.2, 1.3, 40.0, 0.5), Draws()])
    assert np.allclose(inputs.region, [[0.2, 0.1, 0.9, 0.8], [0, 0, 1, 1]])
    assert inputs.flip.tolist() == [[1], [0]]
    assert np.allclose(inputs.colour, [[1.1, 1.2, 1.3, 40], [1, 1, 1, 0]])
    assert np.allclose(inputs.blur, [[0.5], [0]])
    assert (inputs.region.dtype, inputs.flip.dtype) == (np.float32, np.int32)


def test_the_graph_leaves_out_colours_where_none_can_change() -> None:
    assert Augment().colours
    assert Augment(jitter=0, grayscale=0.1).colours
    assert not PLAIN.colours
    assert not Augment(brightness=0, contrast=0, saturation=0, hue=0, grayscale=0).colours


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"flip": 1.5}, r"augment\.flip=1\.5 must lie in \[0, 1\]"),
        ({"brightness": -0.1}, r"augment\.brightness=-0\.1"),
        ({"hue": 0.6}, r"augment\.hue=0\.6 must lie in \[0, 0\.5\]"),
        ({"crop_area": (0.0, 1.0)}, r"augment\.crop_area=\(0\.0, 1\.0\)"),
        ({"crop_area": (0.5, 1.1)}, r"augment\.crop_area"),
        ({"crop_ratio": (2.0, 1.0)}, r"augment\.crop_ratio=\(2\.0, 1\.0\) must be \(low, high\)"),
        ({"blur_sigma": (0.0, 1.0)}, r"augment\.blur_sigma"),
    ],
)
def test_values_out_of_range_are_named(options: dict[str, object], words: str) -> None:
    with pytest.raises(DataError, match=words):
        Augment(**options)  # type: ignore[arg-type]


def test_whole_pixels_of_the_right_number_are_told_from_all_else() -> None:
    assert on_pixels(center_crop(149, 112), 149, 112, 112)
    assert on_pixels(Draws(), 64, 64, 64)
    assert not on_pixels(Draws(), 64, 64, 63)
    assert not on_pixels(center_crop(149, 112), 149, 112, 96)
    half = Draws(18.5 / 149, 0.0, 130.5 / 149, 1.0)
    assert not on_pixels(half, 149, 112, 112)
