"""Playback speed against its definition, worked out one frame at a time with exact fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from dali_pipes.clips.speed import Short, Timing, frame_indices, span, stride

VARIABLE = np.cumsum([0] + [10, 10, 70, 40, 5, 90, 33, 33] * 5).astype(np.int64) + 1234


def by_hand(total: int, start: int, frames: int, step: Fraction, short: Short) -> list[int]:
    numbers = [start + int(step * i + Fraction(1, 2)) for i in range(frames)]
    return [n % total for n in numbers] if short == "loop" else [min(n, total - 1) for n in numbers]


def nearest_by_hand(stamps: np.ndarray, start: int, frames: int, step: float, short: Short) -> list[int]:
    """For each frame's time, look through all frames; the earlier of two that are equally near."""
    period = (stamps[-1] - stamps[0]) / (len(stamps) - 1)
    length = stamps[-1] - stamps[0] + period
    found = []
    for i in range(frames):
        time = stamps[start] - stamps[0] + i * step * period
        time = time % length if short == "loop" else min(time, stamps[-1] - stamps[0])
        distances = [abs(stamp - stamps[0] - time) for stamp in stamps]
        found.append(distances.index(min(distances)))
    return found


@pytest.mark.parametrize("short", ["loop", "pad"])
@pytest.mark.parametrize("speed", ["1", "2", "3", "1/2", "3/2", "4/3", "0.7", "8"])
def test_constant_rate_is_a_stride_rounded_half_up(speed: str, short: Short) -> None:
    step = Fraction(speed)
    for total in (1, 5, 40):
        for start in range(total):
            got = frame_indices(Timing(total, 25.0), start, 16, float(step), short=short)
            assert got.dtype == np.int64
            assert got.tolist() == by_hand(total, start, 16, step, short), (total, start)


def test_the_examples_drawn_in_the_documentation() -> None:
    clip = frame_indices(Timing(100, 25.0), 0, 4, 1.5)
    assert clip.tolist() == [0, 2, 3, 5]
    assert (span(4, 1.0), span(4, 2.0), span(4, 1.5)) == (4, 7, 6)


@pytest.mark.parametrize("short", ["loop", "pad"])
@pytest.mark.parametrize("speed", [0.5, 1.0, 1.3, 2.0, 5.0])
def test_variable_rate_takes_the_frame_nearest_in_time(speed: float, short: Short) -> None:
    timing = Timing(len(VARIABLE), 24.0, VARIABLE)
    for start in range(len(VARIABLE)):
        got = frame_indices(timing, start, 9, speed, short=short)
        assert got.tolist() == nearest_by_hand(VARIABLE, start, 9, speed, short), start


def test_speed_is_true_in_time_where_the_rate_changes() -> None:
    # Ten frames 100 ms apart, then forty 25 ms apart; the mean period is 2000 / 49 ms.
    stamps = np.concatenate([np.arange(0, 1000, 100), np.arange(1000, 2001, 25)]).astype(np.int64)
    timing = Timing(len(stamps), 25.0, stamps)
    shown = stamps[frame_indices(timing, 0, 12, 2.0, fps=25.0)]
    assert np.abs(shown - np.arange(12) * 80).max() <= 50


def test_an_even_variable_rate_equals_the_constant_one() -> None:
    stamps = np.arange(50, dtype=np.int64) * 512 + 77
    for speed in (1.0, 2.0, 3.0):
        even = frame_indices(Timing(50, 25.0, stamps), 4, 16, speed)
        assert even.tolist() == frame_indices(Timing(50, 25.0), 4, 16, speed).tolist()


def test_reference_rate_makes_one_speed_the_same_time_in_every_video() -> None:
    assert stride(1.0, 50.0, 25.0) == 2.0
    assert stride(2.0, 30.0, None) == 2.0
    assert frame_indices(Timing(99, 50.0), 0, 4, 1.0, fps=25.0).tolist() == [0, 2, 4, 6]
    assert frame_indices(Timing(99, 12.5), 0, 6, 1.0, fps=25.0).tolist() == [0, 1, 1, 2, 2, 3]


def test_a_video_of_one_frame_is_shown_as_a_still() -> None:
    for stamps in (None, np.array([40], np.int64)):
        assert frame_indices(Timing(1, 25.0, stamps), 0, 5, 2.0).tolist() == [0] * 5


def test_a_clip_that_just_fits_does_not_wrap() -> None:
    assert frame_indices(Timing(31, 25.0), 0, 16, 2.0, short="skip").tolist() == list(range(0, 31, 2))
    with pytest.raises(ValueError, match="ends at frame 30 but the video has 30 frames"):
        frame_indices(Timing(30, 25.0), 0, 16, 2.0, short="skip")


@pytest.mark.parametrize(
    ("start", "speed", "words"),
    [(50, 1.0, "start=50 .* 0..49"), (-1, 1.0, "start=-1"), (0, 0.0, "speed=0.0"), (0, float("inf"), "speed=inf")],
)
def test_arguments_out_of_range_are_named(start: int, speed: float, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        frame_indices(Timing(50, 25.0), start, 4, speed)


def test_span_is_the_distance_from_the_first_to_the_last_frame_shown() -> None:
    for speed in (0.5, 1.0, 1.25, 1.5, 2.0, 3.7):
        for frames in (1, 2, 7, 16):
            clip = frame_indices(Timing(1000, 25.0), 0, frames, speed)
            assert span(frames, speed) == clip[-1] + 1
