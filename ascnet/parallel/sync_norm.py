"""Batch normalisation over the batches of all processes.

On a GPU that is torch's `SyncBatchNorm`. That one does not run on a CPU, where `SyncNorm` takes its place: slower, for
it asks the other processes twice for each layer, but as exact as one process that has the whole batch.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import FunctionCtx
from torch.nn.modules.batchnorm import _BatchNorm


class _Sum(Function):
    """The sum of a tensor over all processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: FunctionCtx, tensor: Tensor, group: dist.ProcessGroup | None) -> Tensor:
        ctx.group = group  # type: ignore[attr-defined]
        total = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=ctx.group)
        return total, None


class SyncNorm(_BatchNorm):
    """`nn.BatchNorm1d` and `nn.BatchNorm3d` over all processes, with the same parameters and buffers.

    Processes may bring batches of different sizes, also none, but all of them have to call it. In evaluation it is
    ordinary batch normalisation.
    """

    group: dist.ProcessGroup | None = None

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"expected (batch, channels, ...), got {input.ndim} dimensions")

    @torch.compiler.disable
    def forward(self, input: Tensor) -> Tensor:
        """(B, C, ...) in any floating type to the same shape and type."""
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        axes = [axis for axis in range(input.ndim) if axis != 1]
        shape = [1, -1] + [1] * (input.ndim - 2)
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        # The mean first and then the distances from it: the difference of two large sums would lose digits.
        own = x.new_full((1,), input.numel() // max(1, input.shape[1]))
        totals = _Sum.apply(torch.cat([x.sum(axes), own]), self.group)
        count = totals[-1].detach()
        if count < 2:
            raise ValueError("expected more than 1 value per channel when training, over all processes")
        mean = totals[:-1] / count
        centred = x - mean.view(shape)
        variance = _Sum.apply((centred * centred).sum(axes), self.group) / count
        self._remember(mean.detach(), variance.detach() * (count / (count - 1)))
        y = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(input.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.momentum is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(variance.to(self.running_var.dtype), self.momentum)


def synchronise(module: nn.Module, device: torch.device, group: dist.ProcessGroup | None = None) -> nn.Module:
    """Puts synchronised batch normalisation in the place of every other one; weights and names stay.

    Args:
        module: Changed in place, and returned; where it is itself a batch normalisation, its replacement is.
        device: Where it will run.
        group: The processes; by default all. Layers on a CPU need one of gloo.
    """
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module, group)
    if isinstance(module, _BatchNorm):
        return _replacement(module, group)
    for name, child in module.named_children():
        setattr(module, name, synchronise(child, device, group))
    return module


def _replacement(old: _BatchNorm, group: dist.ProcessGroup | None) -> SyncNorm:
    new = SyncNorm(old.num_features, old.eps, old.momentum, old.affine, old.track_running_stats)
    new.group = group
    # The tensors themselves, so that an optimiser or an average that holds them goes on doing so.
    new._parameters, new._buffers, new.training = old._parameters, old._buffers, old.training
    return new
