from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from ascnet.ema import momentum_at, update


def test_momentum_rises_along_a_cosine_from_its_start_to_its_end() -> None:
    assert momentum_at(0, 100, 0.996) == pytest.approx(0.996)
    assert momentum_at(100, 100, 0.996) == pytest.approx(1.0)
    for step in (1, 37, 50, 99):
        assert momentum_at(step, 100, 0.99) == pytest.approx(1 - 0.01 * (math.cos(math.pi * step / 100) + 1) / 2)
    assert momentum_at(50, 100, 0.9, 0.98) == pytest.approx(0.94)


def test_update_moves_parameters_and_leaves_buffers_alone() -> None:
    target, online = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    with torch.no_grad():
        online.weight.fill_(5.0)
    online.running_mean.fill_(7.0)  # type: ignore[union-attr]
    update(target, online, 0.75)
    assert target.weight.tolist() == pytest.approx([2.0] * 3)
    assert target.running_mean.tolist() == [0.0] * 3  # type: ignore[union-attr]
    assert online.weight.tolist() == [5.0] * 3
