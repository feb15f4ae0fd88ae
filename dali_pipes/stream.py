"""ClipStream: requests in, clips out, in order, prepared in the background."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Iterable, Iterator, Sequence
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
import torch

from dali_pipes.augment import PLAIN, Augment
from dali_pipes.background import Engine, StreamStats
from dali_pipes.clips.request import ClipBatch, ClipRequest
from dali_pipes.clips.sampler import Window, parse_window
from dali_pipes.clips.speed import SHORT, Short
from dali_pipes.corpus.engine import default_workers
from dali_pipes.decode.cache import VideoCache
from dali_pipes.decode.choice import Decoder, survey
from dali_pipes.decode.processes import start as start_processes
from dali_pipes.errors import DataError
from dali_pipes.pipeline import DTYPES, DType, GraphSpec
from dali_pipes.prepare import Preparer
from dali_pipes.quarantine import Quarantine

if TYPE_CHECKING:
    from dali_pipes.corpus import Corpus

logger = logging.getLogger("dali_pipes")

# Video decoding engines of the GPUs that have most of them (H100, H200: 7), and one that prepares meanwhile.
ENGINES = 8


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
        window: How a replacement's first frames are drawn: as those of the requests it stands in for were; see
            :class:`ClipSampler`. ``adjacent(n)`` must fit ``views``.
        decoder: ``auto``, ``dali`` or ``host``; see :mod:`dali_pipes.decode.choice`.
        threads: Threads that read and decode on the host; None: one for each core.
        graph_threads: Threads of the DALI graph; on a GPU each has a video decoder of its own. None: as ``threads``, on
            a GPU at most 8, since no GPU has more decoding engines and decoders that take turns gain nothing.
        processes: Whether what the host decodes is decoded in processes, one for each of ``threads``, and not in those
            threads, which would wait for each other; see :mod:`dali_pipes.decode.processes`.
        prefetch: Batches that :meth:`map` keeps on the way.
        replacements: Row numbers that replacements are taken from; None: all usable videos.
        quarantine: File that videos found undecodable are appended to, for the next index; None: nowhere.
        max_bad: Largest share of requests replaced; beyond it, after 200 requests, :meth:`get` raises. 1: no limit.
        cache: Folder of small copies of the videos, made as they are visited and decoded from then on, or a
            :class:`VideoCache` with settings of its own (closed by whoever made it); None: none.

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
        window: Window | str = "independent",
        decoder: Decoder = "auto",
        threads: int | None = None,
        graph_threads: int | None = None,
        processes: bool = True,
        prefetch: int = 2,
        replacements: Sequence[int] | np.ndarray | None = None,
        quarantine: str | os.PathLike[str] | None = None,
        max_bad: float = 0.05,
        cache: VideoCache | str | os.PathLike[str] | None = None,
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
        if graph_threads is not None and graph_threads < 1:
            raise DataError(f"graph_threads={graph_threads} must be at least 1, or None for a number by itself")
        kind, count = parse_window(window)
        if count not in (None, views):
            raise DataError(
                f"window={window!r} asks for {count} views and the stream has views={views}; make them equal"
            )
        if not 0 <= max_bad <= 1:
            raise DataError(f"max_bad={max_bad} must lie in 0..1, the share of requests that may be replaced")
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
        self.threads = threads or default_workers()
        if processes and where == "cpu" and "host" in used:
            start_processes(self.threads)  # while the graph is built; on a GPU not before a video needs them
        spec = GraphSpec(
            views=views,
            size=size,
            batch_size=batch_size,
            # Copies are H.264: NVDEC takes them, DALI's CPU decoder does not.
            encoded="dali" in used or (cache is not None and where == "gpu" and decoder != "host"),
            raw="host" in used or (cache is not None and where == "cpu"),
            augment=augment or PLAIN,
            dtype=dtype,
            threads=graph_threads or (self.threads if where == "cpu" else min(self.threads, ENGINES)),
            device_id=_device_index(self.device),
        )
        if cache is not None and not isinstance(cache, VideoCache):
            self.cache: VideoCache | None = VideoCache.for_clips(cache, size, crops=augment is not None)
        else:
            self.cache = cache
        preparer = Preparer(corpus, frames, size, augment, fps, short, where, decoder, self.cache, processes)
        spares = corpus.select(None) if replacements is None else np.asarray(replacements, np.int64)
        self.stats = StreamStats()
        listed = None if quarantine is None else Quarantine(quarantine)
        self._engine = Engine(preparer, spec, self.threads, spares, kind, self.device, self.stats, listed, max_bad)
        self._pending = 0
        # Streams that are dropped without close() must not leave threads behind.
        own_cache = self.cache if self.cache is not cache else None
        self._finalizer = weakref.finalize(self, _close, self._engine, own_cache)

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


def _close(engine: Engine, cache: VideoCache | None) -> None:
    engine.close()
    if cache is not None:
        cache.close()


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
