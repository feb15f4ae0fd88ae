"""`profile_loader` with a training step on a GPU, whose work goes on after the call returns."""

from __future__ import annotations

import pytest
import torch

from bench import profile_loader

pytestmark = pytest.mark.gpu


def test_a_step_on_the_gpu_is_waited_for_and_named() -> None:
    device = torch.device("cuda")
    weights = torch.randn(4096, 4096, device=device)

    def step(batch: torch.Tensor) -> None:
        product = batch.to(device).sum() * weights
        for _ in range(20):
            product = product @ weights

    batches = [torch.ones(4, 8) for _ in range(100)]
    profile = profile_loader(batches, step=step, batches=20, warmup=3)
    assert profile.verdict.stage == "step"
    # Without waiting the step would seem to take no longer than its launches.
    assert profile.observed.stage("step").held * profile.rate > 0.8
    assert all(name.startswith("gpu/") for name in profile.gpu)
