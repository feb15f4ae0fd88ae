"""The table that `python -m bench decode` ends with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.measure.output import interval

# dB: no grey level of the shrunk pictures differs.
EXACT = 100.0
COLUMNS = ("decoder", "where", "clips/s [95 %]", "frames/s", "CPU s/clip", "MiB", "NVDEC", "ours / it [95 %]", "PSNR")


def print_table(result: Mapping[str, Any], console: Console) -> None:
    """One table a window, the quickest first; then who is wrong, failed or missing, with the reason."""
    for window, part in result["windows"].items():
        table = Table(title=f"decode, window: {window}", title_justify="left")
        for name in COLUMNS:
            table.add_column(name, justify="left" if name in ("decoder", "where") else "right", no_wrap=True)
        table.add_column("frames")
        figures = part["summary"]
        for name in sorted(figures, key=lambda name: -float(figures[name]["clips/s"]["median"])):
            known, check = figures[name], part["checks"][name]
            ratio = next((value for words, value in known.items() if words.endswith(" / it")), None)
            table.add_row(
                name,
                result["candidates"][name]["where"],
                interval(known["clips/s"]),
                f"{known['frames/s']['median']:.0f}",
                f"{known['CPU s/clip']['median']:.3f}",
                f"{known['memory']['median']:.0f}",
                f"{known['decoder load']['median']:.0%}" if "decoder load" in known else "-",
                interval(ratio),
                "exact" if check["psnr"] > EXACT else f"{check['psnr']:.1f}",
                f"right ({check['told_apart']} of {check['frames']} certain)",
            )
        for name, words in _left_out(result, part).items():
            check = part["checks"].get(name)
            psnr = "-" if check is None or math.isnan(check["psnr"]) else f"{check['psnr']:.1f}"
            table.add_row(name, result["candidates"][name]["where"], *["-"] * 6, psnr, escape(words))
        console.print(table)


def _left_out(result: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, str]:
    """Decoder -> why it has no figures in this window."""
    wrong = {name: check["reason"] for name, check in part["checks"].items() if check["reason"]}
    return {
        **{name: f"WRONG, not ranked: {reason}" for name, reason in wrong.items()},
        **{name: f"failed: {reason}" for name, reason in result["failed"].items() if name not in part["summary"]},
        **{name: f"missing: {reason}" for name, reason in result["missing"].items()},
    }
