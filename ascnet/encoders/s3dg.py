"""S3D-G: separable 3D Inception with self-gating (Xie et al. 2018, sections 4 and 5).

Two layouts exist in the field and differ in where time is halved first and in the gates:

                      `tensorflow`                              `rspnet`
    stem              (1, 7, 7) / (1, 2, 2), then               (1, 7, 7) / (2, 2, 2), then
                      (7, 1, 1) / (2, 1, 1)                     (7, 1, 1) / 1: every second frame is never read
    gates after       conv_2c and each branch of a block        each (k, 1, 1) convolution, the stem's too
    gate              without bias                              with bias

`tensorflow` is the body of torchvision's `s3d` with the gates of the released TensorFlow-Slim code; without gates it
is torchvision's `s3d`. `rspnet` fits the files of RSPNet (AAAI 2021).
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ascnet.encoders.base import Encoder, initialise, scaled
from ascnet.encoders.registry import register
from ascnet.errors import ConfigError

Layout = Literal["tensorflow", "rspnet"]

# Output channels of an Inception block: branch 0; branch 1 before and after; branch 2 before and after; branch 3.
_BLOCKS = {
    "mixed_3b": (64, 96, 128, 16, 32, 32),
    "mixed_3c": (128, 128, 192, 32, 96, 64),
    "mixed_4b": (192, 96, 208, 16, 48, 64),
    "mixed_4c": (160, 112, 224, 24, 64, 64),
    "mixed_4d": (128, 128, 256, 24, 64, 64),
    "mixed_4e": (112, 144, 288, 32, 64, 64),
    "mixed_4f": (256, 160, 320, 32, 128, 128),
    "mixed_5b": (256, 160, 320, 32, 128, 128),
    "mixed_5c": (384, 192, 384, 48, 128, 128),
}


class SelfGating(nn.Module):
    """Scales each channel by a sigmoid of a linear map of all channel means."""

    def __init__(self, channels: int, *, bias: bool) -> None:
        super().__init__()
        self.linear = nn.Conv3d(channels, channels, kernel_size=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.linear(x.mean(dim=(2, 3, 4), keepdim=True)))


class ConvBN(nn.Module):
    """Convolution, batch normalisation and ReLU; TensorFlow's constants, decay 0.999 and epsilon 0.001."""

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        self.conv = nn.Conv3d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm3d(outputs, eps=1e-3, momentum=1e-3)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(self.conv(x)))


class SeparableConv(nn.Module):
    """(1, k, k) over space, then (k, 1, 1) over time, each normalised, then the gate."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, gate: nn.Module, *, strides: tuple[int, ...] = (1, 1, 1)
    ):
        """
        Args:
            inputs: Input channels.
            outputs: Output channels of both convolutions.
            kernel: k.
            gate: Applied to the result.
            strides: Over time in the first, over height and width in the first, over time in the second.
        """
        super().__init__()
        early, space, late = strides
        self.spatial = ConvBN(inputs, outputs, (1, kernel, kernel), (early, space, space))
        self.temporal = ConvBN(outputs, outputs, (kernel, 1, 1), (late, 1, 1))
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(self.temporal(self.spatial(x)))


class Mixed(nn.Module):
    """Inception block: four branches side by side."""

    def __init__(self, inputs: int, channels: list[int], layout: Layout, gating: bool) -> None:
        super().__init__()
        out0, mid1, out1, mid2, out2, out3 = channels
        every = gating and layout == "tensorflow"
        self.branch0 = nn.Sequential(_pointwise(inputs, out0), _gate(out0, layout, every))
        self.branch1 = nn.Sequential(
            _pointwise(inputs, mid1), SeparableConv(mid1, out1, 3, _gate(out1, layout, gating))
        )
        self.branch2 = nn.Sequential(
            _pointwise(inputs, mid2), SeparableConv(mid2, out2, 3, _gate(out2, layout, gating))
        )
        pool = nn.MaxPool3d(kernel_size=3, stride=1, padding=1)
        self.branch3 = nn.Sequential(pool, _pointwise(inputs, out3), _gate(out3, layout, every))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch0(x), self.branch1(x), self.branch2(x), self.branch3(x)], dim=1)


class S3DG(Encoder):
    """S3D-G without classifier.

    Attributes:
        dim: Length of the feature, 1024 x width.
    """

    # Time is halved with rounding up twice, then down; space four times up, then down.
    minimum = (5, 17)

    def __init__(self, *, width: float = 1.0, layout: Layout = "tensorflow", gating: bool = True) -> None:
        """
        Args:
            width: Factor on all channel counts.
            layout: "tensorflow", or "rspnet" for RSPNet's weights.
            gating: False makes it S3D, torchvision's `s3d`.

        Raises:
            ConfigError: For an unknown layout.
        """
        super().__init__()
        if layout not in get_args(Layout):
            raise ConfigError(f"layout is {layout!r}; allowed: {', '.join(get_args(Layout))}")
        stem, conv2 = scaled(width, 64, 192)
        strides = (1, 2, 2) if layout == "tensorflow" else (2, 2, 1)
        gate = _gate(stem, layout, gating and layout == "rspnet")
        self.conv_1a = SeparableConv(3, stem, 7, gate, strides=strides)
        self.pool_2a = _pool(1)
        self.conv_2b = _pointwise(stem, stem)
        self.conv_2c = SeparableConv(stem, conv2, 3, _gate(conv2, layout, gating))
        self.pool_3a = _pool(1)
        inputs = conv2
        for name, base in _BLOCKS.items():
            if name == "mixed_4b":
                self.pool_4a = _pool(2)
            if name == "mixed_5b":
                self.pool_5a = nn.MaxPool3d(kernel_size=2, stride=2)
            channels = scaled(width, *base)
            self.add_module(name, Mixed(inputs, channels, layout, gating))
            inputs = channels[0] + channels[2] + channels[4] + channels[5]
        self.dim = inputs
        initialise(self)
        for part in self.modules():
            if isinstance(part, SelfGating):
                nn.init.trunc_normal_(part.linear.weight, std=0.01)

    def features(self, x: Tensor) -> Tensor:
        """Last feature map (B, dim, t, h, w) of clips (B, 3, T, H, W); 1024 x 2 x 7 x 7 for 16 frames at 224 x 224."""
        self._check(x)
        for part in self.children():
            x = part(x)
        return x


def _pointwise(inputs: int, outputs: int) -> ConvBN:
    return ConvBN(inputs, outputs, (1, 1, 1), (1, 1, 1))


def _pool(time: int) -> nn.MaxPool3d:
    # Halves space; with time=2 halves time too.
    kernel = 1 if time == 1 else 3
    return nn.MaxPool3d(kernel_size=(kernel, 3, 3), stride=(time, 2, 2), padding=(kernel // 2, 1, 1))


def _gate(channels: int, layout: Layout, present: bool) -> nn.Module:
    return SelfGating(channels, bias=layout == "rspnet") if present else nn.Identity()


@register("s3dg")
def s3dg(*, width: float = 1.0, layout: Layout = "tensorflow", gating: bool = True) -> S3DG:
    """S3D-G, 9.1 M parameters at width 1 (8.7 M in RSPNet's layout, 7.9 M without gates)."""
    return S3DG(width=width, layout=layout, gating=gating)
