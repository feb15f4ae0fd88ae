"""3D ResNet with 3x3x3 convolutions (Tran et al. 2018, section 3.3, "R3D"; Hara et al. 2018, "3D ResNet").

The two papers differ in the stem alone. Tran et al., and torchvision's `r3d_18`: a 3x7x7 convolution. Hara et al., and
RSPNet: a 7x7x7 convolution, then a max pooling that halves all three axes.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ascnet.encoders.base import scaled
from ascnet.encoders.registry import register
from ascnet.encoders.resnet import VideoResNet, check_numbers
from ascnet.errors import ConfigError


def _conv(inputs: int, outputs: int, middle: int, stride: int) -> nn.Module:
    return nn.Conv3d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)


class R3D(VideoResNet):
    """3D ResNet whose feature is the mean of its last map over time, height and width.

    Example:
        >>> encoder = R3D(width=0.25)
        >>> encoder(torch.zeros(2, 3, 16, 112, 112)).shape, encoder.dim
        (torch.Size([2, 128]), 128)

    Attributes:
        dim: Length of the feature, 512 x width.
    """

    def __init__(
        self,
        *,
        width: float = 1.0,
        blocks: Sequence[int] = (2, 2, 2, 2),
        stem_stride: Sequence[int] = (1, 2, 2),
        stem_kernel: Sequence[int] = (3, 7, 7),
        stem_pool: bool = False,
    ) -> None:
        """
        Args:
            width: Factor on the channel counts 64, 128, 256, 512.
            blocks: Basic blocks in each of the four stages.
            stem_stride: Stride of the first convolution over (time, height, width).
            stem_kernel: Its kernel size, odd numbers; (3, 7, 7) in Tran et al., (7, 7, 7) in Hara et al. and RSPNet.
            stem_pool: End the stem with a 3x3x3 max pooling of stride 2, as Hara et al. and RSPNet do.

        Raises:
            ConfigError: For options that do not describe a network.
        """
        counts = check_numbers("blocks", blocks, 4)
        stride = check_numbers("stem_stride", stem_stride, 3)
        kernel = check_numbers("stem_kernel", stem_kernel, 3)
        if any(size % 2 == 0 for size in kernel):
            raise ConfigError(f"stem_kernel is {list(stem_kernel)}; expected odd numbers, such as [3, 7, 7]")
        channels = scaled(width, 64, 128, 256, 512)
        padding = tuple(size // 2 for size in kernel)
        first = nn.Conv3d(3, channels[0], kernel, stride, padding, bias=False)  # type: ignore[arg-type]
        stem = nn.Sequential(first, nn.BatchNorm3d(channels[0]), nn.ReLU(inplace=True))
        if stem_pool:
            stem.append(nn.MaxPool3d(kernel_size=3, stride=2, padding=1))
        super().__init__(stem, channels, counts, _conv)


@register("r3d18")
def r3d18(
    *,
    width: float = 1.0,
    stem_stride: Sequence[int] = (1, 2, 2),
    stem_kernel: Sequence[int] = (3, 7, 7),
    stem_pool: bool = False,
) -> R3D:
    """R3D with two blocks a stage, 33.2 M parameters at width 1 (the paper's "3D R18")."""
    return R3D(width=width, stem_stride=stem_stride, stem_kernel=stem_kernel, stem_pool=stem_pool)


@register("r3d10")
def r3d10(
    *,
    width: float = 1.0,
    stem_stride: Sequence[int] = (1, 2, 2),
    stem_kernel: Sequence[int] = (3, 7, 7),
    stem_pool: bool = False,
) -> R3D:
    """R3D with one block a stage, for small machines."""
    return R3D(width=width, blocks=(1, 1, 1, 1), stem_stride=stem_stride, stem_kernel=stem_kernel, stem_pool=stem_pool)
