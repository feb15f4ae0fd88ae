"""The file of settings that `python -m bench sweep` writes and `ascnet pretrain --config` takes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from dali_pipes.errors import DataError
from dali_pipes.writing import replacing


def check_target(path: Path, base: Path | None) -> None:
    """Before an hour of measuring: can the file be written, and is it another one than its base?

    Raises:
        DataError: If not.
    """
    if base is not None and path.resolve() == base.resolve():
        raise DataError(f"--write {path}: is --config itself, which the new file is laid over; write to another name")
    if path.is_dir():
        raise DataError(f"--write {path}: is a folder; name a file such as tuned.yaml")
    if path.suffix not in (".yaml", ".yml"):
        raise DataError(f"--write {path}: expected a name that ends in .yaml")


def write_tuned(path: Path, base: Path | None, settings: Mapping[str, Any], comments: Sequence[str]) -> None:
    """Write a configuration: what was found, laid over a base.

    Args:
        path: The file.
        base: The configuration that it starts from, by a path relative to the file; None: the defaults.
        settings: Dotted key -> value.
        comments: Lines at the top.

    Raises:
        DataError: If the file cannot be written, or is no configuration.
    """
    from ascnet.config import Config
    from ascnet.errors import ConfigError

    nested: dict[str, Any] = {}
    if base is not None:
        nested["base"] = os.path.relpath(base.resolve(), path.parent.resolve())
    for name, value in settings.items():
        *sections, last = name.split(".")
        place = nested
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    text = "".join(f"# {line}\n" for line in comments)
    text += yaml.safe_dump(nested, sort_keys=False) if nested else ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
            Config.load(temporary)
    except OSError as error:
        raise DataError(f"--write {path}: cannot be written: {error.strerror or error}") from error
    except ConfigError as error:
        raise DataError(f"--write {path}: {error}") from error
