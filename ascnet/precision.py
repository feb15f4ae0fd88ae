"""Where a run computes, and in which number formats."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from ascnet.errors import ConfigError


@dataclass
class Precision:
    """Number formats of a run on a device; "auto" is bf16 where the device computes in it, else fp32.

    Raises:
        ConfigError: Where the device does not have the format.
    """

    name: str
    device: torch.device

    def __post_init__(self) -> None:
        if self.name == "auto":
            self.name = "bf16" if computes_in_bf16(self.device) else "fp32"
        if self.name == "fp16" and self.device.type != "cuda":
            raise ConfigError(f"precision is fp16 on device {self.device}; it needs a GPU, use bf16 or fp32")

    @property
    def weights(self) -> torch.dtype:
        """Type of weights, heads, losses and optimiser state."""
        return torch.float64 if self.name == "fp64" else torch.float32

    @property
    def compute(self) -> torch.dtype:
        """Type of the encoder's input and of its convolutions."""
        return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.name, self.weights)

    def autocast(self) -> AbstractContextManager[Any]:
        """Context for forward passes; does nothing in full precision."""
        return torch.autocast(self.device.type, self.compute, enabled=self.compute != self.weights)


def computes_in_bf16(device: torch.device) -> bool:
    """Whether bf16 is what a device is quickest in: newer GPUs, and CPUs with matrix units for it (AMX).

    On a CPU without those, bf16 is emulated and several times slower than fp32.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16") and capabilities.get("amx_tile"))


def pick_device(name: str) -> torch.device:
    """The device that a configuration means; "auto" is a GPU where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device is {name!r}; expected auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device is {name!r}; this machine has {torch.cuda.device_count()} GPUs that torch can use")
    return device
