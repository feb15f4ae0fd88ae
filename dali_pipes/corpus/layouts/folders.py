"""Class folders, perhaps within folders of the splits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath

from dali_pipes.corpus.layouts.places import Place, Places
from dali_pipes.errors import DataError

_SPLITS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validate": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


def folders(videos: Sequence[PurePath], splits: Path | None, fold: int) -> Places:
    """First-level folders are classes; or splits, where all of them are named so, and the next level is the class."""
    if splits is not None:
        raise DataError(f"splits {splits}: layout 'folders' has no split lists; layout 'ucf101' reads them")
    firsts = {video.parts[0].lower() for video in videos if len(video.parts) > 1}
    with_splits = bool(firsts) and firsts <= _SPLITS.keys()
    places = []
    for video in videos:
        above = video.parts[:-1]
        split = split_of(video) if with_splits else ""
        rest = above[1:] if split else above
        places.append(Place(rest[0] if rest else "", split))
    return Places(places)


def split_named(name: str) -> str:
    """The split that a word names (`training` is train, `validate` is val), "" where it names none."""
    return _SPLITS.get(name.strip().lower(), "")


def split_of(path: PurePath) -> str:
    """The split that the first folder of a path names, "" where it names none."""
    return split_named(path.parts[0]) if len(path.parts) > 1 else ""
