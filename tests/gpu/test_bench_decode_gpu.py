"""Every decoder on the GPU that is installed delivers the frames asked for and leaves them there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from bench_decode_helpers import FRAMES, job_of
from make_videos import make_video, read_number

from bench.__main__ import main
from bench.decoders import DECODERS
from dali_pipes import Corpus

CUDA = [name for name, kind in DECODERS.items() if kind.where == "cuda"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    make_video(root / "a" / "one.mp4", codec="h264", frames=40, size=(160, 144), bframes=2)
    make_video(root / "a" / "two.mkv", codec="h264", frames=30, size=(144, 176), gop=5)
    make_video(root / "b" / "three.mp4", codec="hevc", frames=24, size=(160, 144))
    return root


@pytest.mark.parametrize("name", CUDA)
def test_frames_asked_for_are_delivered_on_the_gpu(name: str, folder: Path) -> None:
    job = replace(job_of(Corpus.build(folder, "folders", progress=False)), device="cuda:0")
    reason = DECODERS[name].missing(job)
    if reason:
        pytest.skip(f"{name}: {reason}")
    decoder = DECODERS[name](job)
    batches = [[5, 0], [3], [1, 1], [4]]
    try:
        for _ in range(2):
            for batch, samples in zip(batches, decoder.epoch(batches), strict=True):
                for number, parts in zip(batch, samples, strict=True):
                    request = job.requests[number]
                    for numbers, frames in parts:
                        tensor = frames if isinstance(frames, torch.Tensor) else torch.from_dlpack(frames)
                        assert tensor.is_cuda and tensor.dtype is torch.uint8
                        assert tensor.shape == (len(numbers), request.height, request.width, 3)
                        assert [read_number(picture) for picture in tensor.cpu().numpy()] == list(numbers)
                    assert sorted({n for numbers, _ in parts for n in numbers}) == request.unique
    finally:
        decoder.close()


def test_the_command_times_them_beside_those_on_the_cpu(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    arguments = ["--frames", str(FRAMES), "--clips", "8", "--rounds", "2", "--workers", "2"]
    assert main(["decode", str(folder), *arguments, "--device", "cuda", "--output", str(output)]) == 0
    result = json.loads(output.read_text())
    summary = result["windows"]["independent"]["summary"]
    assert {"ours-cpu", "ours-cuda"} <= set(summary)
    assert result["figures"]["decode ours-cuda / ours-cpu (independent)"]["unit"] == "x"
