"""The small R(2+1)D of VCOP and RSPNet (Xu et al. 2019; Chen et al. 2021): one block a stage, ten layers.

It is not torchvision's `r2plus1d_18` with fewer blocks: every convolution, the stem's and the shortcuts' too, is
factored with an M of its own. "R(2+1)D" in their tables means this network. Names are those of RSPNet's files.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from ascnet.encoders.base import Encoder, initialise, scaled
from ascnet.encoders.registry import register


class FactoredConv(nn.Module):
    """(1, k, k) over space, normalised, ReLU, then (t, 1, 1) over time; M as in Tran et al. 2018, section 3.5."""

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, int], stride: tuple[int, int]) -> None:
        """
        Args:
            inputs: Input channels.
            outputs: Output channels.
            kernel: Sizes over time and space.
            stride: Strides over time and space.
        """
        super().__init__()
        (t, k), (s, d) = kernel, stride
        middle = max(1, t * k * k * inputs * outputs // (k * k * inputs + t * outputs))
        self.spatial_conv = nn.Conv3d(inputs, middle, (1, k, k), (1, d, d), (0, k // 2, k // 2), bias=False)
        self.bn = nn.BatchNorm3d(middle)
        self.relu = nn.ReLU(inplace=True)
        self.temporal_conv = nn.Conv3d(middle, outputs, (t, 1, 1), (s, 1, 1), (t // 2, 0, 0), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.temporal_conv(self.relu(self.bn(self.spatial_conv(x))))


class Block(nn.Module):
    """Two factored convolutions and a shortcut, itself factored where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = FactoredConv(inputs, outputs, (3, 3), (stride, stride))
        self.bn1 = nn.BatchNorm3d(outputs)
        self.conv2 = FactoredConv(outputs, outputs, (3, 3), (1, 1))
        self.bn2 = nn.BatchNorm3d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.changes = stride != 1
        if self.changes:
            self.downsampleconv = FactoredConv(inputs, outputs, (1, 1), (stride, stride))
            self.downsamplebn = nn.BatchNorm3d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        shortcut = self.downsamplebn(self.downsampleconv(x)) if self.changes else x
        return self.relu(shortcut + residual)


class R2Plus1DVcop(Encoder):
    """R(2+1)D with one block a stage.

    Attributes:
        dim: Length of the feature, 512 x width.
    """

    def __init__(self, *, width: float = 1.0) -> None:
        """
        Args:
            width: Factor on the channel counts 64, 128, 256, 512.
        """
        super().__init__()
        channels = scaled(width, 64, 64, 128, 256, 512)
        self.conv1 = FactoredConv(3, channels[0], (3, 7), (1, 2))
        self.bn1 = nn.BatchNorm3d(channels[0])
        self.relu = nn.ReLU(inplace=True)
        for stage, (inputs, outputs) in enumerate(pairwise(channels), start=2):
            block = nn.Sequential()
            block.add_module("block1", Block(inputs, outputs, 1 if stage == 2 else 2))
            self.add_module(f"conv{stage}", block)
        self.dim = channels[-1]
        initialise(self)

    def features(self, x: Tensor) -> Tensor:
        """Last feature map (B, dim, t, h, w) of clips (B, 3, T, H, W); 512 x 2 x 7 x 7 for 16 frames at 112 x 112."""
        x = self.relu(self.bn1(self.conv1(x)))
        for stage in range(2, 6):
            x = self.get_submodule(f"conv{stage}")(x)
        return x


@register("r2plus1d10")
def r2plus1d10(*, width: float = 1.0) -> R2Plus1DVcop:
    """The ten-layer R(2+1)D of VCOP and RSPNet, 14.4 M parameters at width 1."""
    return R2Plus1DVcop(width=width)
