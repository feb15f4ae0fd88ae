"""The exponential moving average that makes the target network (METHOD: Algorithm 1, line 12)."""

from __future__ import annotations

import math

import torch
from torch import nn


def momentum_at(step: int, total: int, start: float, final: float = 1.0) -> float:
    """final - (final - start) (cos(pi step / total) + 1) / 2, BYOL's cosine rise from `start` to `final`.

    Args:
        step: Steps already made, 0 at the first.
        total: Steps of the whole run.
        start: Momentum at step 0.
        final: Momentum at step `total`.
    """
    return final - (final - start) * (math.cos(math.pi * step / total) + 1) / 2


@torch.no_grad()
def update(target: nn.Module, online: nn.Module, momentum: float) -> None:
    """target <- momentum target + (1 - momentum) online, parameters only.

    Buffers (running means and variances) are left alone: each network keeps those of its own forward passes.
    """
    for old, new in zip(target.parameters(), online.parameters(), strict=True):
        old.lerp_(new, 1 - momentum)
