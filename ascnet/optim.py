"""Optimiser and learning rate of pretraining; both depend on nothing but the configuration and the step."""

from __future__ import annotations

import math
import re
from typing import Any

import torch
from torch import nn

from ascnet.config import OptimConfig
from ascnet.errors import CheckpointError, ConfigError
from ascnet.lars import LARS

# What `optim.weight_decay_groups` calls the parts of ASCNet, and how the names of their parameters begin.
PARTS = {
    "encoder": ("online.encoder",),
    "heads": ("online.g_a", "online.g_m", "h_a", "h_m"),
    "projectors": ("online.g_a", "online.g_m"),
    "predictors": ("h_a", "h_m"),
}

# A setting that SGD, AdamW, LARS alone has: tells their states apart.
OWN = ("nesterov", "betas", "trust_coefficient")


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """SGD with momentum, AdamW or LARS over the parameters of `model` that are trained; the rate is set at every step.

    Args:
        model: ASCNet, as it is or inside DistributedDataParallel or `torch.compile`.
        config: Section `optim`.

    Raises:
        ConfigError: If `weight_decay_groups` names a part that the model does not have, or a value is no number >= 0.
    """
    groups = _groups(model, config)
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay)
    if config.name == "lars":
        return LARS(groups, config.lr, config.momentum, config.weight_decay, config.trust_coefficient)
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay)


def load_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Goes on from a `state_dict`, with the settings that `optimizer` has: a weight decay changed since then holds.

    Raises:
        CheckpointError: If the state is that of another optimiser or of another model.
    """
    settings = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    now = [len(group["params"]) for group in optimizer.param_groups]
    then = [len(group["params"]) for group in state["param_groups"]]
    if now != then:
        raise CheckpointError(
            f"the checkpoint's optimiser has groups of {then} parameters, this one of {now}: another model, or another "
            "optim.weight_decay_groups or optim.decay_all"
        )
    if [name in settings[0] for name in OWN] != [name in state["param_groups"][0] for name in OWN]:
        raise CheckpointError(
            "the checkpoint's optimiser is another one than optim.name; its state cannot be taken over"
        )
    optimizer.load_state_dict(state)
    for group, values in zip(optimizer.param_groups, settings, strict=True):
        group.update(values)


def peak_rate(config: OptimConfig, batch_size: int) -> float:
    """Highest learning rate of the run: `lr` per 64 samples (linear in the total batch), or `lr` itself."""
    return config.lr * batch_size / 64 if config.scale_lr else config.lr


def rate_at(step: int, total: int, warmup: int, peak: float, final_ratio: float, start_ratio: float = 0.0) -> float:
    """Learning rate of a step: a linear rise, then half a cosine from `peak` down to `peak * final_ratio`.

    Args:
        step: Steps already made, 0 at the first.
        total: Steps of the whole run.
        warmup: Steps of the rise; the last of them has the peak.
        peak: Highest rate.
        final_ratio: Rate that the cosine ends at, as a share of the peak.
        start_ratio: Rate that the rise sets out from, one step before the first, as a share of the peak.
    """
    if step < warmup:
        return peak * (start_ratio + (1 - start_ratio) * (step + 1) / warmup)
    done = (step - warmup) / max(1, total - warmup)
    return peak * (final_ratio + (1 - final_ratio) * (math.cos(math.pi * done) + 1) / 2)


def _groups(model: nn.Module, config: OptimConfig) -> list[dict[str, Any]]:
    """Parameters by weight decay: for each part in the order of the model, those that are decayed, then the others."""
    decays = {name: _decay(name, value) for name, value in config.weight_decay_groups.items()}
    used: set[str] = set()
    groups: dict[tuple[bool, str], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        # DistributedDataParallel and torch.compile put their own names in front.
        matching = _matching(re.sub(r"(^|\.)(module|_orig_mod)(?=\.)", "", name).lstrip("."), decays)
        used.update(matching)
        # Biases, and the scales and shifts of normalisation layers, are the one-dimensional parameters.
        plain = not config.decay_all and parameter.ndim <= 1
        part = matching[-1] if matching and not plain else ""
        decay = 0.0 if plain else decays.get(part, config.weight_decay)
        groups.setdefault((plain, part), {"params": [], "weight_decay": decay})["params"].append(parameter)
    unused = sorted(decays.keys() - used)
    if unused:
        raise ConfigError(
            f"optim.weight_decay_groups: no trained parameter belongs to {unused[0]!r}; known: {', '.join(PARTS)}, or "
            "the beginning of parameters' names, such as online.encoder.conv1"
        )
    return [group for (plain, _), group in sorted(groups.items(), key=lambda item: item[0][0])]


def _matching(name: str, decays: dict[str, float]) -> list[str]:
    """The keys that a parameter belongs to, the most exact one last: a longer beginning, else the smaller part."""

    def exactness(key: str) -> tuple[int, int]:
        begins = [start for start in PARTS.get(key, (key,)) if f"{name}.".startswith(f"{start}.")]
        # `projectors` and `predictors` are parts of `heads`; a name spelled out is meant more than any of them.
        return max(map(len, begins), default=0), {**dict.fromkeys(PARTS, 1), "heads": 0}.get(key, 2)

    return [key for key in sorted(decays, key=exactness) if exactness(key)[0]]


def _decay(name: str, value: Any) -> float:
    try:
        # YAML 1.1 reads 1e-4 as text.
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise ConfigError(f"optim.weight_decay_groups.{name} is {value!r}; expected a number, at least 0")
    return number
