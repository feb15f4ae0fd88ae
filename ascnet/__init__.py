"""Appearance-speed consistency: self-supervised video pretraining without negatives.

The names below are loaded when first used, so that `import ascnet` costs nothing. A run is `ascnet.pretrain.pretrain`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ascnet.bank.memory_bank import MemoryBank
    from ascnet.config import Config
    from ascnet.encoders import build_encoder
    from ascnet.model import ASCNet
    from ascnet.weights import load_encoder

_HOMES = {
    "ASCNet": "ascnet.model",
    "Config": "ascnet.config",
    "MemoryBank": "ascnet.bank.memory_bank",
    "build_encoder": "ascnet.encoders",
    "load_encoder": "ascnet.weights",
}

__all__ = ["ASCNet", "Config", "MemoryBank", "build_encoder", "load_encoder"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ascnet' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
