"""What every encoder offers, in the names that torchvision and timm users know."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from ascnet.errors import ConfigError


class Encoder(nn.Module, ABC):
    """A network without classifier: `features` is its last map, calling it averages that map.

    Attributes:
        dim: Length of the feature.
        minimum: Fewest frames, and fewest pixels of an edge, that leave something of the last map.
        config: Settings of the run that trained the weights, nested dictionaries; None for fresh ones.
    """

    dim: int
    minimum: tuple[int, int] = (1, 1)
    config: dict[str, Any] | None = None

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """Last feature map (B, dim, t, h, w) of clips (B, 3, T, H, W)."""

    def forward_features(self, x: Tensor) -> Tensor:
        """timm's name for `features`."""
        return self.features(x)

    def forward(self, x: Tensor) -> Tensor:
        """Feature (B, dim) of clips (B, 3, T, H, W)."""
        # mean and not AdaptiveAvgPool3d, whose backward pass on a GPU does not repeat bit for bit.
        return self.features(x).mean(dim=(2, 3, 4))

    @property
    def num_features(self) -> int:
        """timm's name for `dim`."""
        return self.dim

    def _check(self, x: Tensor) -> None:
        frames, height, width = x.shape[2:]
        if frames < self.minimum[0] or min(height, width) < self.minimum[1]:
            raise ConfigError(
                f"clips are {frames} x {height} x {width}; this encoder needs at least {self.minimum[0]} frames and "
                f"{self.minimum[1]} x {self.minimum[1]} pixels"
            )


def scaled(width: float, *channels: int) -> list[int]:
    """Channel counts times `width`, each at least 1."""
    return [max(1, round(base * width)) for base in channels]


def initialise(module: nn.Module) -> None:
    """Convolutions as He et al. 2015 (normal, fan-out, for ReLU), their biases 0."""
    for part in module.modules():
        if isinstance(part, nn.Conv3d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
