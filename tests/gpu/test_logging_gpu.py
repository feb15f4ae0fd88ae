"""What only a GPU can tell: its load and memory, its kernels in a trace; and LARS there and on the CPU."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from ascnet.lars import LARS
from ascnet.logs.monitor import GIB, Monitor
from ascnet.logs.profile import Profiler, region

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]


def test_load_and_memory_of_a_busy_gpu_are_seen() -> None:
    pytest.importorskip("pynvml", reason="needs the extra monitor")
    device, said = torch.device("cuda", torch.cuda.current_device()), list[str]()
    factor = torch.randn(4096, 4096, device=device)
    seen: dict[str, float] = {}
    with Monitor(device, 0.1, say=said.append) as monitor:
        deadline = time.monotonic() + 20
        while seen.get("gpu/sm_load", 0.0) < 0.2 and time.monotonic() < deadline:
            until = time.monotonic() + 0.5
            while time.monotonic() < until:
                factor @ factor
                torch.cuda.synchronize()
            seen = monitor.read()
    assert 0.2 <= seen["gpu/sm_load"] <= 1, said
    assert seen["gpu/memory_used_gib"] > seen["gpu/reserved_peak_gib"] >= seen["gpu/allocated_peak_gib"]
    assert seen["gpu/allocated_peak_gib"] >= 4 * factor.numel() / GIB
    # A GPU may have no video decoder; then that is said, and nothing else is missing.
    assert 0 <= seen["gpu/decoder_load"] <= 1 if not said else "decoder" in said[0] and len(said) == 1


def test_trace_has_the_kernels_of_its_regions(tmp_path: Path) -> None:
    device, said = torch.device("cuda", torch.cuda.current_device()), list[str]()
    factor = torch.randn(512, 512, device=device)
    with Profiler(tmp_path, (2, 3), device, say=said.append) as profiler:
        for step in range(4):
            profiler.advance(step)
            with region("online forward"):
                factor @ factor
    (path,) = (tmp_path / "profile").iterdir()
    events: list[dict[str, Any]] = json.loads(path.read_text())["traceEvents"]
    assert sum(event.get("cat") == "kernel" for event in events) >= 2, said
    named = [
        event for event in events if event.get("name") == "online forward" and event.get("cat") == "user_annotation"
    ]
    assert len(named) == 2


def test_lars_makes_the_same_steps_on_gpu_and_cpu() -> None:
    torch.manual_seed(0)
    shapes = [(8, 4, 3, 3, 3), (8,), (16, 8), (16,)]
    start = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    slopes = [[torch.randn(shape, dtype=torch.float64) for shape in shapes] for _ in range(5)]
    ends = []
    for device in ("cpu", "cuda"):
        params = [torch.nn.Parameter(value.to(device, copy=True)) for value in start]
        optimizer = LARS(params, lr=0.5, weight_decay=0.01, trust_coefficient=0.1)
        for gradients in slopes:
            for parameter, gradient in zip(params, gradients, strict=True):
                parameter.grad = gradient.to(device)
            optimizer.step()
        ends.append([parameter.detach().cpu() for parameter in params])
    for a, b in zip(*ends, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
