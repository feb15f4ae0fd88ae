"""Optimiser and learning rate of pretraining; both depend on nothing but the configuration and the step."""

from __future__ import annotations

import math

import torch
from torch import nn

from ascnet.config import OptimConfig


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """SGD with momentum or AdamW over the parameters of `model` that are trained; the rate is set at every step."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [{"params": trained}]
    if not config.decay_all:
        # Biases, and the scales and shifts of normalisation layers, are the one-dimensional parameters.
        plain = [parameter for parameter in trained if parameter.ndim <= 1]
        groups = [{"params": [parameter for parameter in trained if parameter.ndim > 1]}]
        groups.append({"params": plain, "weight_decay": 0.0})  # type: ignore[dict-item]
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay)
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay)


def peak_rate(config: OptimConfig, batch_size: int) -> float:
    """Highest learning rate of the run: `lr` per 64 samples (linear in the total batch), or `lr` itself."""
    return config.lr * batch_size / 64 if config.scale_lr else config.lr


def rate_at(step: int, total: int, warmup: int, peak: float, final_ratio: float) -> float:
    """Learning rate of a step: a linear rise, then half a cosine from `peak` down to `peak * final_ratio`.

    Args:
        step: Steps already made, 0 at the first.
        total: Steps of the whole run.
        warmup: Steps of the rise; the last of them has the peak.
        peak: Highest rate.
        final_ratio: Rate that the cosine ends at, as a share of the peak.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)
    return peak * (final_ratio + (1 - final_ratio) * (math.cos(math.pi * done) + 1) / 2)
