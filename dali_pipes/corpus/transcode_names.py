"""Where the copy of each video goes: a folder that looks like the sources'."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import PurePosixPath

from dali_pipes.corpus.storage.address import local_path, scheme, split_tar
from dali_pipes.corpus.transcode import SUFFIX
from dali_pipes.errors import VideoError


def copy_names(uris: Sequence[str], labels: Collection[str] = ()) -> list[str]:
    """Relative paths of the copies, unique.

    Folders are those of the sources below the folder that all share; a folder named like a label is kept even where
    all share it. A member of a tar shard lies in a folder named like the shard.

    Args:
        uris: Of the sources.
        labels: Of the corpus.

    Returns:
        One path for each, with the suffix of the copies.

    >>> copy_names(["/a/walk/x.avi", "/a/run/y.mp4", "/a/run/y.avi"])
    ['walk/x.mp4', 'run/y.mp4.mp4', 'run/y.avi.mp4']
    """
    paths = [_path(uri) for uri in uris]
    if not paths:
        return []
    root = PurePosixPath(os.path.commonpath([path.parent for path in paths]))
    while root.name and root.name in labels:
        root = root.parent
    relative = [path.relative_to(root) for path in paths]
    short = [str(path.with_suffix(SUFFIX)) for path in relative]
    # Two sources that differ in their suffix alone keep it.
    counts = Counter(short)
    names = [name if counts[name] == 1 else f"{path}{SUFFIX}" for name, path in zip(short, relative, strict=True)]
    taken: set[str] = set()
    for place, name in enumerate(names):
        number = 2
        while names[place] in taken:
            names[place] = f"{name.removesuffix(SUFFIX)}-{number}{SUFFIX}"
            number += 1
        taken.add(names[place])
    return names


def _path(uri: str) -> PurePosixPath:
    """A path that stands for an address, absolute, without anything that leads upwards."""
    if scheme(uri) == "tar":
        # A malformed one has an error in its row and gets no copy, so any name will do.
        with suppress(VideoError):
            member, shard = split_tar(uri)
            return _path(shard).with_suffix("") / _path("/" + member).relative_to("/")
    plain = local_path(uri)
    if plain is None:
        plain = uri.partition("://")[2].partition("?")[0]
    parts = [part for part in PurePosixPath(plain).parts if part not in ("..", "/")]
    return PurePosixPath("/", *(parts or ["video"]))
