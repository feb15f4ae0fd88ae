"""Kinetics-400, -600 and -700: annotation tables of YouTube clips, and files named by video and time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from dali_pipes.corpus.layouts.folders import split_named
from dali_pipes.corpus.layouts.places import Place, Places, some
from dali_pipes.corpus.layouts.tables import parse_table, read_text
from dali_pipes.corpus.listing import Listing
from dali_pipes.errors import DataError

# -3B32lodo2M_000059_000069: video, first and last second.
_NAME = re.compile(r"^(?P<id>.+)_(?P<start>\d{6})_(?P<end>\d{6})$")
_ID = "youtube_id"


@dataclass(frozen=True)
class _Clip:
    id: str
    start: int
    end: int
    label: str
    split: str

    @property
    def name(self) -> str:
        return f"{self.id}_{self.start:06d}_{self.end:06d}"


def kinetics(videos: Sequence[PurePath], splits: Path | None, fold: int) -> Places:
    """Files `ID_SSSSSS_EEEEEE.mp4` or `ID.mp4`, in class folders (spaces or underscores), split folders, or flat.

    The tables say label and split; without them, folders do. The group is the YouTube video.
    """
    if fold != 1:
        raise DataError(f"fold {fold}: Kinetics has one official split only; leave --fold out")
    clips, twice = _listed(splits) if splits is not None else ([], [])
    found = _match(videos, clips)
    spelt = {_plain(clip.label): clip.label for clip in clips}
    ids = {clip.id for clip in clips}
    places = []
    for video, at in zip(videos, found, strict=True):
        named = _NAME.match(video.stem)
        group = named["id"] if named else video.stem if video.stem in ids else ""
        above = [folder for folder in video.parts[:-1] if not split_named(folder)]
        label = above[-1] if above else ""
        label = spelt.get(_plain(label), label)
        if at is not None:
            places.append(Place(clips[at].label or label, clips[at].split, group))
        else:
            split = "" if clips else next((s for f in video.parts[:-1] if (s := split_named(f))), "")
            places.append(Place(label, split, group))
    if splits is None:
        return Places(places)
    there = set(found)
    listing = Listing.of(
        "kinetics",
        fold,
        (clip.split for clip in clips),
        ((clip.split, clip.name) for i, clip in enumerate(clips) if i not in there),
        (str(video) for video, at in zip(videos, found, strict=True) if at is None),
    )
    warnings = [f"{len(twice)} clips are listed in two splits, the first counts: {some(twice)}"] if twice else []
    return Places(places, warnings + listing.warnings(), listing)


def _match(videos: Sequence[PurePath], clips: Sequence[_Clip]) -> list[int | None]:
    """Which clip each file is; a clip is one file at most. Names of videos differ in capitals alone."""
    found: list[int | None] = [None] * len(videos)
    by_name: dict[tuple[str, int, int], int] = {}
    by_id: dict[str, list[int]] = {}
    for i, clip in enumerate(clips):
        by_name[clip.id, clip.start, clip.end] = i
        by_id.setdefault(clip.id, []).append(i)
    taken: set[int] = set()
    for v, video in enumerate(videos):
        named = _NAME.match(video.stem)
        at = by_name.get((named["id"], int(named["start"]), int(named["end"]))) if named else None
        if at is not None and at not in taken:
            found[v] = at
            taken.add(at)
    for v, video in enumerate(videos):
        if found[v] is not None:
            continue
        same = by_id.get(video.stem, [])
        if len(same) > 1:
            # One video may have clips in several splits; the folder then says which this is.
            said = {split_named(folder) for folder in video.parts[:-1]}
            same = [i for i in same if clips[i].split in said]
        if len(same) == 1 and same[0] not in taken:
            found[v] = same[0]
            taken.add(same[0])
    return found


def _listed(splits: Path) -> tuple[list[_Clip], list[str]]:
    """All clips of the tables, and the names of those that two splits list."""
    if splits.is_dir():
        paths = sorted(path for path in splits.iterdir() if path.suffix.lower() == ".csv")
    elif splits.is_file():
        paths = [splits]
    else:
        raise DataError(f"splits {splits}: no such file or folder")
    clips: dict[tuple[str, int, int], _Clip] = {}
    twice = []
    read = 0
    for path in paths:
        table = parse_table(read_text(path), str(path))
        # Such folders hold other tables too, of class numbers for instance.
        if _ID not in table.columns and len(paths) > 1:
            continue
        read += 1
        for clip in _clips_of(table.path, table.columns, table.rows):
            known = clips.setdefault((clip.id, clip.start, clip.end), clip)
            if known.split != clip.split:
                twice.append(clip.name)
    if not read:
        raise DataError(f"splits {splits}: no table of Kinetics there: a CSV file with a column {_ID!r}")
    return list(clips.values()), twice


def _clips_of(path: str, columns: list[str], rows: list[tuple[int, list[str]]]) -> list[_Clip]:
    for name in (_ID, "time_start", "time_end"):
        if name not in columns:
            raise DataError(f"{path}: no column {name!r}; Kinetics tables have label, youtube_id, time_start, time_end")
    video, start, end = (columns.index(name) for name in (_ID, "time_start", "time_end"))
    # Some releases leave these out: `split` where the name of the table says it, `label` where the videos are test.
    label = columns.index("label") if "label" in columns else None
    split = columns.index("split") if "split" in columns else None
    # kinetics-400_val.csv: the last word of its name.
    by_name = split_named(re.split(r"[^a-zA-Z]+", PurePath(path).stem)[-1])
    clips = []
    for number, cells in rows:
        try:
            first, last = int(float(cells[start])), int(float(cells[end]))
        except ValueError:
            times = f"{cells[start]!r} and {cells[end]!r}"
            raise DataError(f"{path}: line {number}: {times}: expected the first and the last second") from None
        said = by_name if split is None else split_named(cells[split]) or cells[split] or by_name
        clips.append(_Clip(cells[video], first, last, "" if label is None else cells[label], said))
    return clips


def _plain(label: str) -> str:
    return label.replace("_", " ").strip().lower()
