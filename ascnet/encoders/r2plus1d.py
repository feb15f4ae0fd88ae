"""R(2+1)D: each 3D convolution factored into one over space and one over time (Tran et al. 2018, section 3.5).

Parameter names are those of torchvision's `r2plus1d_18` without its `fc`.
"""

from __future__ import annotations

from torch import nn

from ascnet.encoders.base import scaled
from ascnet.encoders.registry import register
from ascnet.encoders.resnet import VideoResNet


def _conv(inputs: int, outputs: int, middle: int, stride: int) -> nn.Module:
    space = nn.Conv3d(inputs, middle, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False)
    time = nn.Conv3d(middle, outputs, (3, 1, 1), (stride, 1, 1), (1, 0, 0), bias=False)
    return nn.Sequential(space, nn.BatchNorm3d(middle), nn.ReLU(inplace=True), time)


class R2Plus1D(VideoResNet):
    """R(2+1)D with two blocks a stage.

    Attributes:
        dim: Length of the feature, 512 x width.
    """

    def __init__(self, *, width: float = 1.0) -> None:
        """
        Args:
            width: Factor on the channel counts 64, 128, 256, 512, and on the 45 inside the stem.
        """
        channels = scaled(width, 64, 128, 256, 512)
        # 45 is torchvision's and Caffe2's; the paper's formula for M would give 83.
        middle = scaled(width, 45)[0]
        stem = nn.Sequential(
            nn.Conv3d(3, middle, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False),
            nn.BatchNorm3d(middle),
            nn.ReLU(inplace=True),
            nn.Conv3d(middle, channels[0], (3, 1, 1), 1, (1, 0, 0), bias=False),
            nn.BatchNorm3d(channels[0]),
            nn.ReLU(inplace=True),
        )
        super().__init__(stem, channels, (2, 2, 2, 2), _conv)


@register("r2plus1d18")
def r2plus1d18(*, width: float = 1.0) -> R2Plus1D:
    """R(2+1)D with two blocks a stage, 31.3 M parameters at width 1."""
    return R2Plus1D(width=width)
