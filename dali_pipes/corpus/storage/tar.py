"""Which files lie where in an uncompressed tar shard, so that they are read in place.

Only headers are read, and the small files beside a video that say what it shows (WebDataset's layout: ``key.mp4``,
``key.cls``, ``key.json``).
"""

from __future__ import annotations

import json
import tarfile
from dataclasses import dataclass, field
from typing import IO, Any, cast

from dali_pipes.corpus.storage.ranges import RangeFile
from dali_pipes.errors import VideoError

_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
SHARDS = ("*.tar", "*.tar.gz", "*.tgz", "*.tar.bz2", "*.tar.xz", "*.tar.zst")
# A label is a word or a number; what is larger is no label.
_LARGEST_SIDECAR = 1 << 20


@dataclass(frozen=True)
class Member:
    """A regular file in a tar shard.

    Attributes:
        name: Path in the shard.
        offset: Byte where its data begins in the shard.
        bytes: Size of it.
    """

    name: str
    offset: int
    bytes: int


@dataclass(frozen=True)
class Shard:
    """Contents of a tar shard.

    Attributes:
        members: Regular files in order; of several with one name, the last.
        labels: Class name by key, from ``KEY.cls``, else the "label" of ``KEY.json``.
    """

    members: list[Member]
    labels: dict[str, str] = field(default_factory=dict)


def key_of(name: str) -> str:
    """What the files of one sample share: the path up to the first dot of the file name.

    >>> key_of("train/a.b/0001.left.mp4")
    'train/a.b/0001'
    """
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.partition(".")[0]


def read_shard(shard: str, size: int = -1, mtime_ns: int = 0) -> Shard:
    """List a tar shard.

    Args:
        shard: Path or address of the file.
        size: Bytes of it, where that is known; -1: to be asked for.
        mtime_ns: Its version, for the cache of remote ones.

    Raises:
        VideoError: It is missing, compressed, no tar file or cut off.
    """
    from dali_pipes.corpus.storage.source import open_source

    members: dict[str, Member] = {}
    classes: dict[str, str] = {}
    described: dict[str, str] = {}
    try:
        source = open_source(shard, size=size, mtime_ns=mtime_ns)
        with cast("IO[bytes]", source) if isinstance(source, RangeFile) else open(source, "rb") as file:
            _refuse_packed(shard, file.read(6))
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for entry in tar:
                    if not entry.isreg() or entry.issparse():
                        continue
                    members[entry.name] = Member(entry.name, entry.offset_data, entry.size)
                    if entry.size <= _LARGEST_SIDECAR and entry.name.endswith((".cls", ".json")):
                        text = _text(shard, tar, entry)
                        if entry.name.endswith(".cls"):
                            classes[key_of(entry.name)] = text.strip()
                        else:
                            described[key_of(entry.name)] = _label(text)
                    # tarfile keeps what it has read, which nobody asks for again.
                    tar.members = []  # type: ignore[attr-defined]
    except tarfile.TarError as error:
        raise VideoError(shard, f"cannot be read as a tar file: {error}") from error
    except OSError as error:
        raise VideoError(shard, error.strerror or str(error)) from error
    return Shard(list(members.values()), {key: name for key, name in (described | classes).items() if name})


def _refuse_packed(shard: str, head: bytes) -> None:
    for magic, name in _PACKED.items():
        if head.startswith(magic):
            raise VideoError(shard, f"is compressed ({name}), so videos in it cannot be read in place; decompress it")


def _text(shard: str, tar: tarfile.TarFile, entry: tarfile.TarInfo) -> str:
    data = tar.extractfile(entry)
    try:
        return "" if data is None else data.read().decode()
    except UnicodeDecodeError as error:
        raise VideoError(shard, f"{entry.name}: not UTF-8") from error


def _label(text: str) -> str:
    try:
        record: Any = json.loads(text)
    except ValueError:
        return ""
    label = record.get("label") if isinstance(record, dict) else None
    return str(label) if isinstance(label, (str, int)) else ""


def is_shard(name: str) -> bool:
    """Whether a file name is that of a tar shard, compressed ones included: those are refused with a reason."""
    return name.lower().endswith(tuple(pattern[1:] for pattern in SHARDS))
