"""How a folder of videos says what they show: label, split and group from paths and official split lists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path, PurePath

from dali_pipes.corpus.layouts.csv_list import csv_list
from dali_pipes.corpus.layouts.folders import folders, split_of
from dali_pipes.corpus.layouts.hmdb51 import hmdb51
from dali_pipes.corpus.layouts.kinetics import kinetics
from dali_pipes.corpus.layouts.places import Place, Places
from dali_pipes.corpus.layouts.ucf101 import ucf101
from dali_pipes.errors import DataError

__all__ = ["LAYOUTS", "NAMES", "Place", "Places", "place", "split_of"]

Layout = Callable[[Sequence[PurePath], "Path | None", int], Places]

LAYOUTS: dict[str, Layout] = {
    "folders": folders,
    "ucf101": ucf101,
    "hmdb51": hmdb51,
    "kinetics": kinetics,
    "csv": csv_list,
}
# With those whose labels stand in the shards or in the list itself (`dali_pipes.corpus.sources`).
NAMES = (*LAYOUTS, "webdataset", "list")


def place(videos: Sequence[PurePath], layout: str, *, splits: Path | None = None, fold: int = 1) -> Places:
    """Find the label, split and group of videos.

    Args:
        videos: Paths relative to the folder that is indexed.
        layout: A key of `LAYOUTS`.
        splits: Official split lists, for layouts that have such: the folder that holds them, or a single file.
        fold: Which of several official splits.

    Raises:
        DataError: The layout is unknown, or the split lists are missing or contradict each other.
    """
    if layout not in LAYOUTS:
        raise DataError(f"layout {layout!r}: must be one of {', '.join(NAMES)}")
    return LAYOUTS[layout](videos, splits, fold)
