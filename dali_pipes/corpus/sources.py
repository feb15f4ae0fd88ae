"""Where the videos of a corpus are found: a folder, a remote prefix, tar shards, or a list of addresses."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from urllib.parse import unquote

from dali_pipes.corpus.files import PATTERNS, find_videos, matcher
from dali_pipes.corpus.layouts import NAMES, Place, Places, place, split_of
from dali_pipes.corpus.layouts.csv_list import read_entries
from dali_pipes.corpus.listing import Listing
from dali_pipes.corpus.storage import Stat, open_source, stat_source
from dali_pipes.corpus.storage.address import local_path, scheme, split_tar, tar_uri
from dali_pipes.corpus.storage.remote import file_system, request
from dali_pipes.corpus.storage.source import stat_of
from dali_pipes.corpus.storage.tar import SHARDS, Shard, is_shard, key_of, read_shard
from dali_pipes.errors import DataError, VideoError
from dali_pipes.progress import Progress

# Requests for the size of files that a listing does not tell, at a time.
_ASKED_AT_ONCE = 16


@dataclass(frozen=True)
class Source:
    """A video to be indexed.

    Attributes:
        uri: Path or address.
        known: Its size, version and place in a shard, where finding it told them.
    """

    uri: str
    known: Stat | None = None


@dataclass
class Found:
    """The videos of a root.

    Attributes:
        sources: In the order of the corpus.
        places: What their places say about them.
        warnings: What does not fit together, one line each.
        listing: What official lists name beside what is there; None without lists.
    """

    sources: list[Source]
    places: list[Place]
    warnings: list[str] = field(default_factory=list)
    listing: Listing | None = None


def find_sources(
    root: str | os.PathLike[str],
    layout: str,
    patterns: Sequence[str] = PATTERNS,
    *,
    splits: Path | None = None,
    fold: int = 1,
    progress: bool = False,
) -> Found:
    """Find the videos of a root.

    Args:
        root: Folder, address of a remote one, tar shard, folder of tar shards, or list or CSV file of addresses.
        layout: A name of `dali_pipes.corpus.layouts.NAMES`.
        patterns: File names of videos, as shell patterns; capitals do not matter.
        splits: Official split lists, for layouts that have such: the folder that holds them, or a CSV file.
        fold: Which of several official splits.
        progress: Whether to report progress on standard error.

    Raises:
        DataError: There is no such root, or no video in it.
    """
    if layout not in NAMES:
        raise DataError(f"layout {layout!r}: must be one of {', '.join(NAMES)}")
    if splits is not None and layout in ("webdataset", "list"):
        raise DataError(f"splits {splits}: layout {layout!r} has no split lists; layout 'ucf101' reads them")
    text = os.fspath(root)
    path = local_path(text)
    if path is not None:
        text = path = os.path.abspath(path)
    elif not text.endswith(".tar"):
        text = text.rstrip("/") + ("" if layout == "list" or _is_csv(text, layout, splits) else "/")
    if layout == "list":
        return _listed(text)
    if _is_csv(text, layout, splits):
        return _in_table(text)
    if is_shard(text):
        found = _in_shards(text, [(text, PurePath(text).name)], patterns, progress)
        if splits is None:
            return found
        members = [PurePath(split_tar(source.uri)[0]) for source in found.sources]
        told = place(members, layout, splits=splits, fold=fold)
        return Found(found.sources, told.places, told.warnings, told.listing)
    if layout == "webdataset":
        if path is not None:
            shards = [(os.path.join(text, name), name) for name in find_videos(Path(text), SHARDS)[0]]
        else:
            shards = [(uri, name) for uri, name, _ in _remote(text, SHARDS)]
        return _in_shards(text, shards, patterns, progress)
    if path is not None:
        files, warnings = find_videos(Path(text), patterns)
        sources = [Source(os.path.join(text, name)) for name in files]
    else:
        remote = _remote(text, patterns)
        # Escaped characters are part of an address, not of a class name.
        files, warnings = [unquote(name) if scheme(text).startswith("http") else name for _, name, _ in remote], []
        sources = [Source(uri, known) for uri, _, known in remote]
    placed: Places = place([PurePath(name) for name in files], layout, splits=splits, fold=fold)
    return Found(sources, placed.places, warnings + placed.warnings, placed.listing)


def _remote(root: str, patterns: Sequence[str]) -> list[tuple[str, str, Stat | None]]:
    """Files under a remote folder: address, name relative to it, and what the listing tells of them; sorted."""
    system, top = file_system(root)
    # The first level alone: further down fsspec passes over what cannot be listed, as if it were not there.
    request(root, system, "ls", top, detail=False)
    options = {"on_error": "raise"} if scheme(root).startswith("http") else {}
    entries = request(root, system, "find", top, detail=True, **options)
    top, takes = top.rstrip("/"), matcher(patterns)
    found: list[tuple[str, str, Stat | None]] = []
    for name, info in entries.items():
        # A page may link to other places; and the root may turn out to be a single file.
        if name != top and not name.startswith(top + "/"):
            continue
        relative = name.removeprefix(top).lstrip("/") or name.rpartition("/")[2]
        parts = relative.split("/")
        if not takes(parts[-1]) or any(part.startswith(".") for part in parts):
            continue
        known = stat_of(name, info) if info.get("size") is not None else None
        found.append((system.unstrip_protocol(name), relative, known))
    if not found:
        shown = " ".join(patterns[:4]) + (" ..." if len(patterns) > 4 else "")
        raise DataError(f"{root}: no videos there (looked for {shown})")
    with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
        told = list(pool.map(lambda one: one[2] or _asked(one[0]), found))
    return sorted((uri, name, known) for (uri, name, _), known in zip(found, told, strict=True))


def _asked(uri: str) -> Stat | None:
    try:
        return stat_source(uri)
    except VideoError:
        # The probe says in its row what is wrong with it.
        return None


def _in_shards(root: str, shards: Sequence[tuple[str, str]], patterns: Sequence[str], progress: bool) -> Found:
    """Videos in tar shards, each given by address and name relative to the root."""
    sources, places, takes = [], [], matcher(patterns)

    def read(uri: str) -> tuple[Shard, int]:
        known = stat_source(uri)
        return read_shard(uri, known.bytes, known.mtime_ns), known.mtime_ns

    with (
        Progress("list", len(shards), unit="shards", enabled=progress) as bar,
        ThreadPoolExecutor(_ASKED_AT_ONCE) as pool,
    ):
        contents = []
        for content in pool.map(read, (uri for uri, _ in shards)):
            contents.append(content)
            bar.advance()
    for (uri, name), (shard, changed) in zip(shards, contents, strict=True):
        split = split_of(PurePath(name))
        for member in shard.members:
            if takes(PurePath(member.name).name):
                sources.append(Source(tar_uri(member.name, uri), Stat(member.bytes, changed, member.offset)))
                places.append(Place(shard.labels.get(key_of(member.name), ""), split))
    if not sources:
        raise DataError(f"{root}: no videos in its {len(shards)} tar shard{'s' if len(shards) > 1 else ''}")
    return Found(sources, places)


def _listed(path: str) -> Found:
    """Videos of a text file: an address a line, with label and split behind tabs where they are known."""
    sources, places, seen = [], [], set()
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        words = [word.strip() for word in line.split("\t")]
        if len(words) > 3 or not words[0]:
            raise DataError(f"{path}: line {number}: expected URI, or URI, label and split with tabs in between")
        uri, label, split = (*words, "", "")[:3]
        uri = _beside(path, uri)
        if uri in seen:
            raise DataError(f"{path}: line {number}: {uri} is listed twice")
        seen.add(uri)
        sources.append(uri)
        places.append(Place(label, split))
    if not sources:
        raise DataError(f"{path}: the list is empty")
    return Found(_with_state(sources), places)


def _is_csv(root: str, layout: str, splits: Path | None) -> bool:
    """Whether the root is the table of layout `csv` itself, with the paths or addresses of the videos."""
    return layout == "csv" and splits is None and root.rstrip("/").lower().endswith((".csv", ".tsv"))


def _in_table(path: str) -> Found:
    """Videos of a CSV file, by paths relative to its folder or by addresses; local ones that are missing are told."""
    entries = read_entries("\n".join(_lines(path)), path)
    uris = [_beside(path, entry.text) for entry in entries]
    there = [local_path(uri) is None or os.path.isfile(local_path(uri) or "") for uri in uris]
    kept = [(uri, entry.place) for uri, entry, found in zip(uris, entries, there, strict=True) if found]
    if not kept:
        raise DataError(f"{path}: none of its {len(entries)} videos is there; the first: {uris[0]}")
    kept.sort(key=lambda pair: pair[0])
    listing = Listing.of(
        "csv",
        1,
        (entry.place.split for entry in entries),
        ((entry.place.split, entry.text) for entry, found in zip(entries, there, strict=True) if not found),
        (),
    )
    return Found(_with_state([uri for uri, _ in kept]), [place for _, place in kept], listing.warnings(), listing)


def _lines(path: str) -> list[str]:
    source = open_source(path)
    try:
        if isinstance(source, str):
            data = Path(source).read_bytes()
        else:
            with source:
                data = source.read()
        return data.decode("utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"{path}: the list cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: the list is not UTF-8") from error


def _beside(path: str, uri: str) -> str:
    """A path that is not absolute is relative to the folder of the list."""
    if scheme(uri) == "tar":
        member, shard = split_tar(uri)
        return tar_uri(member, _beside(path, shard))
    local = local_path(uri)
    if local is None or (os.path.isabs(local) and local == uri):
        return uri
    if local_path(path) is None and not os.path.isabs(local):
        return f"{path.rpartition('/')[0]}/{local}"
    return os.path.normpath(os.path.join(os.path.dirname(path), local))


def _with_state(uris: Sequence[str]) -> list[Source]:
    """Sources with what remote servers and shards tell of them; each shard is listed once."""
    shards: dict[str, dict[str, Stat]] = {}
    sources = []
    for uri in uris:
        if scheme(uri) != "tar":
            continue
        _, shard = split_tar(uri)
        if shard not in shards:
            known = stat_source(shard)
            members = read_shard(shard, known.bytes, known.mtime_ns).members
            shards[shard] = {m.name: Stat(m.bytes, known.mtime_ns, m.offset) for m in members}
    remote = [uri for uri in uris if scheme(uri) not in ("", "tar")]
    with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
        told = dict(zip(remote, pool.map(_asked, remote), strict=True))
    for uri in uris:
        if scheme(uri) == "tar":
            member, shard = split_tar(uri)
            sources.append(Source(uri, shards[shard].get(member)))
        else:
            sources.append(Source(uri, told.get(uri)))
    return sources
