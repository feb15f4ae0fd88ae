"""Results in a folder: what can be read, and why the rest cannot."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dali_pipes.errors import DataError

# In this order on the page; others follow by name.
ORDER = (
    *("loader", "decode", "stages", "step", "sweep", "bank", "cache", "embed", "lookahead"),
    *("overhead", "size", "fuzz", "ablation", "profile", "compare"),
)


@dataclass(frozen=True)
class Result:
    """One file.

    Attributes:
        name: Of the file, without its ending.
        benchmark: The command that made it.
        data: What is in it; numbers that are not finite are None.
    """

    name: str
    benchmark: str
    data: Mapping[str, Any]

    @property
    def label(self) -> str:
        """What was measured, as the file's name has it, without the command and the number of cores."""
        name = re.sub(r"-\d+cores?$", "", self.name)
        rest = name.removeprefix(self.benchmark).strip("-_")
        corpus = self.data.get("corpus")
        named = str(corpus.get("name") or "").removesuffix(".parquet") if isinstance(corpus, Mapping) else ""
        return rest or named or name


@dataclass(frozen=True)
class Unreadable:
    """A file that is no result, or none that can be shown; why, in a line."""

    name: str
    reason: str


def read_folder(folder: Path) -> tuple[list[Result], list[Unreadable]]:
    """All JSON files of a folder, in the order of the page.

    Raises:
        DataError: If the folder cannot be read or holds no result.
    """
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder; give the one that holds the results of `python -m bench ...` (JSON)"
        )
    results, unreadable = [], []
    for path in sorted(folder.glob("*.json")):
        found = _read(path)
        if isinstance(found, Result):
            results.append(found)
        else:
            unreadable.append(found)
    if not results:
        first = f"; {unreadable[0].name}: {unreadable[0].reason}" if unreadable else ""
        raise DataError(f"{folder}: holds no result of a benchmark (JSON written with --output){first}")
    places = {name: place for place, name in enumerate(ORDER)}
    results.sort(key=lambda one: (places.get(one.benchmark, len(ORDER)), one.benchmark, one.name))
    return results, unreadable


def _read(path: Path) -> Result | Unreadable:
    try:
        # Not a number is no JSON; older files may have it all the same.
        data = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda text: None)
    except OSError as error:
        return Unreadable(path.name, f"cannot be read: {error.strerror or error}")
    except (ValueError, RecursionError) as error:
        return Unreadable(path.name, f"is not JSON: {str(error).splitlines()[0]}")
    if not isinstance(data, dict):
        return Unreadable(path.name, "is no result of a benchmark: not an object")
    benchmark = data.get("benchmark")
    if benchmark is None:
        made = re.match(r"python -m bench (\w+)", str(data.get("command", "")))
        benchmark = made[1] if made else None
    # A word, since it becomes the name of a file.
    if not isinstance(benchmark, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", benchmark):
        return Unreadable(path.name, "is no result of a benchmark: it has no `benchmark`, the name of a command")
    return Result(path.stem, benchmark, data)
