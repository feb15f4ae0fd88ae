"""Files read by ranges of bytes: a part of a local file, or a remote file of which only what is asked for is fetched.

PyAV reads them through `read` and `seek`; what goes wrong in there leaves PyAV as the same exception.
"""

from __future__ import annotations

import functools
import io
import os
from abc import abstractmethod
from collections import OrderedDict
from typing import Any

from dali_pipes.corpus.storage.cache import BlockCache
from dali_pipes.corpus.storage.options import StorageOptions, storage_options
from dali_pipes.corpus.storage.remote import ShortAnswer, again, call
from dali_pipes.errors import VideoError

# Read-ahead fetches at most this share of a file at a time, so that a clip never costs much of a small one.
_AHEAD_SHARE = 64
_BLOCKS_KEPT = 64


class RangeFile(io.RawIOBase):
    """A seekable binary file over a range of bytes.

    Args:
        uri: Address of the video, for messages; its end tells FFmpeg the suffix.
        name: What FFmpeg takes the suffix from.
        size: Bytes.
    """

    def __init__(self, uri: str, name: str, size: int) -> None:
        self.uri = uri
        self.name = name
        self.size = size
        self._position = 0
        self._failed = False

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise OSError(f"seek to byte {base + offset}")
        self._position = base + offset
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes from where the file stands; fewer only at its end.

        Raises:
            VideoError: They cannot be had. PyAV raises it once FFmpeg returns; until then FFmpeg may go on reading, and
                is told that the file has ended, instead of waiting for the same server again.
        """
        if self._failed:
            return b""
        end = self.size if size is None or size < 0 else min(self._position + size, self.size)
        if end <= self._position:
            return b""
        try:
            data = self._fetch(self._position, end)
        except VideoError:
            self._failed = True
            raise
        self._position += len(data)
        return data

    def readall(self) -> bytes:
        return self.read(-1)

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    @abstractmethod
    def _fetch(self, start: int, end: int) -> bytes:
        """The bytes from `start` to `end`, which lie within the file, or fewer but one at least."""


class LocalRange(RangeFile):
    """A part of a local file, such as a member of a tar shard; nothing is copied.

    Args:
        uri: Address of the video, for messages.
        path: The file.
        offset: Byte where the part begins.
        size: Bytes of the part.
        name: What FFmpeg takes the suffix from.
    """

    def __init__(self, uri: str, path: str, offset: int, size: int, name: str) -> None:
        super().__init__(uri, name, size)
        self._file = -1
        try:
            self._file = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
            there = os.fstat(self._file).st_size
        except OSError as error:
            raise VideoError(uri, f"{path}: {error.strerror}") from error
        self._offset = offset
        if offset + size > there:
            self.close()
            raise VideoError(uri, f"{path} ends before byte {offset + size}; index again")

    def _fetch(self, start: int, end: int) -> bytes:
        try:
            return os.pread(self._file, end - start, self._offset + start)
        except OSError as error:
            raise VideoError(self.uri, f"cannot be read: {error.strerror}") from error

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        super().close()


class RemoteRange(RangeFile):
    """A remote file or a part of one, fetched in blocks.

    One request fetches the blocks that are asked for; as long as reading just goes on, twice as many as the one
    before.

    Args:
        uri: Address of the video, for messages.
        system: fsspec file system.
        path: In that file system.
        offset: Byte where the part begins; 0 for a whole file.
        size: Bytes of the part.
        name: What FFmpeg takes the suffix from.
        version: Tells this version of the file from others in the cache.
    """

    def __init__(self, uri: str, system: Any, path: str, offset: int, size: int, name: str, version: int) -> None:
        super().__init__(uri, name, size)
        options = storage_options()
        self._system, self._path, self._offset = system, path, offset
        self._block = options.block_bytes
        most = max(min(options.read_ahead_bytes, size // _AHEAD_SHARE), self._block)
        self._most_blocks = max(most // self._block, 1)
        self._ahead = 1
        self._next = -1
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._cache = _cache(options.cache_dir, options.cache_bytes) if options.cache_dir else None
        # With offset and size: blocks are counted from the start of the part.
        self._key = f"{system.unstrip_protocol(path)}\0{offset}\0{size}\0{version}\0{self._block}"

    def _fetch(self, start: int, end: int) -> bytes:
        first, last = start // self._block, (end - 1) // self._block
        parts = [self._get(number, last) for number in range(first, last + 1)]
        parts[-1] = parts[-1][: end - last * self._block]
        parts[0] = parts[0][start - first * self._block :]
        return b"".join(parts)

    def _get(self, number: int, last: int) -> bytes:
        """One block; where it must be fetched, with those up to `last` and what reading on will want."""
        data = self._known(number)
        if data is not None:
            return data
        self._ahead = min(self._ahead * 2, self._most_blocks) if number == self._next else 1
        count, most = 1, min(max(self._ahead, last - number + 1), _BLOCKS_KEPT // 2)
        blocks = -(-self.size // self._block)
        while count < most and number + count < blocks and self._known(number + count) is None:
            count += 1
        start, end = number * self._block, min((number + count) * self._block, self.size)
        data = self._request(start, end)
        for i in range(count):
            block = data[i * self._block : (i + 1) * self._block]
            self._keep(number + i, block)
            if self._cache is not None:
                self._cache.put(self._key, (number + i) * self._block, block)
        self._next = number + count
        return data[: self._block]

    def _known(self, number: int) -> bytes | None:
        data = self._blocks.get(number)
        if data is not None:
            self._blocks.move_to_end(number)
        elif self._cache is not None:
            start = number * self._block
            data = self._cache.get(self._key, start, min(self._block, self.size - start))
            if data is not None:
                self._keep(number, data)
        return data

    def _keep(self, number: int, data: bytes) -> None:
        self._blocks[number] = data
        while len(self._blocks) > _BLOCKS_KEPT:
            self._blocks.popitem(last=False)

    def _request(self, start: int, end: int) -> bytes:
        wanted = end - start

        def once(options: StorageOptions) -> bytes:
            data: bytes = call(
                self._system,
                options.timeout,
                "cat_file",
                self._path,
                start=self._offset + start,
                end=self._offset + end,
            )
            if len(data) > wanted:
                raise VideoError(self.uri, "the server sends whole files and no ranges of bytes; download the file")
            if len(data) < wanted:
                raise ShortAnswer(f"{len(data)} of {wanted} bytes came")
            return data

        return again(self.uri, once)


@functools.lru_cache(maxsize=8)
def _cache(folder: str, limit: int) -> BlockCache:
    return BlockCache(folder, limit)
