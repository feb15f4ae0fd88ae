"""Adapters to other tools, where they are installed: they must deliver what was asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from bench_helpers import FRAMES, SIZE, requests_of, setting
from make_videos import make_video

from bench.measure.check import MEAN, STD, compare, pictures
from bench.measure.plan import Request, draw, in_batches
from bench.measure.reference import frames_around
from bench.peers import CANDIDATES
from bench.peers.base import LoaderCandidate
from bench.peers.pyav import runs
from bench.peers.recipes import gather, normalise, small_shape, usual_clip
from dali_pipes import Corpus

REQUEST = Request(0, "a", 340, 256, (1.0, 2.0), (5, 4), ((5, 6, 7), (4, 6, 8)))


def test_unique_frames_are_gathered_into_views() -> None:
    unique = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1) + 4
    assert gather(unique, REQUEST).flatten().tolist() == [5, 6, 7, 4, 6, 8]


def test_normalised_clips_can_be_turned_back_into_pictures() -> None:
    frames = torch.randint(0, 256, (2, 1, 3, 4, 5, 3), dtype=torch.uint8)
    clips = normalise(frames, torch.float32, torch.device("cpu"))
    assert clips.shape == (2, 1, 3, 3, 4, 5) and clips.is_contiguous()
    assert torch.allclose(clips[0, 0, 1, 2], (frames[0, 0, 2, :, :, 1] / 255 - MEAN[1]) / STD[1], atol=1e-5)
    assert np.abs(pictures(clips) - frames.numpy()).max() < 1e-3


def test_the_usual_recipe_normalises_a_centre_crop() -> None:
    frames = torch.zeros(2, 48, 96, 3, dtype=torch.uint8)
    frames[:, :, 24:72] = 255
    clip = usual_clip(frames, 24)
    assert clip.shape == (3, 2, 24, 24)
    assert torch.allclose(clip[0, 0, 12, 12], torch.tensor((1 - MEAN[0]) / STD[0]))


def test_the_short_side_gets_the_size_asked_for() -> None:
    assert small_shape(REQUEST, 112) == (149, 112)


def delivered(name: str, requests: list[Request]) -> list[torch.Tensor]:
    candidate = CANDIDATES[name](requests, setting(workers=0))
    try:
        return list(candidate.epoch(in_batches(range(len(requests)), 2)))
    finally:
        candidate.close()


@pytest.mark.parametrize("name", [name for name in CANDIDATES if CANDIDATES[name].kind in ("usual", "best")])
def test_a_peer_delivers_the_frames_asked_for(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    reason = CANDIDATES[name].missing()
    if reason:
        pytest.skip(f"{name}: {reason}")
    path = make_video(tmp_path_factory.mktemp("peer") / "a.mp4", codec="h264", frames=24, size=(64, 48), bframes=2)
    requests = requests_of(path, 24)
    batches = delivered(name, requests)
    check = compare(batches, requests, frames_around(requests, SIZE, reach=3), size=SIZE, lowest_psnr=24.0)
    assert check.right, check.reason


def test_a_module_that_cannot_be_imported_is_given_as_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CANDIDATES["decord-best"], "needs", ("no_such_module",))
    assert (
        CANDIDATES["decord-best"].missing() == "no_such_module: ModuleNotFoundError: No module named 'no_such_module'"
    )


@pytest.mark.parametrize("gop", [1, 5, 100])
@pytest.mark.parametrize("name", ["pyav-usual", "pyav-best"])
def test_pyav_finds_frames_on_either_side_of_any_key_frame(name: str, gop: int, tmp_path: Path) -> None:
    if missing := CANDIDATES[name].missing():
        pytest.skip(missing)
    path = make_video(tmp_path / "a.mp4", codec="h264", frames=30, size=(64, 48), bframes=2, gop=gop)
    far = [Request(0, str(path), 64, 48, (1.0, 2.0), (at, 23), (tuple(range(at, at + 4)), (23, 25, 27, 29)))
           for at in range(0, 26, 3)]  # fmt: skip
    batches = delivered(name, far)
    check = compare(batches, far, frames_around(far, SIZE, reach=3), size=SIZE, lowest_psnr=24.0)
    assert check.right, check.reason


def test_runs_are_cut_only_where_a_key_frame_lies_between() -> None:
    assert runs([1, 2, 8, 9, 30], [0, 10, 20]) == [[1, 2, 8, 9], [30]]
    assert runs([1, 2, 20, 21], [0, 20]) == [[1, 2], [20, 21]]
    assert runs([1, 9, 30], []) == [[1, 9, 30]]


def test_batches_are_prepared_ahead_as_far_as_asked() -> None:
    ahead = setting(workers=1, prefetch=5)
    candidate = CANDIDATES["pyav-best"]([REQUEST], ahead)
    assert isinstance(candidate, LoaderCandidate) and candidate.loader.prefetch_factor == 5
    candidate.close()


@pytest.mark.parametrize(
    "video",
    [
        "kinetics400/flipping_a_pancake.mkv",
        "kinetics400/SOX5yA1l24A.mp4",
        "odd/torchcodec__nasa_13013_rotated.mp4",
        "odd/torchcodec__test_non_zero_start.mp4",
    ],
)
def test_pyav_finds_the_frames_of_real_videos_and_turns_them_upright(video: str, videos: Path, tmp_path: Path) -> None:
    if missing := CANDIDATES["pyav-best"].missing():
        pytest.skip(missing)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / Path(video).name).symlink_to(videos / video)
    corpus = Corpus.build(tmp_path, "folders", progress=False)
    requests = draw([(0, corpus[0])], count=3, frames=FRAMES, speeds=(1, 2), window="independent", seed=2)
    truth = frames_around(requests, SIZE, reach=3)
    for name in ("pyav-usual", "pyav-best"):
        check = compare(delivered(name, requests), requests, truth, size=SIZE, lowest_psnr=24.0)
        # In one of them too little moves to know a frame's number for certain, but the pictures are those asked for.
        assert not check.wrong and check.psnr_nearest > 40, f"{name}: {check}"
