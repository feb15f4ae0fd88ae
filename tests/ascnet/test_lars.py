"""LARS against the update written out in float64, a number at a time."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from ascnet.lars import LARS

SETTINGS = {"momentum": 0.9, "weight_decay": 0.05, "trust_coefficient": 0.01}


def model(dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv3d(2, 3, 2), nn.BatchNorm3d(3), nn.Flatten(), nn.Linear(24, 4))
    return net.to(dtype)


def clips(step: int, dtype: torch.dtype = torch.float64) -> Tensor:
    draws = torch.Generator().manual_seed(step)
    return torch.randn(5, 2, 3, 3, 3, generator=draws, dtype=torch.float64).to(dtype)


def rate(step: int) -> float:
    return 0.5 + 0.4 * math.cos(step)


def train(net: nn.Module, optimizer: LARS, steps: range, dtype: torch.dtype = torch.float64) -> None:
    for step in steps:
        optimizer.zero_grad()
        net(clips(step, dtype)).square().mean().backward()
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        optimizer.step()


def literal(steps: int) -> list[list[float]]:
    """Weights after so many steps, by nothing but Python's numbers; autograd gives the gradients only."""
    net = model()
    params = list(net.parameters())
    speeds = [[0.0] * parameter.numel() for parameter in params]
    for step in range(steps):
        net.zero_grad()
        net(clips(step)).square().mean().backward()
        for parameter, speed in zip(params, speeds, strict=True):
            weights, gradient = parameter.data.flatten().tolist(), parameter.grad.flatten().tolist()  # type: ignore[union-attr]
            if parameter.ndim > 1:
                gradient = [g + SETTINGS["weight_decay"] * w for g, w in zip(gradient, weights, strict=True)]
                length, slope = math.sqrt(sum(w * w for w in weights)), math.sqrt(sum(g * g for g in gradient))
                trust = SETTINGS["trust_coefficient"] * length / slope if length > 0 and slope > 0 else 1.0
                gradient = [trust * g for g in gradient]
            for place, g in enumerate(gradient):
                speed[place] = SETTINGS["momentum"] * speed[place] + rate(step) * g
                weights[place] -= speed[place]
            parameter.data = torch.tensor(weights, dtype=torch.float64).view_as(parameter)
    return [parameter.flatten().tolist() for parameter in params]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)], ids=["fp64", "fp32"])
def test_weights_after_ten_steps_are_those_of_the_update_written_out(dtype: torch.dtype, tolerance: float) -> None:
    net = model(dtype)
    train(net, LARS(net.parameters(), lr=1.0, **SETTINGS), range(10), dtype)
    for parameter, expected in zip(net.parameters(), literal(10), strict=True):
        assert parameter.flatten().tolist() == pytest.approx(expected, rel=tolerance, abs=tolerance)


def test_first_step_of_a_weight_has_its_share_of_the_weights_length_whatever_the_gradient() -> None:
    for factor in (1e-6, 1.0, 1e6):
        weight, bias = nn.Parameter(torch.randn(4, 5)), nn.Parameter(torch.ones(5))
        before = weight.detach().clone()
        weight.grad, bias.grad = factor * torch.randn(4, 5), torch.full((5,), 0.25)
        LARS([weight, bias], lr=2.0, trust_coefficient=0.01).step()
        assert float((weight.detach() - before).norm() / before.norm()) == pytest.approx(0.02, rel=1e-5)
        assert bias.tolist() == pytest.approx([0.5] * 5)


def test_biases_and_scales_are_never_decayed() -> None:
    weight, scale = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(3))
    weight.grad, scale.grad = torch.zeros(2, 2), torch.zeros(3)
    LARS([weight, scale], lr=1.0, weight_decay=0.5, trust_coefficient=0.1).step()
    assert scale.tolist() == [1.0] * 3 and weight.flatten().tolist() == pytest.approx([0.9] * 4)


@pytest.mark.parametrize("zero", ["weight", "gradient"])
def test_weight_or_gradient_of_length_zero_moves_without_adaptation(zero: str) -> None:
    weight = nn.Parameter(torch.zeros(2, 2) if zero == "weight" else torch.ones(2, 2))
    weight.grad = torch.zeros(2, 2) if zero == "gradient" else torch.ones(2, 2)
    LARS([weight], lr=0.5).step()
    assert weight.flatten().tolist() == ([-0.5] * 4 if zero == "weight" else [1.0] * 4)


def test_training_goes_on_bit_for_bit_from_its_saved_state() -> None:
    whole = model(torch.float32)
    train(whole, LARS(whole.parameters(), lr=1.0, **SETTINGS), range(8), torch.float32)
    parts = model(torch.float32)
    first = LARS(parts.parameters(), lr=1.0, **SETTINGS)
    train(parts, first, range(5), torch.float32)
    resumed = model(torch.float32)
    resumed.load_state_dict(parts.state_dict())
    second = LARS(resumed.parameters(), lr=9.0, momentum=0.1)
    second.load_state_dict(first.state_dict())
    train(resumed, second, range(5, 8), torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_parameters_without_a_gradient_stay_and_get_no_state() -> None:
    used, unused = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    used.grad = torch.ones(2, 2)
    optimizer = LARS([used, unused], lr=1.0)
    optimizer.step()
    assert torch.equal(unused, torch.ones(2, 2)) and unused not in optimizer.state and used in optimizer.state
