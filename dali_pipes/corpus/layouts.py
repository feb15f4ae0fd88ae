"""How a folder of videos says what they show: label, split and group from paths and official split lists."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from dali_pipes.errors import DataError

_SPLIT_FOLDERS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
# v_ApplyEyeMakeup_g01_c04: class, recording, clip of it.
_UCF_NAME = re.compile(r"^v_(?P<label>.+)_g(?P<group>\d+)_c\d+$")


@dataclass(frozen=True)
class Place:
    """What a video's place says about it.

    Attributes:
        label: Class name, "" where unknown.
        split: "train", "val", "test" or "".
        group: Name shared by videos of one recording, "" where unknown.
    """

    label: str = ""
    split: str = ""
    group: str = ""


@dataclass
class Places:
    """Places of all videos of a folder.

    Attributes:
        places: One for each video, in the order given.
        warnings: What does not fit together, one line each.
    """

    places: list[Place]
    warnings: list[str] = field(default_factory=list)


Layout = Callable[[Sequence[PurePath], "Path | None", int], Places]


def place(videos: Sequence[PurePath], layout: str, *, splits: Path | None = None, fold: int = 1) -> Places:
    """Find the label, split and group of videos.

    Args:
        videos: Paths relative to the folder that is indexed.
        layout: A key of `LAYOUTS`.
        splits: Folder of official split lists, for layouts that have such.
        fold: Which of several official splits.

    Raises:
        DataError: The layout is unknown, or the split lists are missing or contradict each other.
    """
    if layout not in LAYOUTS:
        raise DataError(f"layout {layout!r}: must be one of {', '.join(NAMES)}")
    return LAYOUTS[layout](videos, splits, fold)


def _folders(videos: Sequence[PurePath], splits: Path | None, fold: int) -> Places:
    """First-level folders are classes; or splits, where all of them are named so, and the next level is the class."""
    if splits is not None:
        raise DataError(f"splits {splits}: layout 'folders' has no split lists; layout 'ucf101' reads them")
    firsts = {video.parts[0].lower() for video in videos if len(video.parts) > 1}
    with_splits = bool(firsts) and firsts <= _SPLIT_FOLDERS.keys()
    places = []
    for video in videos:
        folders = video.parts[:-1]
        split = _SPLIT_FOLDERS[folders[0].lower()] if with_splits and folders else ""
        rest = folders[1:] if split else folders
        places.append(Place(rest[0] if rest else "", split))
    return Places(places)


def _ucf101(videos: Sequence[PurePath], splits: Path | None, fold: int) -> Places:
    """Class folders, or flat files named v_Class_gXX_cYY; split lists of the form `Class/v_Class_gXX_cYY.avi 1`."""
    lists = _split_lists(splits, fold) if splits is not None else {}
    classes = _classes(splits) if splits is not None else {}
    listed = {_key(entry): (split, entry) for split, entries in lists.items() for entry in entries}
    stems: dict[str, list[str]] = {}
    for name in listed:
        stems.setdefault(name.rpartition("/")[2], []).append(name)

    places, found, unknown = [], set(), set()
    for video in videos:
        named = _UCF_NAME.match(video.stem)
        label = video.parts[-2] if len(video.parts) > 1 else ""
        key: str | None = f"{label}/{video.stem}".lower()
        if key not in listed:
            # Files in another folder than the list says, or in none: the name alone, where only one has it.
            same_name = stems.get(video.stem.lower(), [])
            key = same_name[0] if len(same_name) == 1 else None
        split = ""
        if key is not None:
            found.add(key)
            split, entry = listed[key]
            label = entry.parts[-2] if len(entry.parts) > 1 else label
        if not label and named:
            label = named["label"]
        # Folder and file names of one class differ in their capitals (HandstandPushups); the class list decides.
        label = classes.get(label.lower(), label)
        if classes and label.lower() not in classes:
            unknown.add(label)
        places.append(Place(label, split, f"{label}_g{named['group']}" if named else ""))

    warnings = []
    if unknown:
        warnings.append(f"classes that classInd.txt does not list: {_some(sorted(unknown))}")
    absent = sorted(str(listed[name][1]) for name in listed.keys() - found)
    if absent:
        warnings.append(f"{len(absent)} of {len(listed)} listed videos are not in the folder: {_some(absent)}")
    return Places(places, warnings)


def _key(entry: PurePath) -> str:
    return "/".join([*entry.parts[-2:-1], entry.stem]).lower()


def _split_lists(splits: Path, fold: int) -> dict[str, list[PurePath]]:
    """Entries of the train, test and (where there is one) val list of a fold."""
    if not splits.is_dir():
        raise DataError(f"splits {splits}: no such folder")
    lists = {}
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
        lists[split] = _entries(path)
    seen: dict[str, str] = {}
    for split, entries in lists.items():
        for entry in entries:
            if seen.setdefault(_key(entry), split) != split:
                raise DataError(f"splits {splits}: {entry} is in the {seen[_key(entry)]} and the {split} list")
    return lists


def _entries(path: Path) -> list[PurePath]:
    entries = []
    for line in path.read_text(encoding="utf-8-sig").splitlines():
        # Train lists carry the class number behind the path, which may contain spaces itself.
        text = re.sub(r"\s+\d+$", "", line.strip())
        if text:
            entries.append(PurePath(text.replace("\\", "/")))
    if not entries:
        raise DataError(f"{path}: the list is empty")
    return entries


def _classes(splits: Path) -> dict[str, str]:
    """Official spelling of the class names by their lower-case form; empty where there is no classInd.txt."""
    path = splits / "classInd.txt"
    if not path.is_file():
        return {}
    names = [line.split(maxsplit=1) for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    for number, words in enumerate(names, start=1):
        if len(words) != 2 or not words[0].isdigit():
            raise DataError(f"{path}: line {number}: {' '.join(words)!r}: expected a number and a class name")
    return {words[1].strip().lower(): words[1].strip() for words in names}


def _some(names: Iterable[str], most: int = 3) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def split_of(path: PurePath) -> str:
    """The split that the first folder of a path names, "" where it names none."""
    return _SPLIT_FOLDERS.get(path.parts[0].lower(), "") if len(path.parts) > 1 else ""


LAYOUTS: dict[str, Layout] = {"folders": _folders, "ucf101": _ucf101}
# With those whose labels stand in the shards or in the list itself (`dali_pipes.corpus.sources`).
NAMES = (*LAYOUTS, "webdataset", "list")
