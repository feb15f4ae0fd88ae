"""UCF-101: class folders, names v_Class_gXX_cYY, and three official splits as lists of paths."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePath

from dali_pipes.corpus.layouts.places import Entry, Place, Places, compare, folder_of, match, some
from dali_pipes.corpus.layouts.tables import read_text
from dali_pipes.errors import DataError

# v_ApplyEyeMakeup_g01_c04: class, recording, clip of it.
_NAME = re.compile(r"^v_(?P<label>.+)_g(?P<group>\d+)_c\d+$")
# The folder in which the lists are distributed.
_FOLDER = "ucfTrainTestlist"


def ucf101(videos: Sequence[PurePath], splits: Path | None, fold: int) -> Places:
    """Class folders, or flat files named v_Class_gXX_cYY; split lists of the form `Class/v_Class_gXX_cYY.avi 1`."""
    if splits is not None and (splits / _FOLDER).is_dir():
        splits = splits / _FOLDER
    entries = _listed(splits, fold) if splits is not None else []
    classes = _classes(splits) if splits is not None else {}
    found = match(videos, entries)

    places, unknown = [], set()
    for video, at in zip(videos, found, strict=True):
        named = _NAME.match(video.stem)
        entry = None if at is None else entries[at]
        label = (folder_of(entry.path) if entry is not None else "") or folder_of(video)
        if not label and named:
            label = named["label"]
        # Folder and file names of one class differ in their capitals (HandstandPushups); the class list decides.
        label = classes.get(label.lower(), label)
        if classes and label.lower() not in classes:
            unknown.add(label)
        split = entry.place.split if entry is not None else ""
        places.append(Place(label, split, f"{label}_g{named['group']}" if named else ""))

    warnings = []
    if unknown:
        warnings.append(f"classes that classInd.txt does not list: {some(sorted(unknown))}")
    if splits is None:
        return Places(places, warnings)
    listing = compare("ucf101", fold, videos, entries, found)
    return Places(places, warnings + listing.warnings(), listing)


def _listed(splits: Path, fold: int) -> list[Entry]:
    """Entries of the train, test and (where there is one) val list of a fold."""
    if not splits.is_dir():
        raise DataError(f"splits {splits}: no such folder")
    entries: list[Entry] = []
    for split in ("train", "test", "val"):
        path = splits / f"{split}list{fold:02d}.txt"
        if not path.is_file():
            there = sorted(splits.glob(f"{split}list*.txt"))
            named = [path for path in there if path.name.startswith(f"{split}list_")]
            if len(named) == 1 and len(there) == 1:
                path = named[0]
            elif split == "val" and not there:
                continue
            else:
                has = ", ".join(path.name for path in there) or "none"
                raise DataError(f"splits {splits}: no {path.name} for fold {fold}; {split} lists there: {has}")
        entries += [Entry(entry, Place(split=split)) for entry in _paths(path)]
    seen: dict[str, str] = {}
    once = []
    for entry in entries:
        key, split = "/".join([*entry.path.parts[-2:-1], entry.path.stem]).lower(), entry.place.split
        if key not in seen:
            once.append(entry)
        if seen.setdefault(key, split) != split:
            raise DataError(f"splits {splits}: {entry.path} is in the {seen[key]} and the {split} list")
    return once


def _paths(path: Path) -> list[str]:
    entries = []
    for line in read_text(path).splitlines():
        # Train lists carry the class number behind the path, which may contain spaces itself.
        text = re.sub(r"\s+\d+$", "", line.strip())
        if text:
            entries.append(text.replace("\\", "/"))
    if not entries:
        raise DataError(f"{path}: the list is empty")
    return entries


def _classes(splits: Path) -> dict[str, str]:
    """Official spelling of the class names by their lower-case form; empty where there is no classInd.txt."""
    path = splits / "classInd.txt"
    if not path.is_file():
        return {}
    names = [line.split(maxsplit=1) for line in read_text(path).splitlines() if line.strip()]
    for number, words in enumerate(names, start=1):
        if len(words) != 2 or not words[0].isdigit():
            raise DataError(f"{path}: line {number}: {' '.join(words)!r}: expected a number and a class name")
    return {words[1].strip().lower(): words[1].strip() for words in names}
