"""Finding what a command was pointed at: a corpus file, a folder of videos, or one video."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from typing import Any

import av
import numpy as np

from dali_pipes.corpus import Corpus, Video
from dali_pipes.corpus.engine import Lost, run_all
from dali_pipes.corpus.files import matcher
from dali_pipes.corpus.probe import Probed, probe, probe_row
from dali_pipes.corpus.storage import StorageOptions, configure_storage, stat_source, storage_options
from dali_pipes.corpus.storage.address import local_path, scheme, split_tar
from dali_pipes.corpus.storage.tar import SHARDS, is_shard
from dali_pipes.errors import DataError, VideoError
from dali_pipes.progress import Progress


def open_corpus(path: str | os.PathLike[str], *, progress: bool = True, **where: Any) -> Corpus:
    """A corpus file as it is; or videos probed on the spot, in memory only.

    Args:
        path: Corpus file, folder of videos or of tar shards, address of a remote one, tar shard, text file of addresses
            (`.txt` or `.tsv`), or one video by its path or address.
        progress: Whether to report progress on standard error.
        where: `engine`, `address`, `workers` and `timeout` of the probe; see `dali_pipes.corpus.build.build`.

    Raises:
        DataError: There is neither, or it holds no video.
    """
    name = os.fspath(path)
    local = local_path(name)
    if local is None:
        if scheme(name) == "tar" or matcher()(base_name(name)):
            return _of_one(name, progress, where)
        if name.lower().endswith(".parquet"):
            raise DataError(
                f"{name}: a corpus file is read from this machine; download it, or give the videos' address"
            )
        return Corpus.build(name, _layout(name), progress=progress, **where)
    if os.path.isdir(local) or (os.path.isfile(local) and (is_shard(local) or _layout(local) == "list")):
        return Corpus.build(local, _layout(local), progress=progress, **where)
    if matcher()(os.path.basename(local)):
        return _of_one(os.path.abspath(local), progress, where)
    return Corpus.open(local)


def _layout(name: str) -> str:
    """The layout of a root whose videos can be found in one way only."""
    if name.lower().endswith((".txt", ".tsv")):
        return "list"
    if os.path.isdir(name) and not any(map(matcher(), _names(name))) and any(map(matcher(SHARDS), _names(name))):
        return "webdataset"
    return "folders"


def _names(folder: str) -> Iterator[str]:
    return (name for _, _, names in os.walk(folder, followlinks=False) for name in names)


def _of_one(uri: str, progress: bool, where: dict[str, Any]) -> Corpus:
    """One video, probed in a process of its own; where it cannot be used its row says why."""
    stat_source(uri)  # one that is not there is a mistake, and no row
    options = {"storage": storage_options()}
    with (
        Progress("probe", 1, enabled=progress) as bar,
        closing(run_all(_probed, [uri], options=options, **where)) as one,
    ):
        _, row = next(one)
        bar.advance()
    if isinstance(row, Lost):
        row = asdict(Probed(uri, error=row.reason))
    return Corpus.from_rows([{"label": "", "split": "", "group": ""} | row])


def _probed(uri: str, *, storage: StorageOptions) -> dict[str, Any]:
    configure_storage(storage)
    # What FFmpeg has to say about a broken file is in the row, once.
    av.logging.set_level(None)
    return probe_row(uri)


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


def base_name(uri: str) -> str:
    """File name; of a member of a tar shard, that of the member."""
    return (split_tar(uri)[0] if scheme(uri) == "tar" else uri).rpartition("/")[2]


def _in_corpus(name: str, corpus: Corpus) -> Video:
    uris = corpus.column("uri")
    path = local_path(name)
    found = np.flatnonzero(uris == (name if path is None else os.path.abspath(path)))
    if not len(found):
        found = np.flatnonzero([base_name(uri) == base_name(name) for uri in uris.tolist()])
    if not len(found):
        raise DataError(f"{name}: not among the {len(corpus)} videos of {corpus.path}")
    if len(found) > 1:
        raise DataError(f"{name}: {len(found)} videos of {corpus.path} have this name; give the whole path")
    video = corpus[int(found[0])]
    if video.error:
        raise VideoError(video.uri, video.error)
    return video
