"""Which bytes of which files some clips need, whether the page cache holds them, and reading nothing but them."""

from __future__ import annotations

import ctypes
import mmap
import os
from contextlib import suppress
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from dali_pipes import Video
from dali_pipes.corpus.storage.address import local_path, scheme, split_tar
from dali_pipes.decode.numbering import numberer
from dali_pipes.decode.plan import plan
from dali_pipes.decode.reading import reading


@dataclass(frozen=True)
class Piece:
    """Bytes of a file in one run.

    Attributes:
        path: The file.
        offset: Where they begin.
        length: How many.
    """

    path: str
    offset: int
    length: int


class Packets:
    """Where the packets of videos lie in their files; each video is looked through once, without decoding."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]] | None] = {}

    def needed(self, video: Video, frames: NDArray[np.int64]) -> list[Piece]:
        """From each key frame that decoding begins with to the end of the last packet needed.

        The sound in between is read with it. Where a container does not say where its packets lie, the whole file.

        Args:
            video: Row of a corpus; its file lies on a local disk.
            frames: Sorted unique frame numbers wanted.
        """
        path, start = place_of(video) or ("", 0)
        if video.uri not in self._known:
            self._known[video.uri] = _positions(video)
        known = self._known[video.uri]
        if known is None:
            return [Piece(path, start, video.bytes)]
        numbers, begins, ends = known
        pieces = []
        for run in plan(frames, video.key_frames, video.key_timestamps):
            inside = (numbers >= run.key) & (numbers <= run.wanted[-1])
            if inside.any():
                first = int(begins[inside].min())
                pieces.append(Piece(path, start + first, int(ends[inside].max()) - first))
        return pieces


def place_of(video: Video) -> tuple[str, int] | None:
    """Path of the local file that a video lies in, and the byte where it begins; None where it is remote."""
    if scheme(video.uri) == "tar":
        path = local_path(split_tar(video.uri)[1])
        return None if path is None else (path, max(video.offset, 0))
    path = local_path(video.uri)
    return None if path is None else (path, 0)


def _positions(video: Video) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]] | None:
    """Frame number, first byte and byte behind the last one of each packet; None where that is not told."""
    if video.numbering != "pts":
        return None
    number_of, found = numberer(video), []
    with reading(video, "read") as container:
        for packet in container.demux(container.streams.video[0]):
            if not packet.size:
                continue
            if packet.pos is None or packet.pos < 0:
                return None
            found.append((number_of(packet.pts), packet.pos, packet.pos + packet.size))
    if not found:
        return None
    numbers, begins, ends = np.array(found, np.int64).T
    return numbers, begins, ends


def read(piece: Piece) -> int:
    """Read a piece, a new open file for it as a loader has; the number of bytes."""
    handle = os.open(piece.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return len(os.pread(handle, piece.length, piece.offset))
    finally:
        os.close(handle)


def evict(path: str) -> None:
    """Ask the kernel to forget what the page cache holds of a file. Pages in use stay, and so do those not written."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)


def resident(path: str) -> float | None:
    """Share of a file's pages that the page cache holds (mincore(2)); None where the kernel does not tell."""
    library = _library()
    if library is None:
        return None
    with suppress(OSError, ValueError), open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as m:
        pages = -(-len(m) // mmap.PAGESIZE)
        told = (ctypes.c_ubyte * pages)()
        view = np.frombuffer(m, np.uint8)
        failed = library.mincore(ctypes.c_void_p(view.ctypes.data), ctypes.c_size_t(len(m)), told)
        del view  # or the map could not be closed
        if not failed:
            return float((np.frombuffer(bytes(told), np.uint8) & 1).mean())
    return None


@cache
def _library() -> ctypes.CDLL | None:
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None, use_errno=True)
        library.mincore  # noqa: B018 -- only Linux and its kin have it
        return library
    return None
