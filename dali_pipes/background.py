"""The threads behind a stream: requests are prepared by workers, and one thread runs the graph over whole batches.

Also what happens when a video cannot be decoded: its request is replaced on the host, before DALI sees it, and a video
that only DALI fails on is decoded on the host from then on.
"""

from __future__ import annotations

import atexit
import logging
import queue
import threading
import time
import weakref
from collections import Counter
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from dali_pipes import pipeline
from dali_pipes.clips.request import ClipBatch, ClipRequest
from dali_pipes.clips.sampler import Window, replacement
from dali_pipes.decode import processes
from dali_pipes.errors import DataError, VideoError
from dali_pipes.half import Halver
from dali_pipes.heap import HeapTrimmer
from dali_pipes.pipeline import GraphSpec, Sample
from dali_pipes.prepare import Preparer
from dali_pipes.quarantine import Quarantine, general
from dali_pipes.stages import StageTimes, stage
from dali_pipes.workers import Workers

if TYPE_CHECKING:
    from nvidia.dali.pipeline import Pipeline

logger = logging.getLogger("dali_pipes")

# A request whose replacements fail as well, this many times in a row, says that the corpus is not what its index says.
MOST_ATTEMPTS = 8
# Requests before the share of replaced ones is judged: a few bad videos in the first batches say little.
JUDGED_FROM = 200


@dataclass
class StreamStats:
    """What a stream has done so far.

    Attributes:
        batches: Batches delivered.
        samples: Requests delivered.
        replaced: Requests that another video took the place of.
        replaced_by_reason: The same, counted by the reason, whose numbers and paths are left out.
        bad: Address and reason of each video that could not be decoded.
        host_decoded: Address and reason of each video that DALI failed to decode and the host decodes instead.
        waited: Seconds that callers of ``get`` have waited.
        ready: Batches that were ready when they were asked for.
        starved: Seconds that the graph has waited for samples which the workers were still at.
        idle: Seconds that the graph had nothing to do, because nothing was asked for.
        times: What each stage of a request has taken; see :mod:`dali_pipes.stages`.
    """

    batches: int = 0
    samples: int = 0
    replaced: int = 0
    replaced_by_reason: dict[str, int] = field(default_factory=dict)
    bad: dict[str, str] = field(default_factory=dict)
    host_decoded: dict[str, str] = field(default_factory=dict)
    waited: float = 0.0
    ready: int = 0
    starved: float = 0.0
    idle: float = 0.0
    times: StageTimes = field(default_factory=StageTimes)


_Prepared = tuple[ClipRequest, Sample]


class Engine:
    """The threads behind a stream. Knows nothing of the stream itself, so that dropping the stream ends them."""

    def __init__(
        self,
        preparer: Preparer,
        spec: GraphSpec,
        threads: int,
        spares: np.ndarray,
        window: Window,
        device: torch.device,
        stats: StreamStats,
        quarantine: Quarantine | None = None,
        max_bad: float = 1.0,
    ) -> None:
        self.preparer = preparer
        self.on_host = replace(preparer, decoder="host")
        # On the CPU torch makes float16 of float32 in a fifth of the time that DALI takes.
        self.halve = Halver() if spec.dtype == "float16" and spec.device_id is None else None
        self.spec = spec if self.halve is None else replace(spec, dtype="float32")
        # Frames in host memory can be given to the graph once for each view, at no cost. Then the views lie side by
        # side in its output as they are, and are not copied together: a copy of all clips, as dear as normalising.
        self.fanned = spec.views if spec.device_id is None and not spec.encoded else 1
        if self.fanned > 1:
            self.spec = replace(self.spec, views=1, batch_size=spec.batch_size * self.fanned)
        self.spares = spares
        self.window = window
        self.device = device
        self.cuda_stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.stats = stats
        self.quarantine = quarantine
        self.max_bad = max_bad
        self.judged = 0
        self.judged_bad: Counter[str] = Counter()
        self.bad: dict[int, str] = {}
        self.host_only: set[int] = set()
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.graph: Pipeline | None = pipeline.build(self.spec)
        self.jobs: queue.SimpleQueue[tuple[tuple[ClipRequest, ...], list[Future[_Prepared]]] | None] = (
            queue.SimpleQueue()
        )
        self.done: queue.SimpleQueue[ClipBatch | BaseException] = queue.SimpleQueue()
        self.workers = Workers(threads, "dali_pipes-decode")
        self.thread = threading.Thread(target=self._run, name="dali_pipes-graph", daemon=True)
        self.thread.start()
        _OPEN.add(self)

    def submit(self, requests: tuple[ClipRequest, ...]) -> None:
        if self.stopping.is_set():
            raise DataError("the stream is closed")
        self.jobs.put((requests, [self.workers.submit(self._prepare, request) for request in requests]))

    def get(self) -> ClipBatch | BaseException:
        """The next batch, or the error in its place."""
        self.stats.ready += not self.done.empty()
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
        processes.rest()

    def _prepare(self, request: ClipRequest) -> _Prepared:
        """Prepares a request, or the first of its replacements that can be decoded."""
        with self.stats.times.follow("plan"):
            return self._prepared(request)

    def _prepared(self, request: ClipRequest) -> _Prepared:
        preparer, wanted = self.preparer, request
        for attempt in range(1, MOST_ATTEMPTS + 1):
            reason = self.bad.get(request.video)
            if reason is None:
                try:
                    return request, (self.on_host if request.video in self.host_only else preparer)(request)
                except VideoError as error:
                    reason = self._remember(request.video, error)
            if attempt == 1:
                with self.lock:
                    self.stats.replaced += 1
                    counts, kind = self.stats.replaced_by_reason, general(reason)
                    counts[kind] = counts.get(kind, 0) + 1
            if self.stopping.is_set():
                break
            request = replacement(
                wanted, attempt, preparer.corpus, self.spares, preparer.frames, preparer.fps, self.window
            )
        uri = preparer.corpus[wanted.video].uri
        raise VideoError(uri, f"neither it nor {MOST_ATTEMPTS - 1} replacements could be decoded; the last: {reason}")

    def _remember(self, video: int, error: VideoError) -> str:
        with self.lock:
            new = video not in self.bad
            self.bad[video] = error.reason
            self.stats.bad[error.uri] = error.reason
        if new:
            logger.warning("%s; another video takes its place", error)
            if self.quarantine is not None:
                self.quarantine.add(self.preparer.corpus[video], error.reason)
        return error.reason

    def _run(self) -> None:
        """The graph's thread: one batch after another."""
        trim = HeapTrimmer()
        stats, clock = self.stats, time.perf_counter
        asked = clock()
        while (job := self.jobs.get()) is not None and not self.stopping.is_set():
            begun = clock()
            stats.idle += begun - asked
            try:
                requests, futures = job
                prepared = [future.result() for future in futures]
                stats.starved += clock() - begun
                with stats.times.follow("graph"):
                    batch = self._batch(prepared)
                self._judge(requests, batch.requests)
                self.done.put(batch)
            except BaseException as error:  # whatever it is belongs to the caller of get()
                self.done.put(error)
            trim()
            asked = clock()

    def _judge(self, wanted: tuple[ClipRequest, ...], delivered: tuple[ClipRequest, ...]) -> None:
        """Stops the run where too many requests are replaced: it would train on another corpus than was asked for.

        Counted batch by batch in the order of asking, so that every run stops at the same place.
        """
        self.judged += len(wanted)
        for asked, given in zip(wanted, delivered, strict=True):
            if asked.video != given.video:
                self.judged_bad[general(self.bad.get(asked.video, "unknown"))] += 1
        bad = self.judged_bad.total()
        if self.judged < JUDGED_FROM or bad <= self.max_bad * self.judged:
            return
        top = "; ".join(f"{count} x {reason}" for reason, count in self.judged_bad.most_common(3))
        where = f"they are listed in {self.quarantine.path}" if self.quarantine else "quarantine=FILE lists them"
        raise DataError(
            f"{bad} of {self.judged} requests were replaced, more than max_bad={self.max_bad:g} of them allow "
            f"({len(self.bad)} bad videos: {top}); {where}: index the folder again, or raise max_bad (1: no limit)"
        )

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
        count = len(samples)
        if self.fanned > 1:
            samples = [one for sample in samples for one in sample.by_view()]
        pipeline.feed(self.graph, self.spec, samples)
        # Through DLPack, without a copy; as_tensor() because all samples have one shape.
        if self.cuda_stream is None:
            clips = torch.from_dlpack(self.graph.run()[0].as_tensor())
            if self.fanned > 1:
                clips = clips.view(count, self.fanned, *clips.shape[2:])
            with stage("copy"):
                return clips if self.halve is None else self.halve(clips)
        # A stream of its own, so that waiting for the copy is not waiting for the training step; and it must be waited
        # for, since DALI uses the output's memory again as soon as it is dropped.
        with torch.cuda.stream(self.cuda_stream):
            made = torch.from_dlpack(self.graph.run()[0].as_tensor())
            # What DALI's kernels have not done yet is waited for here too: for the GPU's share look at the GPU's load.
            with stage("copy"):
                clips = made.clone()
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
_OPEN: weakref.WeakSet[Engine] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for engine in list(_OPEN):
        engine.close()


def _brief(error: BaseException) -> str:
    """The line of DALI's message that says what happened: the one after "encountered:"."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if "encountered:" in lines[:-1]:
        lines = lines[lines.index("encountered:") + 1 :]
    return (lines or [type(error).__name__])[0][:200]
