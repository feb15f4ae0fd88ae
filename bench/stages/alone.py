"""Each stage of the loader's workers alone: rungs of `python -m bench stages`, all over the same requests.

A rung does one thing as quickly as this machine lets it, with the loader's own code and as many threads as the loader
has. What it could do for a loader that did nothing else is its ceiling.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from bench.measure.processes import cpu_seconds
from bench.stages.rung import Batches, Pass, Rung, Work
from bench.stages.storage_reads import Packets, evict, place_of, read
from dali_pipes import ClipRequest, Video
from dali_pipes.decode.host import decode_frames
from dali_pipes.decode.slice import cut

# The most of one video, and the most videos, that are decoded in order at a time.
IN_ORDER_BYTES = 192 << 20
IN_ORDER_VIDEOS = 8


class OnThreads(Rung):
    """A rung in which each of the loader's threads takes one request after another."""

    def run(self, batches: Batches) -> Pass:
        requests = [request for batch in batches for request in batch]
        samples, amounts = 0.0, dict[str, float]()
        seconds, cpu, results = on_threads(self.one, self.items(requests), self.work.threads)
        for share, counted in results:
            samples += share
            for name, value in counted.items():
                amounts[name] = amounts.get(name, 0.0) + value
        return Pass(samples, seconds, cpu, amounts)

    def items(self, requests: Sequence[ClipRequest]) -> Sequence[Any]:
        """What the threads take; made before the clock starts."""
        return requests

    @abstractmethod
    def one(self, item: Any) -> tuple[float, dict[str, float]]:
        """Do one of them: how many samples that is, and what else was counted."""


def in_order(work: Work, requests: Sequence[ClipRequest], *, on_host: bool) -> list[tuple[Video, Any]]:
    """Videos of some requests, of those that the host decodes or of the others, each with all of its frames' numbers.

    A few videos, and of a long or large one only the beginning, as far as memory allows.
    """
    rows = dict.fromkeys(r.video for r in requests)
    videos = [video for row in rows if work.on_host(video := work.corpus[row]) == on_host][:IN_ORDER_VIDEOS]
    return [(v, np.arange(min(v.frames, max(1, IN_ORDER_BYTES // (3 * v.width * v.height))))) for v in videos]


def on_threads(do: Callable[[Any], Any], items: Sequence[Any], threads: int) -> tuple[float, float, list[Any]]:
    """Wall seconds, CPU seconds and results of items shared among threads.

    The wall time is that of the threads together by their number: threads that find nothing left to do while others end
    are not counted, since a loader always has more to do.
    """

    def timed(item: Any) -> tuple[float, Any]:
        begun = time.perf_counter()
        result = do(item)
        return time.perf_counter() - begun, result

    with ThreadPoolExecutor(threads, thread_name_prefix="bench-rung") as pool:
        cpu = cpu_seconds()
        done = list(pool.map(timed, items))
        cpu = cpu_seconds() - cpu
    busy = sum(seconds for seconds, _ in done)
    return max(busy, 1e-9) / min(threads, max(len(items), 1)), cpu, [result for _, result in done]


class Read(OnThreads):
    """Storage: the bytes of the packets needed, and nothing else."""

    name, about = "read", "the bytes of the packets needed, from storage or page cache"

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        self._packets = Packets()

    @classmethod
    def missing(cls, work: Work, requests: Sequence[ClipRequest]) -> str | None:
        remote = next((video.uri for r in requests if place_of(video := work.video(r)) is None), None)
        return None if remote is None else "videos on remote storage are not read apart from decoding"

    def items(self, requests: Sequence[ClipRequest]) -> Sequence[Any]:
        items = [self._packets.needed(self.work.video(r), self.work.wanted(r)) for r in requests]
        if self.work.cold:
            for path in {piece.path for pieces in items for piece in pieces}:
                evict(path)
        return items

    def one(self, item: Any) -> tuple[float, dict[str, float]]:
        size = 0
        for piece in item:
            size += read(piece)
            if self.work.cold:  # the next clip of this video must find it as cold
                evict(piece.path)
        return 1.0, {"MB": size / 1e6}


class Plan(OnThreads):
    """Which frames a request needs."""

    name, about = "plan", "which frames, for each request"

    def one(self, item: Any) -> tuple[float, dict[str, float]]:
        self.work.wanted(item)
        return 1.0, {}


class Cut(OnThreads):
    """Packets cut out of the videos, as for DALI."""

    name, about = "cut", "packets cut into small videos in memory, nothing decoded"

    @classmethod
    def missing(cls, work: Work, requests: Sequence[ClipRequest]) -> str | None:
        if any(_sliceable(work.video(r)) for r in requests):
            return None
        return "no video of these can be cut; the host decodes them from their files"

    def items(self, requests: Sequence[ClipRequest]) -> Sequence[Any]:
        return [(video, self.work.wanted(r)) for r in requests if _sliceable(video := self.work.video(r))]

    def one(self, item: Any) -> tuple[float, dict[str, float]]:
        return 1.0, {"MB": len(cut(*item).data) / 1e6}


class InOrder(OnThreads):
    """Whole files on the host, from the first frame on: what decoding could do if nothing decoded were in vain."""

    name, about = "decode in order", "whole files on the host: no frame is decoded in vain"

    @classmethod
    def missing(cls, work: Work, requests: Sequence[ClipRequest]) -> str | None:
        if any(work.on_host(work.video(r)) for r in requests):
            return None
        return "DALI decodes all of these videos"

    def items(self, requests: Sequence[ClipRequest]) -> Sequence[Any]:
        # Frames count as samples by what a request wants on average.
        wanted = float(np.mean([len(self.work.wanted(r)) for r in requests]))
        return [(video, frames, wanted) for video, frames in in_order(self.work, requests, on_host=True)]

    def one(self, item: Any) -> tuple[float, dict[str, float]]:
        video, frames, wanted = item
        preparer = self.work.preparer
        decode_frames(video, frames, short_side=preparer.short_side, apart=preparer.processes)
        return len(frames) / wanted, {"frames": len(frames)}


class Needed(OnThreads):
    """What the loader's workers do: plan, read, and decode or cut, with the lead-in from key frames."""

    name, about = "decode needed", "all that the workers do: the frames wanted, and those before them to a key frame"

    def one(self, item: Any) -> tuple[float, dict[str, float]]:
        self.work.preparer(item)
        return 1.0, {}


def _sliceable(video: Video) -> bool:
    return video.sliceable and video.numbering == "pts"
