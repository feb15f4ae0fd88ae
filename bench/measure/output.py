"""Where results go: a JSON file that is whole or absent, and a table for people."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dali_pipes.errors import DataError
from dali_pipes.writing import replacing


def write_json(path: Path, result: Mapping[str, Any]) -> None:
    """Write strict JSON (what is not a number becomes null) under a temporary name, then rename.

    Raises:
        DataError: If the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
            json.dump(_finite(result), file, indent=1, allow_nan=False)
            file.write("\n")
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from error


def print_result(result: Mapping[str, Any], console: Console) -> None:
    """One table a window: who delivered what, how quickly, and how ours stands beside it.

    PSNR is given twice: against the antialiased reference, and against the way of resizing that is nearest.
    """
    for window, part in result["windows"].items():
        table = Table(title=f"window: {window}", title_justify="left")
        for name in ("candidate", "kind", "pairs/s [95 %]", "CPU s/pair", "ours / it [95 %]", "PSNR, dB", "frames"):
            words = name in ("candidate", "kind", "frames")
            table.add_column(name, justify="left" if words else "right", no_wrap=name != "frames")
        figures = part["summary"]

        def rate(name: str, known: Mapping[str, Any] = figures) -> float:
            return float(known[name]["samples_per_second"]["median"]) if name in known else -1.0

        for name in sorted(part["checks"], key=rate, reverse=True):
            check, known = part["checks"][name], figures.get(name, {})
            table.add_row(
                name,
                result["candidates"][name]["kind"],
                interval(known.get("samples_per_second")),
                f"{known['cpu_seconds_per_sample']['median']:.3f}" if known else "-",
                interval(known.get("ratio_of_ours")),
                "-" if math.isnan(check["psnr"]) else f"{check['psnr']:.1f} / {check['psnr_nearest']:.1f}",
                f"WRONG, not ranked: {escape(check['reason'])}"
                if check["reason"]
                else f"right ({check['told_apart']} of {check['frames']} certain)",
            )
        for name, reason in result["missing"].items():
            table.add_row(name, result["candidates"][name]["kind"], "-", "-", "-", "-", f"missing: {escape(reason)}")
        console.print(table)
    for goal in result["goals"]:
        reached = "not measured" if goal["ratio"] is None else f"{goal['ratio']:.2f} x {goal['peer']}"
        console.print(
            f"goal {goal['kind']} >= {goal['goal']:g} ({goal['window']}): {reached}: "
            + ("met" if goal["met"] else "MISSED")
        )


def interval(known: Mapping[str, Any] | None) -> str:
    """Median and interval of an estimate or a figure, for a table; a dash where there is none."""
    if not known:
        return "-"
    return f"{known['median']:.2f} [{known['low']:.2f}, {known['high']:.2f}]"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
