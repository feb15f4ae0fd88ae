"""3D residual networks with basic blocks: what R3D and R(2+1)D share (Tran et al. 2018, section 3).

Parameter names are those of torchvision's `VideoResNet` without its `fc`, so weights move between the two:
stem.0, layer1.0.conv1.0, layer1.0.conv1.1, layer2.0.downsample.0 and so on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from ascnet.encoders.base import Encoder, initialise
from ascnet.errors import ConfigError

# Arguments: input channels, output channels, channels between the halves of a factored convolution, stride.
Conv = Callable[[int, int, int, int], nn.Module]


def middle_channels(inputs: int, outputs: int) -> int:
    """Channels M between (1, 3, 3) and (3, 1, 1) that give both together the parameters of a 3x3x3 convolution."""
    return max(1, inputs * outputs * 27 // (inputs * 9 + 3 * outputs))


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut; `stride` applies to time, height and width of the first."""

    def __init__(self, inputs: int, outputs: int, stride: int, conv: Conv) -> None:
        super().__init__()
        # torchvision computes M once a block, from the block's channels, for both of its convolutions.
        middle = middle_channels(inputs, outputs)
        first = conv(inputs, outputs, middle, stride)
        self.conv1 = nn.Sequential(first, nn.BatchNorm3d(outputs), nn.ReLU(inplace=True))
        self.conv2 = nn.Sequential(conv(outputs, outputs, middle, 1), nn.BatchNorm3d(outputs))
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            shortcut = nn.Conv3d(inputs, outputs, kernel_size=1, stride=stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm3d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(self.conv2(self.conv1(x)) + shortcut)


class VideoResNet(Encoder):
    """Stem and four stages; from the second on, a stage halves time, height and width."""

    def __init__(self, stem: nn.Sequential, channels: Sequence[int], blocks: Sequence[int], conv: Conv) -> None:
        """
        Args:
            stem: From clips to `channels[0]` channels.
            channels: Output channels of the four stages.
            blocks: Basic blocks in each.
            conv: Makes a block's 3x3x3 convolution.
        """
        super().__init__()
        self.stem = stem
        self.layer1 = _stage(channels[0], channels[0], blocks[0], 1, conv)
        self.layer2 = _stage(channels[0], channels[1], blocks[1], 2, conv)
        self.layer3 = _stage(channels[1], channels[2], blocks[2], 2, conv)
        self.layer4 = _stage(channels[2], channels[3], blocks[3], 2, conv)
        self.dim = channels[3]
        initialise(self)

    def features(self, x: Tensor) -> Tensor:
        """Last feature map (B, dim, t, h, w) of clips (B, 3, T, H, W); 512 x 2 x 7 x 7 for 16 frames at 112 x 112."""
        return self.layer4(self.layer3(self.layer2(self.layer1(self.stem(x)))))


def _stage(inputs: int, outputs: int, blocks: int, stride: int, conv: Conv) -> nn.Sequential:
    first = BasicBlock(inputs, outputs, stride, conv)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs, 1, conv) for _ in range(blocks - 1)))


def check_numbers(name: str, values: Sequence[int], count: int) -> tuple[int, ...]:
    """The values as a tuple; a ConfigError naming the option unless they are `count` numbers of at least 1."""
    if len(values) != count or min(values) < 1:
        raise ConfigError(f"{name} is {list(values)}; expected {count} numbers of at least 1")
    return tuple(int(value) for value in values)
