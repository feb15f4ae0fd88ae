"""Options and values that several commands take, with the same words for the same mistakes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from dali_pipes import Corpus
from dali_pipes.errors import DataError


def open_corpus(path: Path) -> Corpus:
    """Open an index, or index a folder in memory.

    Raises:
        DataError: If the path is neither.
    """
    if path.is_dir():
        return Corpus.build(path, "folders", progress=sys.stderr.isatty())
    if path.suffix == ".parquet" and path.is_file():
        return Corpus.open(path)
    raise DataError(f"{path}: neither a folder of videos nor a .parquet index")


def device(text: str) -> torch.device:
    """The torch device of that name.

    Raises:
        DataError: If torch does not know it or cannot use it.
    """
    try:
        chosen = torch.device(text)
    except RuntimeError:
        raise DataError(f"--device {text}: expected cpu, cuda or cuda:N") from None
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise DataError(f"--device {text}: torch finds no CUDA device; use cpu")
    return chosen


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 1")
    return value


def speeds(text: str) -> tuple[float, ...]:
    """`1,2` -> (1.0, 2.0), for argparse."""
    values = tuple(float(part) for part in text.split(","))
    if not all(0 < value < float("inf") for value in values):
        raise argparse.ArgumentTypeError(f"{text}: playback speeds must be positive numbers")
    return values
