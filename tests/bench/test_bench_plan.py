"""The requests that every candidate gets."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from bench.measure import plan
from dali_pipes.clips.speed import Timing, frame_indices
from dali_pipes.errors import DataError


@dataclass
class Row:
    uri: str = "a.mp4"
    frames: int = 40
    constant: bool = True
    rotation: int = 0
    width: int = 64
    height: int = 48


def drawn(rows: list[Row], window: plan.Window = "independent", count: int = 20, seed: int = 0) -> list[plan.Request]:
    return plan.draw(list(enumerate(rows)), count=count, frames=8, speeds=(1, 2), window=window, seed=seed)


@pytest.mark.parametrize("speed", [0.5, 1, 1.5, 2, 4])
def test_frame_numbers_are_those_of_the_loader(speed: float) -> None:
    assert list(plan.frame_numbers(3, 8, speed)) == frame_indices(Timing(100, 25.0), 3, 8, speed).tolist()


def test_all_frames_lie_in_the_video_and_both_ends_are_reached() -> None:
    requests = drawn([Row(frames=16)], count=200)
    numbers = {number for request in requests for number in request.unique}
    assert numbers == set(range(16))
    assert {request.starts[1] for request in requests} == {0, 1}


def test_views_share_their_first_frame_only_in_a_shared_window() -> None:
    assert all(request.starts[0] == request.starts[1] for request in drawn([Row()], "shared"))
    assert any(request.starts[0] != request.starts[1] for request in drawn([Row()]))


def test_every_video_comes_before_any_comes_again() -> None:
    rows = [Row(uri=f"{i}.mp4") for i in range(5)]
    assert sorted(request.video for request in drawn(rows, count=5)) == [0, 1, 2, 3, 4]


def test_the_seed_alone_decides_the_plan() -> None:
    assert drawn([Row()], seed=3) == drawn([Row()], seed=3) != drawn([Row()], seed=4)


def test_videos_that_are_too_short_or_of_variable_rate_are_left_out() -> None:
    rows = [Row(frames=14), Row(constant=False), Row()]
    assert {request.video for request in drawn(rows)} == {2}
    with pytest.raises(DataError, match="15 frames"):
        drawn(rows[:2])


def test_the_size_is_that_of_the_upright_picture() -> None:
    request = drawn([Row(rotation=90)])[0]
    assert (request.width, request.height) == (48, 64)


def test_the_digest_depends_on_the_frames_and_not_on_where_the_files_are() -> None:
    requests = drawn([Row()])
    moved = [replace(request, path=f"/elsewhere/{request.path}") for request in requests]
    assert plan.digest(requests) == plan.digest(moved) != plan.digest(drawn([Row()], seed=1))


def test_batches_keep_order_and_a_smaller_last_one() -> None:
    assert plan.in_batches([3, 1, 2, 0, 4], 2) == [[3, 1], [2, 0], [4]]
