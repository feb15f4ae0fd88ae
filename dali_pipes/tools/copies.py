"""Whether a video is a raw file or a copy in a cache, and whether a cache holds a copy of it. Nothing is changed."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from dali_pipes.corpus import Video
from dali_pipes.decode.cache_folder import CopyFolder, is_cheap, preset_for, source_of
from dali_pipes.errors import DataError


def describe_copies(video: Video, folder: str | os.PathLike[str] | None = None, size: int = 112) -> dict[str, Any]:
    """What caches have to do with a video.

    Args:
        video: Row of a corpus.
        folder: Cache to look in; None: only tell whether the video is a copy itself.
        size: Side of the clips that the cache is used for, pixels; copies for other sizes are other copies.

    Returns:
        `copy_of`: address of the video that this file is a cache's copy of, "" where that is not known, None where it
        is no such copy. `folder`, `size`: as given; None without a folder. `status`: "copied", "absent", "not needed"
        (as cheap to decode as its copy would be), None without a folder. `copy`: `uri`, `bytes`, `width`, `height`,
        `frames` and `gop` (frames from key frame to key frame, the median) of the copy, or None.

    Raises:
        DataError: There is no such folder, or the size is not positive.
    """
    report: dict[str, Any] = {"copy_of": source_of(video.uri), "folder": None, "size": None, "status": None}
    report["copy"] = None
    if folder is None:
        return report
    if size < 1:
        raise DataError(f"--size {size}: must be at least 1, the side of the clips in pixels")
    if not os.path.isdir(folder):
        raise DataError(f"--cache {folder}: no such folder")
    report |= {"folder": os.path.abspath(folder), "size": size, "status": "absent"}
    copy = None
    # With random crops, as in training, and without.
    for preset in (preset_for(size), preset_for(size, crops=False)):
        # The limit is the business of who fills the folder.
        copy = copy or CopyFolder(folder, preset, limit=0).find(video)
    if copy is None and is_cheap(video, preset_for(size)):
        report["status"] = "not needed"
    elif copy is not None:
        lengths = np.diff(np.append(copy.key_frames, copy.frames))
        report["status"] = "copied"
        report["copy"] = {
            **{name: getattr(copy, name) for name in ("uri", "bytes", "width", "height", "frames")},
            "gop": float(np.median(lengths)),
        }
    return report


def copy_rows(report: dict[str, Any]) -> list[tuple[str, str]]:
    """The same for people: rows of a name and a text; none where there is nothing to say."""
    rows = []
    if report["copy_of"] is not None:
        rows.append(("kind", f"a copy in a cache, of {report['copy_of'] or 'a video that its row does not name'}"))
    elif report["folder"] is not None:
        rows.append(("kind", "the video itself, no copy in a cache"))
    copy = report["copy"]
    if copy is not None:
        rows += [
            ("cache", f"holds a copy for clips of {report['size']} pixels, which later visits read in its place:"),
            ("", copy["uri"]),
            (
                "",
                f"{copy['bytes']} bytes, {copy['width']} x {copy['height']}, {copy['frames']} frames, "
                f"a key frame every {copy['gop']:g}",
            ),
        ]
    elif report["status"] == "absent":
        rows.append(
            ("cache", f"no copy for clips of {report['size']} pixels; a visit queues one, unless the cache is full")
        )
    elif report["status"] == "not needed":
        rows.append(("cache", "no copy: as cheap to decode as its copy would be, so that none is made"))
    if copy is not None:
        rows.append(("drawn above", "the video itself; `dali-pipes inspect` with the copy's path draws the copy"))
    elif rows:
        rows.append(("drawn above", "this file"))
    return rows
