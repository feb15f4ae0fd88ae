"""Finding what a command was pointed at: a corpus file, a folder of videos, or one video."""

from __future__ import annotations

import os
from dataclasses import asdict

import numpy as np

from dali_pipes.corpus import Corpus, Video
from dali_pipes.corpus.probe import probe
from dali_pipes.corpus.storage.address import local_path, scheme, split_tar
from dali_pipes.errors import DataError, VideoError


def open_corpus(path: str | os.PathLike[str], *, progress: bool = True) -> Corpus:
    """A corpus file as it is; or videos probed on the spot, in memory only.

    Args:
        path: Corpus file, folder of videos, address of a remote one, or tar shard.
        progress: Whether to report progress on standard error.

    Raises:
        DataError: There is neither, or it holds no video.
    """
    name = str(path)
    if os.path.isdir(path) or "://" in name or name.endswith(".tar"):
        return Corpus.build(path, progress=progress)
    return Corpus.open(path)


def find_video(name: str, corpus: str | os.PathLike[str] | None = None, *, thorough: bool = False) -> Video:
    """One video: its row in a corpus, or probed on the spot.

    Args:
        name: Path or address.
        corpus: Corpus file to look it up in, by path or else by file name; None: probe it.
        thorough: Probe by decoding every frame.

    Raises:
        DataError: There is no such file, or the corpus has no or several such videos.
        VideoError: The video cannot be used.
    """
    if corpus is not None:
        return _in_corpus(name, Corpus.open(corpus))
    path = local_path(name)
    if path is not None and not os.path.exists(path):
        raise DataError(f"{name}: no such file")
    if path is not None and os.path.isdir(path):
        raise DataError(f"{name}: a folder; `dali-pipes inspect` takes one video, `dali-pipes index` a folder")
    row = asdict(probe(name if path is None else os.path.abspath(path), thorough=thorough))
    return Corpus.from_rows([{"label": "", "split": "", "group": ""} | row])[0]


def _base(uri: str) -> str:
    """File name; of a member of a tar shard, that of the member."""
    return (split_tar(uri)[0] if scheme(uri) == "tar" else uri).rpartition("/")[2]


def _in_corpus(name: str, corpus: Corpus) -> Video:
    uris = corpus.column("uri")
    path = local_path(name)
    found = np.flatnonzero(uris == (name if path is None else os.path.abspath(path)))
    if not len(found):
        found = np.flatnonzero([_base(uri) == _base(name) for uri in uris.tolist()])
    if not len(found):
        raise DataError(f"{name}: not among the {len(corpus)} videos of {corpus.path}")
    if len(found) > 1:
        raise DataError(f"{name}: {len(found)} videos of {corpus.path} have this name; give the whole path")
    video = corpus[int(found[0])]
    if video.error:
        raise VideoError(video.uri, video.error)
    return video
