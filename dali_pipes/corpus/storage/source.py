"""From the address of a video to something that FFmpeg can read: a local path, or a file that reads ranges of bytes."""

from __future__ import annotations

import os
import stat
import zlib
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

from dali_pipes.corpus.storage.address import local_path, scheme, split_tar
from dali_pipes.corpus.storage.ranges import LocalRange, RangeFile, RemoteRange
from dali_pipes.corpus.storage.remote import file_system, request
from dali_pipes.errors import VideoError


@dataclass(frozen=True)
class Stat:
    """What tells one version of a video's file from another.

    Attributes:
        bytes: Size of the video.
        mtime_ns: Time of the last change of the file, or of the shard that the video is in, nanoseconds; where a server
            says none, a number made of its ETag; 0 where it says neither.
        offset: Byte where the video begins in its tar shard, -1 where it is a file of its own.
    """

    bytes: int
    mtime_ns: int
    offset: int = -1


def open_source(uri: str, *, offset: int = -1, size: int = -1, mtime_ns: int = 0) -> str | RangeFile:
    """What `av.open` reads a video from.

    Args:
        uri: Path, address that fsspec knows, or ``tar://MEMBER::SHARD``.
        offset: Byte where the video begins in its tar shard; -1: a file of its own, or to be looked up in the shard.
        size: Bytes of the video; -1: to be asked for.
        mtime_ns: Version of the file (see `Stat`), so that a cache does not give blocks of another one.

    Returns:
        The path of a local file, which FFmpeg itself reads fastest, else a seekable binary file.

    Raises:
        VideoError: There is no such file or member, or the server does not answer.
    """
    path = local_path(uri)
    if path is not None:
        return path
    if scheme(uri) != "tar":
        if size < 0:
            found = stat_source(uri)
            size, mtime_ns = found.bytes, found.mtime_ns
        system, inside = file_system(uri)
        return RemoteRange(uri, system, inside, 0, size, uri, mtime_ns)
    member, shard = split_tar(uri)
    if offset < 0 or size < 0:
        found = stat_source(uri)
        offset, size, mtime_ns = found.offset, found.bytes, found.mtime_ns
    path = local_path(shard)
    if path is not None:
        return LocalRange(uri, path, offset, size, member)
    system, inside = file_system(shard)
    return RemoteRange(uri, system, inside, offset, size, member, mtime_ns)


def stat_source(uri: str) -> Stat:
    """Size and version of a video; one request where it is remote, one pass over the headers of a tar shard.

    Raises:
        VideoError: There is no such file or member, it is no regular file, or the server does not answer.
    """
    path = local_path(uri)
    if path is not None:
        try:
            status = os.stat(path)
        except OSError as error:
            raise VideoError(uri, error.strerror or str(error)) from error
        if not stat.S_ISREG(status.st_mode):
            raise VideoError(uri, "not a regular file")
        return Stat(status.st_size, status.st_mtime_ns)
    if scheme(uri) == "tar":
        from dali_pipes.corpus.storage.tar import read_shard

        name, shard = split_tar(uri)
        known = stat_source(shard)
        members = read_shard(shard, known.bytes, known.mtime_ns).members
        found = {member.name: member for member in members}.get(name)
        if found is None:
            raise VideoError(uri, f"{shard} has no such member")
        return Stat(found.bytes, known.mtime_ns, found.offset)
    system, inside = file_system(uri)
    return stat_of(uri, request(uri, system, "info", inside))


def stat_of(uri: str, info: dict[str, Any]) -> Stat:
    """Size and version in what an fsspec file system says about a file.

    Raises:
        VideoError: It is no file, or the server does not say how large it is.
    """
    if info.get("type") == "directory":
        raise VideoError(uri, "is a folder")
    size = info.get("size")
    if size is None:
        raise VideoError(uri, "the server does not say how large it is; download the file")
    return Stat(int(size), _changed(info))


def _changed(info: dict[str, Any]) -> int:
    for name in ("LastModified", "Last-Modified", "last_modified", "mtime", "updated", "created"):
        value = info.get(name)
        try:
            if isinstance(value, str):
                value = parsedate_to_datetime(value) if name == "Last-Modified" else datetime.fromisoformat(value)
            if isinstance(value, datetime):
                # To the microsecond, which a float of seconds would round.
                since = value.astimezone(timezone.utc) - datetime(1970, 1, 1, tzinfo=timezone.utc)
                return (since.days * 86400 + since.seconds) * 10**9 + since.microseconds * 1000
            if isinstance(value, (int, float)):
                return int(value * 10**9)
        except ValueError:
            continue
    tag = str(info.get("ETag") or info.get("etag") or "")
    return zlib.crc32(tag.encode()) if tag else 0
