"""ClipStream: requests in, clips out, in order, prepared in the background."""

from __future__ import annotations

import atexit
import logging
import os
import queue
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
import torch

from dali_pipes import pipeline
from dali_pipes.augment import PLAIN, Augment
from dali_pipes.clips.request import ClipBatch, ClipRequest
from dali_pipes.clips.sampler import Window, replacement
from dali_pipes.clips.speed import SHORT, Short
from dali_pipes.decode.choice import Decoder, survey
from dali_pipes.errors import DataError, VideoError
from dali_pipes.pipeline import DTYPES, DType, GraphSpec, Sample
from dali_pipes.prepare import Preparer
from dali_pipes.workers import Workers

if TYPE_CHECKING:
    from nvidia.dali.pipeline import Pipeline

    from dali_pipes.corpus import Corpus

logger = logging.getLogger("dali_pipes")

# A request whose replacements fail as well, this many times in a row, says that the corpus is not what its index says.
MOST_ATTEMPTS = 8


@dataclass
class StreamStats:
    """What a stream has done so far.

    Attributes:
        batches: Batches delivered.
        samples: Requests delivered.
        replaced: Requests that another video took the place of.
        bad: Address and reason of each video that could not be decoded.
        host_decoded: Address and reason of each video that DALI failed to decode and the host decodes instead.
        waited: Seconds that callers of ``get`` have waited.
    """

    batches: int = 0
    samples: int = 0
    replaced: int = 0
    bad: dict[str, str] = field(default_factory=dict)
    host_decoded: dict[str, str] = field(default_factory=dict)
    waited: float = 0.0


class ClipStream:
    """Decodes requested clips in the background and hands them out in the order of asking.

    Videos that cannot be decoded are replaced by others, chosen by the request's key alone; see ``stats``.

    Args:
        corpus: The videos.
        frames: Frames per clip, T.
        size: Side of the square output, pixels.
        batch_size: Largest number of requests in one batch.
        views: Clips per request, V; the same for all requests.
        device: ``auto`` (the current GPU if torch sees one), ``cpu``, ``cuda`` or ``cuda:N``.
        augment: Drawn for views that carry no draws of their own; None: the centred square, normalised.
        dtype: ``float16``, ``float32`` (normalised) or ``uint8`` (0..255).
        short: Past a video's last frame: ``loop``, ``pad``, or ``skip`` (an error here).
        fps: Reference frame rate for 1x; None: each video's own.
        window: How a replacement's first frames are drawn; see :class:`ClipSampler`.
        decoder: ``auto``, ``dali`` or ``host``; see :mod:`dali_pipes.decode.choice`.
        threads: Threads that read and decode on the host, and threads of the graph; None: one for each core.
        prefetch: Batches that :meth:`map` keeps on the way.
        replacements: Row numbers that replacements are taken from; None: all usable videos.

    Raises:
        DataError: If an argument is out of range or no video is usable.

    Example:
        >>> with ClipStream(corpus, frames=16, size=112, batch_size=8) as stream:   # doctest: +SKIP
        ...     stream.submit([ClipRequest(0, (View(speed=2, start=30),))])
        ...     stream.get().clips.shape
        torch.Size([1, 1, 3, 16, 112, 112])
    """

    def __init__(
        self,
        corpus: Corpus,
        *,
        frames: int,
        size: int,
        batch_size: int,
        views: int = 1,
        device: str = "auto",
        augment: Augment | None = None,
        dtype: DType = "float16",
        short: Short = "loop",
        fps: float | None = None,
        window: Window = "independent",
        decoder: Decoder = "auto",
        threads: int | None = None,
        prefetch: int = 2,
        replacements: Sequence[int] | np.ndarray | None = None,
    ) -> None:
        for name, value in (("frames", frames), ("size", size), ("batch_size", batch_size), ("views", views)):
            if value < 1:
                raise DataError(f"{name}={value} must be at least 1")
        if dtype not in DTYPES:
            raise DataError(f"dtype={dtype!r} must be one of {', '.join(DTYPES)}")
        if short not in SHORT:
            raise DataError(f"short={short!r} must be one of {', '.join(SHORT)}")
        if prefetch < 1:
            raise DataError(f"prefetch={prefetch} must be at least 1")
        if threads is not None and threads < 1:
            raise DataError(f"threads={threads} must be at least 1, or None for one for each core")
        self.corpus = corpus
        self.views = views
        self.batch_size = batch_size
        self.prefetch = prefetch
        self.device = resolve_device(device)
        where = "gpu" if self.device.type == "cuda" else "cpu"
        choices = survey(corpus, where, decoder)
        if not choices:
            raise DataError(f"none of the corpus's {len(corpus)} videos is usable; see its column 'error'")
        for choice, count in choices.items():
            logger.info("%d videos: decoded by %s (%s)", count, choice.decoder, choice.reason)
        used = {choice.decoder for choice in choices}
        threads = threads or len(os.sched_getaffinity(0))
        spec = GraphSpec(
            views=views,
            size=size,
            batch_size=batch_size,
            encoded="dali" in used,
            raw="host" in used,
            augment=augment or PLAIN,
            dtype=dtype,
            threads=threads,
            device_id=_device_index(self.device),
        )
        preparer = Preparer(corpus, frames, size, augment, fps, short, where, decoder)
        spares = corpus.select(None) if replacements is None else np.asarray(replacements, np.int64)
        self.stats = StreamStats()
        self._engine = _Engine(preparer, spec, spares, window, self.device, self.stats)
        self._pending = 0
        # Streams that are dropped without close() must not leave threads behind.
        self._finalizer = weakref.finalize(self, self._engine.close)

    def submit(self, requests: Sequence[ClipRequest]) -> None:
        """Asks for a batch; returns at once.

        Raises:
            DataError: If there are no requests, too many, or one with another number of views.
        """
        if not 1 <= len(requests) <= self.batch_size:
            raise DataError(f"{len(requests)} requests in one batch; this stream takes 1 to {self.batch_size}")
        for request in requests:
            if len(request.views) != self.views:
                raise DataError(f"a request with {len(request.views)} views; this stream makes {self.views} a request")
        self._engine.submit(tuple(requests))
        self._pending += 1

    def get(self) -> ClipBatch:
        """The next batch, in the order of :meth:`submit`; waits for it.

        Raises:
            DataError: If nothing was asked for, the stream is closed, or a batch could not be made; it names the video.
        """
        if self._pending == 0:
            raise DataError("get() without a batch asked for; call submit() first")
        begun = perf_counter()
        batch = self._engine.get()
        self.stats.waited += perf_counter() - begun
        self._pending -= 1
        if isinstance(batch, BaseException):
            raise batch
        self.stats.batches += 1
        self.stats.samples += len(batch)
        return batch

    def discard(self) -> None:
        """Waits for what was asked for and throws it away."""
        while self._pending:
            self._engine.get()
            self._pending -= 1

    def map(self, batches: Iterable[Sequence[ClipRequest]]) -> Iterator[ClipBatch]:
        """Batches for an iterable of lists of requests, ``prefetch`` of them on the way."""
        for requests in batches:
            self.submit(requests)
            if self._pending > self.prefetch:
                yield self.get()
        while self._pending:
            yield self.get()

    @property
    def pending(self) -> int:
        """Batches asked for and not yet fetched."""
        return self._pending

    def close(self) -> None:
        """Stops all threads and frees the graph. May be called more than once."""
        self._finalizer()

    def __enter__(self) -> ClipStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_Prepared = tuple[ClipRequest, Sample]


class _Engine:
    """The threads behind a stream. Knows nothing of the stream itself, so that dropping the stream ends them."""

    def __init__(
        self,
        preparer: Preparer,
        spec: GraphSpec,
        spares: np.ndarray,
        window: Window,
        device: torch.device,
        stats: StreamStats,
    ) -> None:
        self.preparer = preparer
        self.on_host = replace(preparer, decoder="host")
        self.spec = spec
        self.spares = spares
        self.window = window
        self.device = device
        self.cuda_stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.stats = stats
        self.bad: dict[int, str] = {}
        self.host_only: set[int] = set()
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.graph: Pipeline | None = pipeline.build(spec)
        self.jobs: queue.SimpleQueue[tuple[Future[_Prepared], ...] | None] = queue.SimpleQueue()
        self.done: queue.SimpleQueue[ClipBatch | BaseException] = queue.SimpleQueue()
        self.workers = Workers(spec.threads, "dali_pipes-decode")
        self.thread = threading.Thread(target=self._run, name="dali_pipes-graph", daemon=True)
        self.thread.start()
        _OPEN.add(self)

    def submit(self, requests: tuple[ClipRequest, ...]) -> None:
        if self.stopping.is_set():
            raise DataError("the stream is closed")
        self.jobs.put(tuple(self.workers.submit(self._prepare, request) for request in requests))

    def get(self) -> ClipBatch | BaseException:
        """The next batch, or the error in its place."""
        while True:
            if self.stopping.is_set():
                raise DataError("the stream is closed")
            try:
                result = self.done.get(timeout=1.0)
            except queue.Empty:
                continue
            if isinstance(result, ClipBatch) and result.clips.is_cuda:
                # Made on the graph thread's stream, used on the caller's: their memory must not be used again before
                # the caller's stream is done with it.
                for tensor in (result.clips, result.speeds, result.videos):
                    tensor.record_stream(torch.cuda.current_stream(self.device))
            return result

    def close(self) -> None:
        self.stopping.set()
        self.jobs.put(None)
        self.workers.close()
        if threading.current_thread() is not self.thread:
            self.thread.join()
        self.graph = None

    def _prepare(self, request: ClipRequest) -> _Prepared:
        """Prepares a request, or the first of its replacements that can be decoded."""
        preparer, wanted = self.preparer, request
        for attempt in range(1, MOST_ATTEMPTS + 1):
            reason = self.bad.get(request.video)
            if reason is None:
                try:
                    return request, (self.on_host if request.video in self.host_only else preparer)(request)
                except VideoError as error:
                    reason = self._remember(request.video, error)
            with self.lock:
                self.stats.replaced += attempt == 1
            if self.stopping.is_set():
                break
            request = replacement(
                wanted, attempt, preparer.corpus, self.spares, preparer.frames, preparer.fps, self.window
            )
        uri = preparer.corpus[wanted.video].uri
        raise VideoError(uri, f"neither it nor {MOST_ATTEMPTS - 1} replacements could be decoded; the last: {reason}")

    def _remember(self, video: int, error: VideoError) -> str:
        with self.lock:
            if video not in self.bad:
                logger.warning("%s; another video takes its place", error)
            self.bad[video] = error.reason
            self.stats.bad[error.uri] = error.reason
        return error.reason

    def _run(self) -> None:
        """The graph's thread: one batch after another."""
        while (job := self.jobs.get()) is not None and not self.stopping.is_set():
            try:
                prepared = [future.result() for future in job]
                self.done.put(self._batch(prepared))
            except BaseException as error:  # whatever it is belongs to the caller of get()
                self.done.put(error)

    def _batch(self, prepared: list[_Prepared]) -> ClipBatch:
        try:
            clips = self._clips([sample for _, sample in prepared])
        except RuntimeError as error:
            prepared = self._without_undecodable(prepared, error)
            clips = self._clips([sample for _, sample in prepared])
        requests = tuple(request for request, _ in prepared)
        batch = ClipBatch(
            clips=clips,
            speeds=torch.tensor([[v.speed for v in r.views] for r in requests], dtype=torch.float32),
            videos=torch.tensor([r.video for r in requests], dtype=torch.int64),
            starts=torch.tensor([[v.start for v in r.views] for r in requests], dtype=torch.int64),
            requests=requests,
            epoch=-1,
            positions=torch.tensor([r.key.position for r in requests], dtype=torch.int64),
        )
        if self.device.type == "cpu":
            return batch
        return replace(batch, speeds=batch.speeds.to(self.device), videos=batch.videos.to(self.device))

    def _clips(self, samples: list[Sample]) -> torch.Tensor:
        assert self.graph is not None
        pipeline.feed(self.graph, self.spec, samples)
        # Through DLPack, without a copy; as_tensor() because all samples have one shape.
        if self.cuda_stream is None:
            outputs = [torch.from_dlpack(out.as_tensor()) for out in self.graph.run()]
            return outputs[0].unsqueeze(1) if len(outputs) == 1 else torch.stack(outputs, dim=1)
        # A stream of its own, so that waiting for the copy is not waiting for the training step; and it must be waited
        # for, since DALI uses the outputs' memory again as soon as they are dropped.
        with torch.cuda.stream(self.cuda_stream):
            outputs = [torch.from_dlpack(out.as_tensor()) for out in self.graph.run()]
            clips = torch.stack(outputs, dim=1)
            self.cuda_stream.synchronize()
        return clips

    def _without_undecodable(self, prepared: list[_Prepared], error: RuntimeError) -> list[_Prepared]:
        """The same batch, with what DALI cannot decode decoded on the host.

        DALI fails the whole batch for one bad sample and does not say which, so each is tried alone. A graph that has
        failed is not valid any more.
        """
        self.spec = replace(self.spec, raw=True)
        self.graph = pipeline.build(self.spec)
        mended, found = [], False
        for request, sample in prepared:
            if sample.encoded is not None:
                try:
                    self._clips([sample])
                except RuntimeError as own:
                    found = True
                    self._send_to_host(request.video, _brief(own))
                    self.graph = pipeline.build(self.spec)
                    request, sample = self._prepare(request)
            mended.append((request, sample))
        if not found:  # no video's fault: too little memory, say
            raise error
        return mended

    def _send_to_host(self, video: int, reason: str) -> None:
        uri = self.preparer.corpus[video].uri
        if video not in self.host_only:
            logger.warning("%s: DALI cannot decode it (%s); from now on it is decoded on the host", uri, reason)
        with self.lock:
            self.host_only.add(video)
            self.stats.host_decoded[uri] = reason


# DALI takes itself down when the interpreter exits and must not meet a graph at work. Hooks run in reverse order, and
# DALI registered its own when it was imported above.
_OPEN: weakref.WeakSet[_Engine] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for engine in list(_OPEN):
        engine.close()


def resolve_device(device: str) -> torch.device:
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N`` -> a torch device.

    Raises:
        DataError: If the name is none of these, or names a GPU that torch does not see.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        resolved = torch.device(device)
    except RuntimeError:
        resolved = None
    if resolved is None or resolved.type not in ("cpu", "cuda"):
        raise DataError(f"device={device!r} must be auto, cpu, cuda or cuda:N")
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise DataError(f"device={device!r}: torch {torch.__version__} sees no CUDA GPU; use auto or cpu")
    return resolved


def _device_index(device: torch.device) -> int | None:
    if device.type == "cpu":
        return None
    return torch.cuda.current_device() if device.index is None else device.index


def _brief(error: BaseException) -> str:
    """The line of DALI's message that says what happened: the one after "encountered:"."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if "encountered:" in lines[:-1]:
        lines = lines[lines.index("encountered:") + 1 :]
    return (lines or [type(error).__name__])[0][:200]
