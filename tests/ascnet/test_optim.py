from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from ascnet.config import OptimConfig
from ascnet.optim import build_optimizer, peak_rate, rate_at


def test_rate_rises_linearly_then_falls_along_a_cosine_to_its_last_share() -> None:
    rates = [rate_at(step, 110, 10, 2.0, 0.001) for step in range(111)]
    assert rates[:3] == pytest.approx([0.2, 0.4, 0.6]) and rates[9] == rates[10] == pytest.approx(2.0)
    assert rates[60] == pytest.approx(2.0 * (0.001 + 0.999 / 2))
    assert rates[110] == pytest.approx(0.002)
    assert rates[35] == pytest.approx(2.0 * (0.001 + 0.999 * (1 + math.cos(math.pi / 4)) / 2))


def test_rate_is_per_64_samples_unless_it_is_taken_as_it_stands() -> None:
    assert peak_rate(OptimConfig(lr=0.1), 256) == pytest.approx(0.4)
    assert peak_rate(OptimConfig(lr=0.1, scale_lr=False), 256) == pytest.approx(0.1)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_biases_and_scales_may_be_left_undecayed(name: str) -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    model[0].weight.requires_grad_(False)
    everything = build_optimizer(model, OptimConfig(name=name, weight_decay=0.5))  # type: ignore[arg-type]
    assert [len(group["params"]) for group in everything.param_groups] == [3]
    model[0].weight.requires_grad_(True)
    split = build_optimizer(model, OptimConfig(name=name, weight_decay=0.5, decay_all=False))  # type: ignore[arg-type]
    assert [(len(g["params"]), g["weight_decay"]) for g in split.param_groups] == [(1, 0.5), (3, 0.0)]
    assert type(split) is {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[name]
