"""3D ResNet with basic blocks (Tran et al. 2018, section 3.3, "R3D").

Parameter names are those of torchvision's `r3d_18` without its `fc`, so weights move between the two:
stem.0, stem.1, layer1.0.conv1.0, layer1.0.conv1.1, layer2.0.downsample.0 and so on.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ascnet.encoders.registry import register
from ascnet.errors import ConfigError


def _conv(inputs: int, outputs: int, stride: int) -> nn.Conv3d:
    return nn.Conv3d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3x3 convolutions and a shortcut; `stride` applies to time, height and width of the first."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(_conv(inputs, outputs, stride), nn.BatchNorm3d(outputs), nn.ReLU(inplace=True))
        self.conv2 = nn.Sequential(_conv(outputs, outputs, 1), nn.BatchNorm3d(outputs))
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            shortcut = nn.Conv3d(inputs, outputs, kernel_size=1, stride=stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm3d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(self.conv2(self.conv1(x)) + shortcut)


class R3D(nn.Module):
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
    ) -> None:
        """
        Args:
            width: Factor on the channel counts 64, 128, 256, 512.
            blocks: Basic blocks in each of the four stages.
            stem_stride: Stride of the first convolution over (time, height, width).
            stem_kernel: Its kernel size, odd numbers; (3, 7, 7) in the paper.

        Raises:
            ConfigError: For options that do not describe a network.
        """
        super().__init__()
        options = (("blocks", blocks, 4), ("stem_stride", stem_stride, 3), ("stem_kernel", stem_kernel, 3))
        for name, values, count in options:
            if len(values) != count or min(values) < 1:
                raise ConfigError(f"{name} is {list(values)}; expected {count} numbers of at least 1")
        if any(size % 2 == 0 for size in stem_kernel):
            raise ConfigError(f"stem_kernel is {list(stem_kernel)}; expected odd numbers, such as [3, 7, 7]")
        channels = [max(1, round(base * width)) for base in (64, 128, 256, 512)]
        kernel, stride = (tuple(int(value) for value in values) for values in (stem_kernel, stem_stride))
        padding = tuple(size // 2 for size in kernel)
        first = nn.Conv3d(3, channels[0], kernel, stride, padding, bias=False)  # type: ignore[arg-type]
        self.stem = nn.Sequential(first, nn.BatchNorm3d(channels[0]), nn.ReLU(inplace=True))
        self.layer1 = self._stage(channels[0], channels[0], blocks[0], stride=1)
        self.layer2 = self._stage(channels[0], channels[1], blocks[1], stride=2)
        self.layer3 = self._stage(channels[1], channels[2], blocks[2], stride=2)
        self.layer4 = self._stage(channels[2], channels[3], blocks[3], stride=2)
        self.dim = channels[3]
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @staticmethod
    def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
        first = BasicBlock(inputs, outputs, stride)
        return nn.Sequential(first, *(BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)))

    def features(self, x: Tensor) -> Tensor:
        """Last feature map (B, dim, t, h, w) of clips (B, 3, T, H, W); 512 x 2 x 7 x 7 for 16 frames at 112 x 112."""
        return self.layer4(self.layer3(self.layer2(self.layer1(self.stem(x)))))

    def forward(self, x: Tensor) -> Tensor:
        """Feature (B, dim) of clips (B, 3, T, H, W)."""
        # mean and not AdaptiveAvgPool3d, whose backward pass on a GPU does not repeat bit for bit.
        return self.features(x).mean(dim=(2, 3, 4))


@register("r3d18")
def r3d18(*, width: float = 1.0, stem_stride: Sequence[int] = (1, 2, 2), stem_kernel: Sequence[int] = (3, 7, 7)) -> R3D:
    """R3D with two blocks a stage, 33.2 M parameters at width 1 (the paper's "3D R18")."""
    return R3D(width=width, stem_stride=stem_stride, stem_kernel=stem_kernel)


@register("r3d10")
def r3d10(*, width: float = 1.0, stem_stride: Sequence[int] = (1, 2, 2), stem_kernel: Sequence[int] = (3, 7, 7)) -> R3D:
    """R3D with one block a stage, for small machines."""
    return R3D(width=width, blocks=(1, 1, 1, 1), stem_stride=stem_stride, stem_kernel=stem_kernel)
