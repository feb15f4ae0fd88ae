"""What a uri names: a local file, something remote, or a member of a tar shard that is either."""

from __future__ import annotations

import re

from dali_pipes.errors import VideoError

_SCHEME = re.compile(r"^([a-z][a-z0-9+.-]*)://", re.IGNORECASE)


def scheme(uri: str) -> str:
    """The protocol of an address in small letters, "" for a path.

    >>> scheme("s3://bucket/a.mp4"), scheme("/videos/a.mp4"), scheme("tar://a.mp4::/shards/0.tar")
    ('s3', '', 'tar')
    """
    found = _SCHEME.match(uri)
    return found[1].lower() if found else ""


def local_path(uri: str) -> str | None:
    """The path that a uri without tar member names, None for a remote one."""
    name = scheme(uri)
    if name == "file":
        return uri[len("file://") :]
    return None if name else uri


def tar_uri(member: str, shard: str) -> str:
    """Address of a member of a tar shard.

    >>> tar_uri("walk/a.mp4", "s3://bucket/0.tar")
    'tar://walk/a.mp4::s3://bucket/0.tar'
    """
    return f"tar://{member}::{shard}"


def split_tar(uri: str) -> tuple[str, str]:
    """Member and shard of a tar address.

    Raises:
        VideoError: It names no shard.
    """
    member, separator, shard = uri[len("tar://") :].rpartition("::")
    if not separator or not member or not shard:
        raise VideoError(uri, "must be of the form tar://MEMBER::SHARD, such as tar://a.mp4::/shards/0.tar")
    return member, shard
