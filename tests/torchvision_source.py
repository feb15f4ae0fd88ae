"""torchvision's video networks without importing torchvision, whose compiled part has to fit the torch beside it.

Its Python files are enough: they are found where torchvision is installed, or in the folder that TORCHVISION_SOURCE
names (the one that holds `torchvision/`, for instance an unpacked wheel), and run with stand-ins for what registers
weights and transforms.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


class _Anything(ModuleType):
    """Has every attribute; each can be called, subclassed and used as a decorator."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Stub


class _Stub:
    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __call__(self, target: Any = None, *_: Any, **__: Any) -> Any:
        return target

    def __class_getitem__(cls, _: Any) -> type:
        return cls

    def __getattr__(self, name: str) -> Any:
        return _Stub()


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module torchvision/models/video/`name`.py; the test is skipped where there is no such file."""
    folder = _folder()
    if folder is None:
        pytest.skip("no torchvision source: install torchvision, or let TORCHVISION_SOURCE name an unpacked wheel")
    for stub in ("", ".transforms", ".transforms._presets", ".utils", ".models", ".models._api", ".models._meta",
                 ".models._utils", ".models.video", ".ops"):  # fmt: skip
        module = _Anything(f"torchvision{stub}")
        module.__path__ = []
        monkeypatch.setitem(sys.modules, module.__name__, module)
    sys.modules["torchvision.utils"]._log_api_usage_once = lambda *_: None  # type: ignore[attr-defined]
    _run("torchvision.ops.misc", folder / "ops" / "misc.py", monkeypatch)
    return _run(f"torchvision.models.video.{name}", folder / "models" / "video" / f"{name}.py", monkeypatch)


def _folder() -> Path | None:
    named = os.environ.get("TORCHVISION_SOURCE")
    if named:
        return Path(named) / "torchvision"
    found = importlib.util.find_spec("torchvision")
    return Path(found.origin).parent if found is not None and found.origin else None


def _run(name: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module
