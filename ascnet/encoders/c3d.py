"""C3D with batch normalisation and without its fully connected layers (Tran et al. 2015; Xu et al. 2019, RSPNet).

The published C3D has no batch normalisation and ends in fc6 and fc7. Self-supervised work uses this form: eight 3x3x3
convolutions with bias, each normalised, and the mean of the last map.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ascnet.encoders.base import Encoder, initialise, scaled
from ascnet.encoders.registry import register

# Names of the convolutions of a stage, their channels at width 1, and the pooling before the stage (time, space).
_STAGES = (
    (("1",), 64, None),
    (("2",), 128, (1, 2, 2)),
    (("3a", "3b"), 256, (2, 2, 2)),
    (("4a", "4b"), 512, (2, 2, 2)),
    (("5a", "5b"), 512, (2, 2, 2)),
)


class ConvBN(nn.Module):
    """3x3x3 convolution with bias, batch normalisation and ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, kernel_size=3, padding=1)
        self.bn = nn.BatchNorm3d(outputs)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(self.conv(x)))


class C3D(Encoder):
    """Eight 3x3x3 convolutions in five stages.

    Attributes:
        dim: Length of the feature, 512 x width.
    """

    # Three poolings halve time and four halve space, without padding.
    minimum = (8, 16)

    def __init__(self, *, width: float = 1.0) -> None:
        """
        Args:
            width: Factor on the channel counts 64, 128, 256, 512, 512.
        """
        super().__init__()
        inputs = 3
        for names, base, _ in _STAGES:
            (outputs,) = scaled(width, base)
            for name in names:
                self.add_module(f"conv{name}", ConvBN(inputs, outputs))
                inputs = outputs
        self.dim = inputs
        initialise(self)

    def features(self, x: Tensor) -> Tensor:
        """Last feature map (B, dim, t, h, w) of clips (B, 3, T, H, W); 512 x 2 x 7 x 7 for 16 frames at 112 x 112."""
        self._check(x)
        for names, _, pool in _STAGES:
            if pool is not None:
                x = F.max_pool3d(x, pool)
            for name in names:
                x = self.get_submodule(f"conv{name}")(x)
        return x


@register("c3d")
def c3d(*, width: float = 1.0) -> C3D:
    """C3D with batch normalisation, 27.7 M parameters at width 1."""
    return C3D(width=width)
