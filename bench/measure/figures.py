"""Figures of a result: one shape for all benchmarks, so that any two results of a kind can be compared and drawn."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from bench.measure import environment
from bench.measure.stats import estimate
from dali_pipes import Corpus

FORMAT = 1
# Measurements kept beside their median: as many as there may be rounds, not the steps of a run.
KEPT = 100
Better = Literal["higher", "lower"]


def figure(values: float | Sequence[float], unit: str, better: Better) -> dict[str, Any]:
    """A median with its 95 % interval, what it is measured in, and which way is the good one.

    Args:
        values: One measurement, or one of each round.
        unit: Such as "clips/s".
        better: Whether more of it is better, or less.

    Returns:
        `median`, `low`, `high`, `count`, `unit`, `better`: an entry of a result's `figures`. Where there are several
        measurements and they are not too many to keep, also `values`, which `bench compare` draws from.
    """
    sample = [float(value) for value in ([values] if isinstance(values, (int, float)) else values)]
    kept = {"values": sample} if 1 < len(sample) <= KEPT else {}
    return {**estimate(sample).as_dict(), "unit": unit, "better": better, **kept}


def header(
    benchmark: str, args: argparse.Namespace, corpus: Corpus | None = None, *, taken: Sequence[str] = ()
) -> dict[str, Any]:
    """The beginning of every result: what was measured, how, on what. Taken before measuring, for the load.

    Args:
        benchmark: Name of the command.
        args: Its arguments. `corpus`, of which only the name is kept, and paths of outputs are left out.
        corpus: The videos, if there are any.
        taken: Further arguments to leave out.
    """
    left_out = {"corpus", "command", "output", "out", *taken}
    result: dict[str, Any] = {
        "format": FORMAT,
        "benchmark": benchmark,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "arguments": {key: plain(value) for key, value in vars(args).items() if key not in left_out},
        "environment": environment.describe(),
    }
    if corpus is not None:
        result["corpus"] = {
            "name": Path(str(args.corpus)).name,
            "fingerprint": corpus.fingerprint,
            "videos": len(corpus),
            "usable": len(corpus.select()),
        }
    return result


def plain(value: Any) -> Any:
    """A value as JSON has it; of a path only its name, which says nothing of the machine."""
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return value.name if isinstance(value, Path) else str(value)
