"""`python -m bench bank` on a GPU: the kernel takes part, and what is free of the GPU is what counts."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from bench.__main__ import main
from bench.measure.bandwidth import cache_bytes, free_bytes, measure

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]
GPU = torch.device("cuda")


def test_bandwidth_is_that_of_the_gpu_and_its_buffer_is_given_back() -> None:
    before = torch.cuda.memory_allocated()
    found = measure(GPU)
    # No GPU of compute capability 8.0 is below this, and none is above.
    assert 1e11 < found.best < 5e13
    assert found.cache == cache_bytes(GPU) > 0 and found.buffer > found.cache
    assert torch.cuda.memory_allocated() == before


@pytest.mark.skipif(
    find_spec("triton") is None or (torch.cuda.is_available() and torch.cuda.get_device_capability() < (8, 0)),
    reason="the kernel needs triton and a GPU of compute capability 8.0",
)
def test_kernel_is_compared_and_timed_in_every_number_format(tmp_path: Path) -> None:
    command = ["bank", "--rows", "20000", str(free_bytes(GPU)), "--dim", "64", "--batch", "1", "64", "--rounds", "2"]
    assert main([*command, "--device", "cuda", "--output", str(tmp_path / "r.json")]) == 0
    result = json.loads((tmp_path / "r.json").read_text())
    assert len(result["left_out"]) == 3
    for bank in result["banks"]:
        assert "triton" in bank["plan"] and "ours" not in bank["wrong"]
        for part in bank["batches"].values():
            assert min(part["share_of_bandwidth"]["ours"]) > 0
            assert min(part["updated_rows_per_second"]["ours"]) > 0
