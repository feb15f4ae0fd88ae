"""Encoders by name.

An `Encoder` has `dim` (length of its feature), `features(x)` (the last feature map, (B, dim, t, h, w)) and a forward
that averages that map to (B, dim).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from ascnet.encoders.base import Encoder
from ascnet.errors import ConfigError
from ascnet.settings import nearest

Maker = TypeVar("Maker", bound=Callable[..., Encoder])
_MAKERS: dict[str, Callable[..., Encoder]] = {}


def register(name: str) -> Callable[[Maker], Maker]:
    """Decorator that makes an encoder available to `build_encoder` as `name`."""

    def add(maker: Maker) -> Maker:
        _MAKERS[name] = maker
        return maker

    return add


def encoder_names() -> list[str]:
    """Names that `build_encoder` knows, sorted."""
    return sorted(_MAKERS)


def build_encoder(name: str = "r3d18", width: float = 1.0, **options: Any) -> Encoder:
    """A freshly initialised encoder.

    Args:
        name: One of `encoder_names()`.
        width: Factor on its channel counts.
        **options: Further arguments of that encoder.

    Raises:
        ConfigError: Naming an unknown encoder or option, and the nearest right one.
    """
    if name not in _MAKERS:
        raise ConfigError(f"unknown encoder {name!r}{nearest(name, encoder_names())}")
    maker = _MAKERS[name]
    known = [option for option in inspect.signature(maker).parameters if option != "width"]
    for option in options:
        if option not in known:
            raise ConfigError(f"encoder {name!r} has no option {option!r}{nearest(option, known)}")
    return maker(width=width, **options)
