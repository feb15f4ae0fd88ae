from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from ascnet.config import Config, OptimConfig
from ascnet.encoders import build_encoder
from ascnet.errors import CheckpointError, ConfigError
from ascnet.lars import LARS
from ascnet.model import ASCNet
from ascnet.optim import build_optimizer, load_state, peak_rate, rate_at


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


def test_rise_may_start_from_a_share_of_the_peak() -> None:
    rates = [rate_at(step, 110, 10, 2.0, 0.001, 0.5) for step in range(10)]
    assert rates[0] == pytest.approx(1.1) and rates[4] == pytest.approx(1.5) and rates[9] == pytest.approx(2.0)
    assert rate_at(0, 110, 10, 2.0, 0.001, 1.0) == 2.0


@pytest.fixture
def model() -> ASCNet:
    encoder = build_encoder("r3d10", width=0.0625)
    return ASCNet(encoder, projector_hidden=4, projector_dim=3, predictor_hidden=4)


def decays(model: nn.Module, config: OptimConfig) -> dict[str, float]:
    """Weight decay of every parameter by name, as the optimiser has it."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = build_optimizer(model, config).param_groups
    found = {names[parameter]: group["weight_decay"] for group in groups for parameter in group["params"]}
    assert len(found) == sum(len(group["params"]) for group in groups)
    assert found.keys() == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    return found


@pytest.mark.parametrize("order", [1, -1], ids=["forwards", "backwards"])
@pytest.mark.parametrize("wrap", [lambda net: net, lambda net: nn.ModuleDict({"module": net})], ids=["plain", "ddp"])
def test_weight_decay_is_that_of_the_most_exact_part(
    model: ASCNet, wrap: Callable[[nn.Module], nn.Module], order: int
) -> None:
    parts = {"encoder": "1e-4", "heads": 0, "predictors": 0.25, "online.g_m": 0.5, "online.encoder.layer1": 0.75}
    parts = dict(list(parts.items())[::order])
    found = decays(wrap(model), OptimConfig(weight_decay=9.0, weight_decay_groups=parts))
    for name, decay in found.items():
        name = name.removeprefix("module.")
        beginnings = {"online.encoder.layer1.": 0.75, "online.encoder.": 1e-4, "online.g_a.": 0, "online.g_m.": 0.5}
        expected = [value for beginning, value in {**beginnings, "h_": 0.25}.items() if name.startswith(beginning)]
        assert decay == expected[0], name


def test_parts_not_named_have_the_common_decay_and_scales_may_still_be_left_out(model: ASCNet) -> None:
    config = OptimConfig(name="lars", weight_decay=0.5, weight_decay_groups={"heads": 0.25}, decay_all=False)
    shapes = {name: parameter.ndim for name, parameter in model.named_parameters()}
    for name, decay in decays(model, config).items():
        assert decay == (0 if shapes[name] <= 1 else 0.5 if name.startswith("online.encoder.") else 0.25), name
    assert isinstance(build_optimizer(model, config), LARS)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"encodr": 0.1}, r"no trained parameter belongs to 'encodr'; known: encoder, heads, .*online\.encoder\.conv1"),
        ({"online.enc": 0.1}, "no trained parameter belongs to 'online.enc'"),
        ({"target": 0.1}, "no trained parameter belongs to 'target'"),
        ({"encoder": -1}, "weight_decay_groups.encoder is -1; expected a number, at least 0"),
        ({"encoder": "much"}, "weight_decay_groups.encoder is 'much'"),
        ({"encoder": None}, "weight_decay_groups.encoder is None"),
        ({"heads": True}, "weight_decay_groups.heads is True"),
    ],
)
def test_part_that_is_unknown_or_has_no_number_is_refused(model: ASCNet, parts: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_optimizer(model, OptimConfig(weight_decay_groups=parts))


def test_parts_can_be_given_on_the_command_line() -> None:
    config = Config.load(None, ["optim.weight_decay_groups={encoder: 1e-4, heads: 0}", "optim.name=lars"])
    assert config.optim.weight_decay_groups == {"encoder": "1e-4", "heads": 0} and config.optim.name == "lars"
    config = Config.load(None, ["optim.weight_decay_groups.encoder=0.5"])
    assert config.optim.weight_decay_groups == {"encoder": 0.5}


@pytest.mark.parametrize("name", ["sgd", "adamw", "lars"])
def test_state_is_taken_over_with_the_settings_of_now(name: Any) -> None:
    def made(decay: float) -> tuple[nn.Module, torch.optim.Optimizer]:
        net = nn.Linear(3, 2)
        return net, build_optimizer(net, OptimConfig(name=name, weight_decay=decay))

    net, before = made(0.5)
    net(torch.ones(4, 3)).sum().backward()
    before.step()
    _, after = made(0.25)
    load_state(after, before.state_dict())
    assert [group["weight_decay"] for group in after.param_groups] == [0.25]
    saved, taken = before.state_dict()["state"], after.state_dict()["state"]
    assert saved.keys() == taken.keys() == {0, 1}
    assert all(torch.equal(saved[i][key], taken[i][key]) for i in saved for key in saved[i])


def test_state_of_another_optimiser_or_other_groups_is_refused() -> None:
    net = nn.Linear(3, 2)
    sgd = build_optimizer(net, OptimConfig())
    for name in ("adamw", "lars"):
        with pytest.raises(CheckpointError, match=r"another one than optim\.name"):
            load_state(build_optimizer(net, OptimConfig(name=name)), sgd.state_dict())  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match=r"groups of \[2\] parameters, this one of \[1, 1\]"):
        load_state(build_optimizer(net, OptimConfig(decay_all=False)), sgd.state_dict())
