"""What a decoder is in `python -m bench decode`, and the thread pool that most of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.measure.isolated import in_one_line
from bench.measure.plan import Request
from bench.peers.base import why_missing

if TYPE_CHECKING:
    from dali_pipes import Video

# Batches under way ahead of the one that is waited for, for everybody.
AHEAD = 2

# Some frames of a request: their numbers, and ``(N, H, W, 3)`` uint8 RGB, upright, on the CPU or on the GPU.
Part = tuple[Sequence[int], Any]


@dataclass(frozen=True)
class Job:
    """What all decoders are told; plain data, for it goes to other processes.

    Attributes:
        requests: All that may be asked for, by number.
        videos: Row number -> row of the corpus, of the videos in the requests.
        frames: Frames of a view.
        workers: Threads that decode.
        batch_size: Requests of a batch.
        device: Device of those that decode on a GPU: "cuda:0".
    """

    requests: Sequence[Request]
    videos: Mapping[int, Video]
    frames: int
    workers: int
    batch_size: int
    device: str


class NotDecodedError(Exception):
    """A file that a decoder could not read, with what the decoder said."""


class Decoder(ABC):
    """Delivers the frames of requests at full size. Opened once, it keeps its threads from epoch to epoch.

    Attributes:
        where: Where it decodes and leaves the frames.
        notes: How it works, one line.
        needs: Modules that must be importable.
    """

    where: Literal["cpu", "cuda"] = "cpu"
    notes: str
    needs: tuple[str, ...] = ()

    @classmethod
    def missing(cls, job: Job) -> str | None:
        """Why it cannot run here or cannot do the job, or None. Asked in its own process."""
        return why_missing(cls.needs) or cls.refuses(job)

    @classmethod
    def refuses(cls, job: Job) -> str | None:
        """Why it, though installed, does not take these videos or requests, or None."""
        return None

    @abstractmethod
    def __init__(self, job: Job) -> None: ...

    @abstractmethod
    def epoch(self, batches: Sequence[Sequence[int]]) -> Iterator[list[list[Part]]]:
        """Deliver batches of requests, given by their numbers in the job.

        Yields:
            For each request of the batch, in the order asked for, parts that together hold its frames.
        """

    @abstractmethod
    def close(self) -> None:
        """Stop the threads."""


class ThreadedDecoder(Decoder):
    """Each thread takes a request, opens the file, decodes in one thread, closes it; adapters say how.

    Nobody keeps an open file from one request to the next: in real training a video comes once an epoch.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.pool = ThreadPoolExecutor(job.workers, thread_name_prefix="bench-decode")

    @abstractmethod
    def read(self, request: Request) -> Any:
        """The unique frames of a request, ``(N, H, W, 3)`` uint8."""

    def epoch(self, batches: Sequence[Sequence[int]]) -> Iterator[list[list[Part]]]:
        coming = iter([number for batch in batches for number in batch])
        under_way: deque[tuple[Request, Future[Any]]] = deque()

        def start() -> None:
            number = next(coming, None)
            if number is not None:
                request = self.job.requests[number]
                under_way.append((request, self.pool.submit(self.read, request)))

        try:
            for _ in range(AHEAD * self.job.batch_size):
                start()
            for batch in batches:
                delivered: list[list[Part]] = []
                for _ in batch:
                    request, future = under_way.popleft()
                    try:
                        delivered.append([(request.unique, future.result())])
                    except Exception as error:
                        raise NotDecodedError(f"{Path(request.path).name}: {in_one_line(error)}") from error
                    start()
                yield delivered
        finally:
            for _, future in under_way:
                future.cancel()

    def close(self) -> None:
        self.pool.shutdown(cancel_futures=True)
