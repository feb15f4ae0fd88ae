"""Any data set whose videos stand in a CSV file: a column of paths, and columns of labels, splits and groups."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath

from dali_pipes.corpus.layouts.folders import split_named
from dali_pipes.corpus.layouts.places import Entry, Place, Places, compare, folder_of, match
from dali_pipes.corpus.layouts.tables import parse_table, read_text
from dali_pipes.errors import DataError

# Names of the columns, the first that is there counts.
_PATH = ("path", "uri", "file", "filename", "file_name", "filepath", "file_path", "video", "video_path", "clip_name")
_LABEL = ("label", "class", "action", "category", "class_name", "label_name")
_SPLIT = ("split", "set", "subset", "partition")
_GROUP = ("group", "person", "subject", "actor", "source", "recording")


def csv_list(videos: Sequence[PurePath], splits: Path | None, fold: int) -> Places:
    """Videos of a folder, by the rows of a CSV file that name them; without a label column the folder is the label."""
    if splits is None:
        raise DataError("layout 'csv': say which CSV file: --splits FILE.csv, or that file in place of the folder")
    if fold != 1:
        raise DataError(f"fold {fold}: layout 'csv' has one split only, in its column; leave --fold out")
    if not splits.is_file():
        raise DataError(f"splits {splits}: no such file; layout 'csv' takes a CSV file")
    entries = read_entries(read_text(splits), str(splits))
    found = match(videos, entries)
    places = []
    for video, at in zip(videos, found, strict=True):
        said = Place() if at is None else entries[at].place
        places.append(Place(said.label or folder_of(video), said.split, said.group))
    listing = compare("csv", fold, videos, entries, found)
    return Places(places, listing.warnings(), listing)


def read_entries(text: str, path: str) -> list[Entry]:
    """Entries of a CSV file with a header.

    Raises:
        DataError: It has no column of paths, no rows, or names a video twice.
    """
    table = parse_table(text, path)
    file = table.column(_PATH)
    if file is None:
        raise DataError(f"{path}: no column of paths in its header ({', '.join(table.columns)}); name one {_PATH[0]!r}")
    label, split, group = (table.column(names) for names in (_LABEL, _SPLIT, _GROUP))
    entries, seen = [], set()
    for number, cells in table.rows:
        name = cells[file]
        if not name:
            raise DataError(f"{path}: line {number}: its path is empty")
        if name in seen:
            raise DataError(f"{path}: line {number}: {name} is listed twice")
        seen.add(name)
        said = "" if split is None else split_named(cells[split]) or cells[split]
        place = Place("" if label is None else cells[label], said, "" if group is None else cells[group])
        entries.append(Entry(name, place))
    if not entries:
        raise DataError(f"{path}: the table has a header and no rows")
    return entries
