"""Running means and variances that a batch which is not finite cannot spoil.

A skipped step leaves the weights alone, but its forward passes have been through the batch normalisations by then, the
target's up to `retrieval.lookahead` steps before. One such batch would leave them not finite for good.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


class RunningStats:
    """The running statistics of all batch normalisations of a model, in one tensor, and their last finite values."""

    def __init__(self, model: nn.Module) -> None:
        """Moves the buffers of `model` into one tensor; it must be on its device and in its number format already."""
        layers = [layer for layer in model.modules() if isinstance(layer, _BatchNorm)]
        names = [(layer, name) for layer in layers for name in ("running_mean", "running_var")]
        buffers = [(layer, name, getattr(layer, name)) for layer, name in names if getattr(layer, name) is not None]
        self._all = torch.cat([buffer for *_, buffer in buffers]) if buffers else torch.zeros(0)
        place = 0
        for layer, name, buffer in buffers:
            # `data`, for views share a count of writes: a write to one would spoil what autograd saved of another.
            layer._buffers[name] = self._all[place : place + len(buffer)].data
            place += len(buffer)
        self._good = self._all.clone()

    @torch.no_grad()
    def keep(self) -> None:
        """Brings back the last finite value of what is not finite now, without waiting for the device."""
        torch.where(self._all.isfinite(), self._all, self._good, out=self._good)
        self._all.copy_(self._good)
