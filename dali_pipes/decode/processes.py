"""Decoding in processes of their own: threads take turns at Python's interpreter, processes do not.

A clip costs the interpreter some hundred packets and frames, and in between FFmpeg works on each for ten to hundreds of
microseconds. Two threads with small videos spend a fifth of their time on handing the interpreter to each other, and
more threads the more (docs/loader.md).

A process is given a video's row and frame numbers, and writes the pictures into memory that both share: nothing is
copied, and nothing is in ``/dev/shm``, which containers keep small. Processes are started when they are first needed,
serve all streams of the program, and end with it. A decoder that crashes takes its process down, not the training.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import mmap
import os
import pickle
import subprocess
import sys
import threading
import weakref
from collections import deque
from math import prod
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dali_pipes.corpus import child
from dali_pipes.corpus.storage.address import local_path
from dali_pipes.decode import host_av
from dali_pipes.decode.picture import result_shape
from dali_pipes.errors import VideoError
from dali_pipes.stages import StageTime, StageTimes, charge

if TYPE_CHECKING:
    from dali_pipes.corpus import Video

logger = logging.getLogger("dali_pipes")

# Seconds that one request may take: much longer than any, so that none is given up because a machine is slow.
LONGEST = 300.0


def takes(video: Video) -> bool:
    """Whether a process can decode it: a file of this machine. What is remote has its connections and cache here."""
    return _POOL.works and video.offset < 0 and local_path(video.uri) is not None


def decode(
    video: Video, frames: NDArray[np.int64], width: int, height: int, *, square: bool = False
) -> NDArray[np.uint8] | None:
    """As :func:`dali_pipes.decode.host_av.decode`, by a process that is idle, or a new one if none is.

    Returns:
        ``(N, height, width, 3)`` uint8 RGB, or ``(N, side, side, 3)``, in shared memory that is used again once nobody
        holds the array; None where processes cannot be started.

    Raises:
        VideoError: If the file cannot be opened, a frame cannot be decoded, or decoding crashes or hangs.
    """
    process = _POOL.borrow()
    if process is None:
        return None
    try:
        return process.decode(video, frames, width, height, square)
    finally:
        _POOL.give_back(process)


def start(count: int) -> None:
    """Starts processes until there are so many, without waiting for them."""
    _POOL.start(count)


def members() -> set[int]:
    """Numbers that the system has for the processes."""
    return _POOL.members()


def rest() -> None:
    """Gives the memory of pictures that nobody holds back to the system; for when a stream is closed."""
    _POOL.rest()


class _Slot:
    """A piece of memory that a process writes pictures to and this one reads them from."""

    def __init__(self, handle: int, offset: int, size: int) -> None:
        self.offset, self.size = offset, size
        self.memory = mmap.mmap(handle, size, offset=offset)


class _Process:
    """One decoding process, used by one thread at a time."""

    def __init__(self) -> None:
        self.alive = True
        self._greeted = False
        self._handle = os.memfd_create("dali_pipes")
        self._end = 0
        # Put back by whichever thread drops a slot's array last.
        self._free: deque[_Slot] = deque()
        self._process, self._connection = child.start(__name__, self._handle)
        self.number = self._process.pid

    def greet(self) -> bool:
        """Waits until it has started; False where it could not."""
        if not self._greeted:
            try:
                self._connection.recv_bytes()
                self._greeted = True
            except (EOFError, OSError):
                self.stop()
        return self.alive

    def decode(
        self, video: Video, frames: NDArray[np.int64], width: int, height: int, square: bool
    ) -> NDArray[np.uint8]:
        shape = result_shape(len(frames), width, height, square)
        size = prod(shape)
        slot = self._slot(size)
        numbers = np.asarray(frames, np.int64).tobytes()
        request = (slot.offset, slot.size, video, numbers, width, height, square)
        try:
            self._connection.send_bytes(pickle.dumps(request, pickle.HIGHEST_PROTOCOL))
            if not self._connection.poll(LONGEST):
                self.stop()
                raise VideoError(video.uri, f"took longer than {LONGEST:g} s to decode")
            answer = self._connection.recv_bytes()
        except (EOFError, OSError):
            raise VideoError(video.uri, self._ended()) from None
        error: Exception | None
        totals: dict[str, StageTime]
        error, totals = pickle.loads(answer)
        charge(totals)
        if error is not None:
            self._free.append(slot)
            raise error
        # Views of an array keep the array itself; with the last of them it goes, and the slot is free.
        whole = np.frombuffer(slot.memory, np.uint8, size)
        weakref.finalize(whole, self._free.append, slot).atexit = False
        return whole.reshape(shape)

    def rest(self) -> None:
        for slot in list(self._free):
            slot.memory.madvise(mmap.MADV_REMOVE)

    def stop(self) -> None:
        if self.alive:
            self.forget()
            self._process.kill()
            self._process.wait()

    def forget(self) -> None:
        """Leaves it to others, as a fork of this program leaves its processes to the program."""
        self.alive = False
        self._connection.close()
        os.close(self._handle)

    def _slot(self, size: int) -> _Slot:
        for _ in range(len(self._free)):
            slot = self._free.pop()
            if slot.size >= size:
                return slot
            self._free.appendleft(slot)
        # Powers of two, so that videos of other sizes use it again. What is not written to takes no memory.
        wanted = max(1 << (size - 1).bit_length(), mmap.ALLOCATIONGRANULARITY)
        begin, self._end = self._end, self._end + wanted
        os.ftruncate(self._handle, self._end)
        return _Slot(self._handle, begin, wanted)

    def _ended(self) -> str:
        # It may have closed the connection a moment before it ends.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=10)
        self.stop()
        return child.ending(self._process.returncode)


class _Pool:
    """Processes that nobody uses at the moment; as many are started as are ever used at once."""

    def __init__(self) -> None:
        self.works = hasattr(os, "memfd_create") and bool(sys.executable)
        self._idle: deque[_Process] = deque()
        self._all: set[_Process] = set()
        self._lock = threading.Lock()

    def start(self, count: int) -> None:
        with self._lock:
            while self.works and len(self._all) < count:
                process = self._new()
                if process is not None:
                    self._idle.appendleft(process)

    def borrow(self) -> _Process | None:
        process: _Process | None = None
        with contextlib.suppress(IndexError):
            process = self._idle.pop()
        if process is None:
            with self._lock:
                process = self._new()
        if process is not None and not process.greet():
            self._give_up("one ended before it had started")
            self.give_back(process)
            process = None
        return process

    def give_back(self, process: _Process) -> None:
        if process.alive:
            self._idle.append(process)
            return
        with self._lock:
            self._all.discard(process)

    def members(self) -> set[int]:
        with self._lock:
            return {process.number for process in self._all}

    def rest(self) -> None:
        for _ in range(len(self._idle)):
            # Borrowed meanwhile: what is free now must not be written to.
            with contextlib.suppress(IndexError):
                process = self._idle.popleft()
                process.rest()
                self._idle.append(process)

    def close(self) -> None:
        with self._lock:
            self._idle.clear()
            while self._all:
                self._all.pop().stop()

    def forget(self) -> None:
        """In a fork of this program, which needs processes of its own; no other thread is there."""
        for process in self._all:
            if process.alive:
                process.forget()
        works = self.works
        self.__init__()  # type: ignore[misc]
        self.works &= works

    def _new(self) -> _Process | None:
        if not self.works:
            return None
        try:
            process = _Process()
        except OSError as error:
            self._give_up(str(error))
            return None
        self._all.add(process)
        return process

    def _give_up(self, reason: str) -> None:
        if self.works:
            logger.warning("no process can be started to decode in (%s): threads decode instead", reason)
        self.works = False


_POOL = _Pool()
atexit.register(_POOL.close)
os.register_at_fork(after_in_child=_POOL.forget)


def serve(handle: int, memory: int) -> None:
    """What a decoding process does, until the connection closes.

    Args:
        handle: File descriptor of the connection.
        memory: File descriptor of the shared memory.
    """
    import av

    # What FFmpeg has to say about a broken file is in the error, once.
    av.logging.set_level(None)
    connection = Connection(handle)
    slots: dict[int, _Slot] = {}
    with contextlib.suppress(EOFError, OSError):
        connection.send_bytes(b"started")
        while True:
            offset, size, video, numbers, width, height, square = pickle.loads(connection.recv_bytes())
            frames = np.frombuffer(numbers, np.int64)
            slot = slots.get(offset)
            if slot is None:
                slot = slots[offset] = _Slot(memory, offset, size)
            shape = result_shape(len(frames), width, height, square)
            out = np.frombuffer(slot.memory, np.uint8, prod(shape)).reshape(shape)
            times = StageTimes()
            error: Exception | None = None
            try:
                with times.follow("decode"):
                    host_av.decode(video, frames, width, height, square=square, out=out)
            except Exception as raised:  # whatever it is belongs to whoever asked
                error = _sendable(raised)
            connection.send_bytes(pickle.dumps((error, times.snapshot()), pickle.HIGHEST_PROTOCOL))


def _sendable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
