"""Candidates are compared with a full decode before they are timed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from bench_helpers import SIZE, Sequential, requests_of, setting
from make_videos import make_video

from bench.commands.loader import check_all
from bench.measure.check import Check
from bench.measure.plan import Request
from bench.measure.reference import RESIZES, frames_around


@pytest.fixture(scope="module")
def requests(tmp_path_factory: pytest.TempPathFactory) -> list[Request]:
    path = make_video(tmp_path_factory.mktemp("check") / "a.avi", codec="mjpeg", frames=24, size=(64, 48))
    return requests_of(path, 24)


def checked(candidate: type[Sequential], requests: Sequence[Request]) -> Check:
    opened = {"it": candidate(requests, setting())}
    return check_all(opened, requests, range(len(requests)), setting(), 24.0)["it"]


def test_the_right_frames_pass(requests: list[Request]) -> None:
    check = checked(Sequential, requests)
    assert check.right and check.frames == 4 * 2 * 4 and check.told_apart > 0 and check.psnr > 50


@pytest.mark.parametrize("way", range(len(RESIZES)), ids=list(RESIZES))
def test_the_right_frames_pass_whichever_way_they_are_resized(requests: list[Request], way: int) -> None:
    check = checked(type("Other", (Sequential,), {"way": way}), requests)
    assert check.right and check.psnr_nearest > 50
    assert check.resize == list(RESIZES)[way]


@pytest.mark.parametrize("late", [-1, 1, 2])
def test_other_frames_are_found_and_named(requests: list[Request], late: int) -> None:
    check = checked(type("Late", (Sequential,), {"late": late}), requests)
    assert not check.right and check.wrong > 0
    path, number, nearest = check.examples[0]
    assert path == Path(requests[0].path).name and nearest == number + late
    assert f"{check.wrong} of 32 frames are others" in check.reason


def test_one_other_frame_is_enough_to_be_wrong(requests: list[Request]) -> None:
    class Slip(Sequential):
        def sample(self, request: Request) -> torch.Tensor:
            clips = super().sample(request)
            clips[1, 1] = clips[1, 2]
            return clips

    assert not checked(Slip, requests).right


def test_another_picture_is_wrong(requests: list[Request]) -> None:
    class Negative(Sequential):
        def sample(self, request: Request) -> torch.Tensor:
            return 255 - super().sample(request)

    assert "another picture" in checked(Negative, requests).reason


def test_values_that_are_not_numbers_are_wrong(requests: list[Request]) -> None:
    class Nothing(Sequential):
        def epoch(self, batches):  # type: ignore[no-untyped-def]
            return (batch * float("nan") for batch in super().epoch(batches))

    assert not checked(Nothing, requests).right


def test_a_wrong_shape_and_a_missing_sample_are_wrong(requests: list[Request]) -> None:
    class Swapped(Sequential):
        def epoch(self, batches):  # type: ignore[no-untyped-def]
            return (batch.transpose(2, 3) for batch in super().epoch(batches))

    class Short(Sequential):
        def epoch(self, batches):  # type: ignore[no-untyped-def]
            return super().epoch(batches[:-1])

    assert "shape" in checked(Swapped, requests).reason
    assert "2 samples delivered, 4 asked for" in checked(Short, requests).reason


def test_a_candidate_that_raises_is_wrong_and_does_not_stop_the_others(requests: list[Request]) -> None:
    class Broken(Sequential):
        def sample(self, request: Request) -> torch.Tensor:
            raise RuntimeError("cannot seek")

    opened = {"broken": Broken(requests, setting()), "right": Sequential(requests, setting())}
    checks = check_all(opened, requests, range(len(requests)), setting(), 24.0)
    assert checks["broken"].reason == "RuntimeError: cannot seek"
    assert checks["right"].right


def test_frames_of_a_still_video_cannot_vouch_for_anybody(tmp_path: Path) -> None:
    source = make_video(tmp_path / "one.avi", codec="mjpeg", frames=1, size=(64, 48))
    parts = frames_around([_request(source, (0,))], SIZE, reach=0)
    still = {path: {number: frames[0] for number in range(24)} for path, frames in parts.items()}
    picture = torch.from_numpy(still[str(source)][0][0])
    from bench.measure.check import compare
    from bench.peers.recipes import normalise

    batch = normalise(picture.expand(1, 1, 1, *picture.shape), torch.float32, torch.device("cpu"))
    check = compare([batch], [_request(source, (3,))], still, size=SIZE, lowest_psnr=24.0)
    assert "could be told from its neighbours" in check.reason


def _request(path: Path, numbers: tuple[int, ...]) -> Request:
    return Request(0, str(path), 64, 48, (1.0,), (numbers[0],), (numbers,))
