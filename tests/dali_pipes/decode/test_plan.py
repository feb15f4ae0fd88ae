"""Ranges of packets, planned before any reading."""

from __future__ import annotations

import numpy as np

from dali_pipes.decode.plan import plan

KEYS = np.array([0, 48, 96], np.int64)
STAMPS = KEYS * 512 + 7


def ranges(*frames: int, keys: np.ndarray = KEYS, stamps: np.ndarray = STAMPS) -> list[tuple[int, int, list[int]]]:
    return [(run.key, run.timestamp, run.wanted.tolist()) for run in plan(np.array(frames, np.int64), keys, stamps)]


def test_frames_of_one_group_are_one_range_from_its_key_frame() -> None:
    assert ranges(52, 57) == [(48, 48 * 512 + 7, [52, 57])]


def test_a_later_group_is_a_range_of_its_own_and_what_lies_between_is_left_out() -> None:
    assert ranges(52, 57, 101, 104) == [(48, 24583, [52, 57]), (96, 49159, [101, 104])]


def test_a_key_frame_itself_begins_its_range() -> None:
    assert [run[0] for run in ranges(0, 46, 48, 94, 96)] == [0, 48, 96]


def test_reading_goes_on_without_a_seek_where_a_seek_would_pass_over_nothing() -> None:
    assert [run[0] for run in ranges(46, 47, 48, 49)] == [0]
    assert [run[0] for run in ranges(95, 96)] == [48]


def test_all_frames_are_wanted_once_and_every_range_can_be_decoded() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        keys = np.unique(np.append(0, rng.integers(0, 300, 10)))
        frames = np.unique(rng.integers(0, 300, 12))
        runs = plan(frames, keys, keys * 2)
        assert np.concatenate([run.wanted for run in runs]).tolist() == frames.tolist()
        for run in runs:
            assert run.key == keys[keys <= run.wanted[0]].max()
            assert run.timestamp == 2 * run.key
            # No key frame after the start could have saved anything between two wanted frames of the range.
            assert all(
                not ((keys > a + 1) & (keys <= b)).any() for a, b in zip(run.wanted, run.wanted[1:], strict=False)
            )


def test_no_frames_need_no_range() -> None:
    assert ranges() == []
