"""Projectors and predictors: Linear - BatchNorm - ReLU - Linear (BYOL, Grill et al. 2020, section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MLP(nn.Sequential):
    """A head of two linear layers that works in its own precision, whatever autocast does around it.

    Args:
        inputs: Length of its input.
        hidden: Hidden units.
        outputs: Length of its output.
        norm: Normalise the output over the batch too, without scale and shift (SimSiam, Chen and He 2021, section 4.4).
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, *, norm: bool = False) -> None:
        layers = [
            # The bias would be removed again by the normalisation that follows.
            nn.Linear(inputs, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, outputs),
        ]
        super().__init__(*layers, *([nn.BatchNorm1d(outputs, affine=False)] if norm else []))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs) in any floating type to (B, outputs) in the type of the weights."""
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.to(next(self.parameters()).dtype))
