"""Adapters to other tools, where they are installed: they must deliver what was asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bench_helpers import SIZE, requests_of, setting
from make_videos import make_video

from bench.check import MEAN, STD, compare, pictures
from bench.peers import CANDIDATES
from bench.peers.recipes import gather, normalise, small_shape, usual_clip
from bench.plan import Request
from bench.reference import frames_around

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


@pytest.mark.parametrize("name", [name for name in CANDIDATES if CANDIDATES[name].kind in ("usual", "best")])
def test_a_peer_delivers_the_frames_asked_for(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    reason = CANDIDATES[name].missing()
    if reason:
        pytest.skip(f"{name}: {reason}")
    path = make_video(tmp_path_factory.mktemp("peer") / "a.mp4", codec="h264", frames=24, size=(64, 48), bframes=2)
    requests = requests_of(path, 24)
    candidate = CANDIDATES[name](requests, setting(workers=0))
    try:
        batches = list(candidate.epoch([[0, 1], [2, 3]]))
    finally:
        candidate.close()
    check = compare(batches, requests, frames_around(requests, SIZE, reach=3), size=SIZE, lowest_psnr=24.0)
    assert check.right, check.reason


def test_a_module_that_cannot_be_imported_is_given_as_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CANDIDATES["decord-best"], "needs", ("no_such_module",))
    assert (
        CANDIDATES["decord-best"].missing() == "no_such_module: ModuleNotFoundError: No module named 'no_such_module'"
    )
