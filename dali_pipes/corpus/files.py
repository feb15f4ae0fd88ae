"""Which files are videos by their names, and where they lie under a local folder."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from dali_pipes.errors import DataError

SUFFIXES = (
    "3g2", "3gp", "asf", "avi", "divx", "dv", "f4v", "flv", "gif", "h264", "h265", "hevc", "ivf", "m2ts", "m2v", "m4v",
    "mj2", "mjpeg", "mjpg", "mkv", "mov", "mp4", "mpe", "mpeg", "mpg", "mts", "mxf", "nut", "ogm", "ogv", "qt", "rm",
    "rmvb", "ts", "vob", "webm", "wmv", "y4m",
)  # fmt: skip
PATTERNS = tuple(f"*.{suffix}" for suffix in SUFFIXES)


def matcher(patterns: Sequence[str] = PATTERNS) -> Callable[[str], bool]:
    """A function that says whether a file name, without folders, is one of those to take; hidden files never are.

    Args:
        patterns: Shell patterns; capitals do not matter.
    """
    wanted = [pattern.lower() for pattern in patterns]
    # One look-up for the usual patterns: there are many of them, and may be millions of names.
    endings = {pattern[1:] for pattern in wanted if pattern.startswith("*.") and not set(pattern[2:]) & set("*?[.")}
    others = [pattern for pattern in wanted if pattern[1:] not in endings]

    def takes(name: str) -> bool:
        low = name.lower()
        if low.startswith("."):
            return False
        return os.path.splitext(low)[1] in endings or any(fnmatch.fnmatchcase(low, pattern) for pattern in others)

    return takes


def find_videos(root: Path, patterns: Sequence[str] = PATTERNS) -> tuple[list[str], list[str]]:
    """Find the video files under a folder.

    Args:
        root: The folder; links to folders are followed.
        patterns: File names to take, as shell patterns; capitals do not matter.

    Returns:
        Paths relative to the folder, sorted; and warnings.

    Raises:
        DataError: There is no such folder, or no video in it.
    """
    if not root.is_dir():
        raise DataError(f"{root}: {'not a folder' if root.exists() else 'no such folder'}")
    takes = matcher(patterns)
    files, unnameable, seen = [], 0, set()
    for folder, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # links that lead back up
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not takes(name):
                continue
            path = os.path.relpath(os.path.join(folder, name), root)
            try:
                path.encode()
            except UnicodeEncodeError:
                unnameable += 1
                continue
            files.append(path)
    if not files:
        shown = " ".join(patterns[:4]) + (" ..." if len(patterns) > 4 else "")
        raise DataError(f"{root}: no videos there (looked for {shown})")
    warnings = [f"{unnameable} files left out: their names are not UTF-8"] if unnameable else []
    return sorted(files), warnings
