"""HMDB-51: class folders, and three official splits as one file for each class and split."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePath

from dali_pipes.corpus.layouts.places import Entry, Place, Places, compare, folder_of, match
from dali_pipes.corpus.layouts.tables import read_text
from dali_pipes.errors import DataError

# The folder in which the lists are distributed.
_FOLDER = "testTrainMulti_7030_splits"
_LIST = re.compile(r"^(?P<label>.+)_test_split(?P<fold>\d+)\.txt$")
_SPLITS = {"0": "", "1": "train", "2": "test"}
# Behind source and class: visible body parts, camera motion, number of persons, view, quality, number of the clip.
_PROPERTIES = re.compile(r"_[a-z]_(?:cm|nm)_np\d+_[a-z]{2}_[a-z]{3}_\d+$", re.IGNORECASE)


def hmdb51(videos: Sequence[PurePath], splits: Path | None, fold: int) -> Places:
    """Class folders, or flat files where lists say the class; the group is the film that a clip was cut from."""
    entries = _listed(splits, fold) if splits is not None else []
    found = match(videos, entries)
    places = []
    for video, at in zip(videos, found, strict=True):
        entry = None if at is None else entries[at]
        label = entry.place.label if entry is not None else folder_of(video)
        places.append(Place(label, entry.place.split if entry is not None else "", _source(video.stem, label)))
    if splits is None:
        return Places(places)
    listing = compare("hmdb51", fold, videos, entries, found)
    return Places(places, listing.warnings(), listing)


def _source(name: str, label: str) -> str:
    """`TrumanShow` of `TrumanShow_wave_f_nm_np1_fr_med_26`; "" where the name is of another form."""
    described, properties = _PROPERTIES.subn("", name)
    ending = f"_{label}"
    if not properties or not label or not described.lower().endswith(ending.lower()):
        return ""
    return described[: -len(ending)]


def _listed(splits: Path, fold: int) -> list[Entry]:
    """Entries of all classes of a fold: lines of the form `NAME.avi 1`, 1 for train, 2 for test, 0 for neither."""
    if not splits.is_dir():
        raise DataError(f"splits {splits}: no such folder")
    if (splits / _FOLDER).is_dir():
        splits = splits / _FOLDER
    lists = [(path, named) for path in sorted(splits.iterdir()) if (named := _LIST.match(path.name))]
    chosen = [(path, named["label"]) for path, named in lists if int(named["fold"]) == fold]
    if not chosen:
        folds = sorted({int(named["fold"]) for _, named in lists})
        there = f"folds there: {', '.join(map(str, folds))}" if folds else "no file CLASS_test_splitN.txt there"
        raise DataError(f"splits {splits}: no CLASS_test_split{fold}.txt for fold {fold}; {there}")
    entries = []
    for path, label in chosen:
        for number, line in enumerate(read_text(path).splitlines(), start=1):
            if not line.strip():
                continue
            name, _, flag = line.strip().rpartition(" ")
            if not name or flag not in _SPLITS:
                wanted = "a file name and 0, 1 (train) or 2 (test)"
                raise DataError(f"{path}: line {number}: {line.strip()!r}: expected {wanted}")
            entries.append(Entry(f"{label}/{name.strip()}", Place(label, _SPLITS[flag])))
    return entries
