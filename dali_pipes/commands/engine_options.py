"""The options of commands that do one job for every file: in how many processes, on which machines, for how long."""

from __future__ import annotations

import argparse
import math
from typing import Any


def add_engine_options(parser: argparse.ArgumentParser, *, timeout: float = 60.0) -> None:
    """Add `--engine`, `--address`, `--workers` and `--timeout`.

    Args:
        parser: The parser of a command.
        timeout: Seconds for one file where the user says nothing.
    """
    parser.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="processes of this machine, or of a Ray cluster"
    )
    parser.add_argument(
        "--address", metavar="HOST:PORT", help="of a Ray cluster (default: RAY_ADDRESS, else Ray on this machine only)"
    )
    parser.add_argument(
        "--workers", type=positive_int, metavar="N", help="processes (default: one per core, of all machines with Ray)"
    )
    parser.add_argument(
        "--timeout",
        type=positive,
        default=timeout,
        metavar="SECONDS",
        help=f"for one file (default {timeout:g}), else an error",
    )


def engine_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the user chose, as keyword arguments for `dali_pipes.corpus.engine.run_all`.

    Args:
        arguments: Parsed by a parser with `add_engine_options`.

    Returns:
        `engine`, `address`, `workers` and `timeout`.
    """
    return {name: getattr(arguments, name) for name in ("engine", "address", "workers", "timeout")}


def positive(text: str) -> float:
    """A number above 0 and not infinite, for `type=` of an option."""
    value = float(text)
    # Also false of what is not a number, which no comparison holds for.
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: must be a number more than 0")
    return value


def positive_int(text: str) -> int:
    """A whole number of at least 1, for `type=` of an option."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be 1 or more")
    return value
