"""This project's own ways: on the host, and packets cut out of the file for DALI's decoders."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bench.decoders.base import AHEAD, Job, ThreadedDecoder
from bench.decoders.dali import DaliFrames, WholeFiles
from bench.measure.plan import Request
from bench.peers.base import Setting

if TYPE_CHECKING:
    from dali_pipes.decode.slice import Slice


class OursCpu(ThreadedDecoder):
    """What the loader does on a machine without a GPU."""

    notes = "dali_pipes.decode.host.decode_frames, a process for each thread"
    needs = ("dali_pipes.decode.host",)

    def read(self, request: Request) -> Any:
        from dali_pipes.decode.host import decode_frames

        return decode_frames(self.job.videos[request.video], np.array(request.unique, np.int64), apart=True)


class Slices(WholeFiles):
    """Not the whole bytes of each file, but the packets that the frames need, cut out by threads."""

    # As in the loader's graph.
    gpu_options: ClassVar[dict[str, Any]] = {"affine": False}

    def __init__(self, job: Job, setting: Setting) -> None:
        super().__init__(job, setting)
        self.pool = ThreadPoolExecutor(job.workers, thread_name_prefix="bench-cut")

    def encoded(self, batches: Sequence[Sequence[int]]) -> Iterator[tuple[list[NDArray[Any]], list[NDArray[Any]]]]:
        from dali_pipes.decode.slice import cut

        def begin(batch: Sequence[int]) -> list[Future[Slice]]:
            requests = [self.requests[number] for number in batch]
            return [
                self.pool.submit(cut, self.job.videos[request.video], np.array(request.unique, np.int64))
                for request in requests
            ]

        under_way = deque(begin(batch) for batch in batches[:AHEAD])
        for batch in [*batches[AHEAD:], *[[]] * AHEAD][: len(batches)]:
            pieces = [future.result() for future in under_way.popleft()]
            under_way.append(begin(batch))
            yield [piece.data for piece in pieces], [piece.frames for piece in pieces]

    def close(self) -> None:
        self.pool.shutdown(cancel_futures=True)


class OursDaliCpu(DaliFrames):
    """Packet slices for DALI's CPU decoder."""

    notes = "dali_pipes.decode.slice.cut in threads, then fn.decoders.video"
    needs = ("nvidia.dali", "dali_pipes.decode.slice")

    @classmethod
    def refuses(cls, job: Job) -> str | None:
        from dali_pipes.decode.choice import choose

        device = "gpu" if cls.where == "cuda" else "cpu"
        for video in job.videos.values():
            choice = choose(video, device, "dali")
            if choice.decoder != "dali":
                return choice.reason
        return None

    def graph(self, job: Job, setting: Setting) -> Slices:
        return Slices(job, setting)


class OursCuda(OursDaliCpu):
    """What the loader does on a GPU, as far as decoding goes."""

    where = "cuda"
    notes = "dali_pipes.decode.slice.cut in threads, then fn.decoders.video on the GPU (NVDEC)"
