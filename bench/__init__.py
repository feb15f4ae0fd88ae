"""Benchmarks of the data plane and of training, beside other tools: `python -m bench --help`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.profile import Profile, profile_loader

__all__ = ["Profile", "profile_loader"]


def __getattr__(name: str) -> Any:
    # Looked up when first used (PEP 562): torch and DALI take seconds to import, and `--help` needs neither.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("bench.profile"), name)
