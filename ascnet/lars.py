"""LARS, the optimiser of large batches: every weight moves by a share of its own length (You et al. 2017).

As SimCLR and BYOL use it: decay is added to the gradient first, the learning rate is inside the momentum, and biases
and the scales and shifts of normalisation (the one-dimensional parameters) are neither decayed nor adapted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class LARS(torch.optim.Optimizer):
    """Layer-wise adaptive rate scaling.

    For a weight w with gradient g:
        d = g + weight_decay * w
        d = d * trust_coefficient * |w| / |d|          (1 in place of the ratio where |w| or |d| is 0)
        v = momentum * v + lr * d;   w = w - v
    For a parameter of at most one dimension d = g.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 0.001,
    ) -> None:
        """
        Args:
            params: Parameters, or groups of them with settings of their own.
            lr: Learning rate.
            momentum: Share of the last step that is made again.
            weight_decay: Share of a weight that is added to its gradient.
            trust_coefficient: Length of d as a share of that of w.
        """
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust_coefficient": trust_coefficient,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Makes one step; returns what `closure` returns, which computes the gradients anew where it is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [parameter for parameter in group["params"] if parameter.grad is not None]
            if params:
                self._move(params, group)
        return loss

    def _move(self, params: list[Tensor], group: dict[str, Any]) -> None:
        # One call for all weights of a group: a call each would keep a GPU waiting.
        weights = [parameter for parameter in params if parameter.ndim > 1]
        plain = [parameter for parameter in params if parameter.ndim <= 1]
        moves = [parameter.grad for parameter in weights if parameter.grad is not None]
        if weights:
            if group["weight_decay"]:
                moves = list(torch._foreach_add(moves, weights, alpha=group["weight_decay"]))
            lengths, slopes = torch.stack(torch._foreach_norm(weights)), torch.stack(torch._foreach_norm(moves))
            ratios = group["trust_coefficient"] * lengths / slopes
            ratios = torch.where((lengths > 0) & (slopes > 0), ratios, torch.ones_like(ratios))
            moves = list(torch._foreach_mul(moves, list(ratios.unbind())))
        moves += [parameter.grad for parameter in plain if parameter.grad is not None]
        params = weights + plain
        for parameter in params:
            if "momentum_buffer" not in self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        velocities = [self.state[parameter]["momentum_buffer"] for parameter in params]
        torch._foreach_mul_(velocities, group["momentum"])
        torch._foreach_add_(velocities, moves, alpha=group["lr"])
        torch._foreach_sub_(params, velocities)
