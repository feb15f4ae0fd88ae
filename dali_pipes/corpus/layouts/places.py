"""What a layout says about videos, and how videos are found in a list that names them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

from dali_pipes.corpus.listing import Listing


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
        listing: What the lists name beside what is there; None without lists.
    """

    places: list[Place]
    warnings: list[str] = field(default_factory=list)
    listing: Listing | None = None


@dataclass(frozen=True)
class Entry:
    """A line of a list.

    Attributes:
        text: Path or address of the video, as the list says it.
        place: What the list says about it.
    """

    text: str
    place: Place

    @property
    def path(self) -> PurePath:
        """As a path, slashes forward."""
        return PurePath(self.text.replace("\\", "/"))


def match(videos: Sequence[PurePath], entries: Sequence[Entry]) -> list[int | None]:
    """Which entry names each video; an entry names one video at most, capitals do not matter.

    By path, else by path without suffix, else by folder and name, else by name alone where only one entry has it: so
    transcoded, moved and flat copies are found too.
    """
    found: list[int | None] = [None] * len(videos)
    taken: set[int] = set()
    for key in (_path, _path_without_suffix, _folder_and_name, _name):
        named: dict[str, list[int]] = {}
        for i, entry in enumerate(entries):
            named.setdefault(key(entry.path), []).append(i)
        for v, video in enumerate(videos):
            same = named.get(key(video), []) if found[v] is None else []
            if len(same) == 1 and same[0] not in taken:
                found[v] = same[0]
                taken.add(same[0])
    return found


def compare(
    layout: str, fold: int, videos: Sequence[PurePath], entries: Sequence[Entry], found: Sequence[int | None]
) -> Listing:
    """Count what is missing and what is surplus, from the answer of `match`."""
    there = set(found)
    return Listing.of(
        layout,
        fold,
        (entry.place.split for entry in entries),
        ((entry.place.split, entry.text) for i, entry in enumerate(entries) if i not in there),
        (str(video) for video, at in zip(videos, found, strict=True) if at is None),
    )


def some(names: Sequence[str], most: int = 3) -> str:
    """The first few names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def folder_of(video: PurePath) -> str:
    """Name of the folder that a video lies in, "" where it lies in none."""
    return video.parts[-2] if len(video.parts) > 1 else ""


def _path(path: PurePath) -> str:
    return "/".join(path.parts).lower()


def _path_without_suffix(path: PurePath) -> str:
    return "/".join([*path.parts[:-1], path.stem]).lower()


def _folder_and_name(path: PurePath) -> str:
    return "/".join([*path.parts[-2:-1], path.stem]).lower()


def _name(path: PurePath) -> str:
    return path.stem.lower()
