"""What happens after the workers, alone: rungs of `python -m bench stages` that run a DALI graph, or copy."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.data_node import DataNode
from nvidia.dali.pipeline import Pipeline

from bench.measure.processes import cpu_seconds
from bench.stages.alone import in_order
from bench.stages.rung import Batches, Pass, Rung, Work
from dali_pipes import ClipRequest, pipeline
from dali_pipes.decode.host import decode_frames
from dali_pipes.decode.slice import cut
from dali_pipes.half import Halver
from dali_pipes.pipeline import GraphSpec, Sample

# Frames decoded before and kept for the graph.
KEPT_BYTES = 512 << 20
# Whole files that DALI decodes at a time.
WHOLE = 4


class Graph(Rung):
    """A DALI graph fed again and again with what was prepared before."""

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        self._samples: list[list[Sample]] = []
        self._pipeline: Pipeline | None = None

    def run(self, batches: Batches) -> Pass:
        if self._pipeline is None:
            self._samples = self.prepare(batches)
            self._pipeline = self.build()
        chosen = [self._samples[place % len(self._samples)] for place in range(len(batches))]
        _settle(self.work.device)
        cpu, begun = cpu_seconds(), time.perf_counter()
        for samples in chosen:
            self.feed(self._pipeline, samples)
            self.finish(self._pipeline.run())
        _settle(self.work.device)
        seconds = time.perf_counter() - begun
        return Pass(sum(map(len, chosen)), seconds, cpu_seconds() - cpu)

    def close(self) -> None:
        self._pipeline, self._samples = None, []

    def prepare(self, batches: Batches) -> list[list[Sample]]:
        """Batches of samples, on the device, no more than memory allows."""
        made = decoded(self.work, batches)
        if self.work.where == "cpu":
            return made
        # DALI takes what lies on the GPU as it is: the copy is a rung of its own.
        return [[_on(self.work.device, sample) for sample in batch] for batch in made]

    @abstractmethod
    def build(self) -> Pipeline: ...

    def feed(self, graph: Pipeline, samples: list[Sample]) -> None:
        """Hand a batch to the graph."""
        pipeline.feed(graph, self.work.spec(encoded=False, raw=True), samples)

    def finish(self, outputs: Any) -> None:
        """What the loader does with the outputs; here nothing."""


class Gather(Graph):
    """Frames taken at each view's playback speed, nothing else done to them."""

    name, about = "resample", "frames gathered by playback speed, on frames decoded before"

    def build(self) -> Pipeline:
        return _built(_gathered, self.work.spec(encoded=False, raw=True))

    def feed(self, graph: Pipeline, samples: list[Sample]) -> None:
        pipeline.feed(graph, self.work.spec(encoded=False, raw=True), samples, draws=False)


class Augmented(Graph):
    """The graph as the loader runs it, but for decoding."""

    name, about = "resample + augment", "gathered, cropped, scaled, coloured, normalised: frames decoded before"

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        self.halve = Halver()

    def build(self) -> Pipeline:
        return _built(_augmented, self.work.spec(encoded=False, raw=True))

    def finish(self, outputs: Any) -> None:
        clips = torch.from_dlpack(outputs[0].as_tensor())
        if self.work.where == "cpu" and self.work.dtype == "float16":
            self.halve(clips)


class DaliDecode(Graph):
    """DALI's decoder alone, on packets cut before: NVDEC on a GPU."""

    name, about = "decode by DALI", "DALI's decoder (NVDEC on a GPU) on packets cut before"

    @classmethod
    def missing(cls, work: Work, requests: Sequence[ClipRequest]) -> str | None:
        if any(not work.on_host(work.video(r)) for r in requests):
            return None
        return "the host decodes all of these videos"

    def prepare(self, batches: Batches) -> list[list[Sample]]:
        samples = [self.work.preparer(r) for r in _flat(batches) if not self.work.on_host(self.work.video(r))]
        return _in_batches(samples, self.work.batch_size)

    def build(self) -> Pipeline:
        return _built(_only_decoded, self.work.spec(encoded=True, raw=False))

    def feed(self, graph: Pipeline, samples: list[Sample]) -> None:
        graph.feed_input("encoded", [sample.encoded for sample in samples])
        graph.feed_input("frames", [sample.frames for sample in samples])


class DaliInOrder(DaliDecode):
    """DALI's decoder on whole files, from the first frame on."""

    name, about = "decode in order by DALI", "the same by DALI's decoder, on whole files"

    def run(self, batches: Batches) -> Pass:
        requests = list(_flat(batches))
        if self._pipeline is None:
            self._samples = self.prepare(batches)
            self._pipeline = self.build()
        wanted = float(np.mean([len(self.work.wanted(r)) for r in requests]))
        # Every file once, however many requests there are.
        done = super().run(self._samples)  # type: ignore[arg-type]  # only their number counts
        frames = float(sum(len(sample.frames) for batch in self._samples for sample in batch))
        return Pass(frames / wanted, done.seconds, done.cpu, {"frames": frames})

    def prepare(self, batches: Batches) -> list[list[Sample]]:
        samples = []
        for video, frames in in_order(self.work, list(_flat(batches)), on_host=False):
            piece = cut(video, frames)
            samples.append(Sample(piece.data, piece.frames, None, (), ()))
        return _in_batches(samples, min(self.work.batch_size, WHOLE))


class Copy(Rung):
    """Frames decoded on the host, to the device."""

    name, about = "copy", "frames decoded on the host, to the device"

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        self._frames: list[torch.Tensor] = []

    @classmethod
    def missing(cls, work: Work, requests: Sequence[ClipRequest]) -> str | None:
        if work.where == "cpu":
            return "clips stay on the CPU: torch takes over DALI's memory as it is"
        if any(work.on_host(work.video(r)) for r in requests):
            return None
        return "DALI decodes all of these videos on the GPU"

    def run(self, batches: Batches) -> Pass:
        if not self._frames:
            self._frames = [torch.from_numpy(s.raw) for batch in decoded(self.work, batches) for s in batch]
        count = sum(map(len, batches))
        chosen = [self._frames[place % len(self._frames)] for place in range(count)]
        _settle(self.work.device)
        cpu, begun = cpu_seconds(), time.perf_counter()
        for frames in chosen:
            frames.to(self.work.device)
        _settle(self.work.device)
        seconds = time.perf_counter() - begun
        return Pass(count, seconds, cpu_seconds() - cpu, {"MB": sum(f.nbytes for f in chosen) / 1e6})

    def close(self) -> None:
        self._frames = []


def decoded(work: Work, batches: Batches) -> list[list[Sample]]:
    """Samples with the frames that the graph would have after decoding, as many as KEPT_BYTES hold."""
    samples, size = list[Sample](), 0
    for request in _flat(batches):
        sample = work.preparer(request)
        if sample.raw is None:
            # DALI's frames have the video's own size.
            raw = np.ascontiguousarray(decode_frames(work.video(request), work.wanted(request)))
            sample = replace(sample, encoded=None, raw=raw)
        assert sample.raw is not None
        size += sample.raw.nbytes
        samples.append(sample)
        if size >= KEPT_BYTES:
            break
    return _in_batches(samples, work.batch_size)


def _flat(batches: Batches) -> Iterable[ClipRequest]:
    return (request for batch in batches for request in batch)


def _in_batches(samples: list[Sample], size: int) -> list[list[Sample]]:
    """Full batches, but for a lone one that is not."""
    batches = [samples[at : at + size] for at in range(0, len(samples), size)]
    return batches[:-1] if len(batches) > 1 and len(batches[-1]) < size else batches


def _on(device: torch.device, sample: Sample) -> Sample:
    raw: Any = torch.from_numpy(sample.raw).to(device)  # DALI takes a tensor wherever it takes an array
    return replace(sample, raw=raw)


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _built(graph: Any, spec: GraphSpec) -> Pipeline:
    made: Pipeline = graph(
        spec,
        batch_size=spec.batch_size,
        num_threads=spec.threads,
        device_id=spec.device_id,
        prefetch_queue_depth=1,
        exec_dynamic=True,
    )
    made.build()
    return made


def _frames(spec: GraphSpec) -> DataNode:
    """Frames as they come out of a decoder, already where the graph works."""
    return fn.external_source(
        name="raw",
        dtype=types.DALIDataType.UINT8,
        ndim=4,
        layout="FHWC",
        no_copy=True,
        device="cpu" if spec.device_id is None else "gpu",
    )


@pipeline_def(enable_conditionals=True)
def _gathered(spec: GraphSpec) -> tuple[DataNode, ...]:
    frames = _frames(spec)
    outputs = []
    for v in range(spec.views):
        outputs.append(pipeline.gather_node(frames, v))
    return tuple(outputs)


@pipeline_def(enable_conditionals=True)
def _augmented(spec: GraphSpec) -> DataNode:
    frames = _frames(spec)
    outputs = []
    for v in range(spec.views):
        outputs.append(pipeline.view_node(frames, spec, v))
    return fn.stack(*outputs) if spec.views > 1 else fn.expand_dims(outputs[0], axes=[0])


@pipeline_def(enable_conditionals=True)
def _only_decoded(spec: GraphSpec) -> DataNode:
    return pipeline.frames_node(spec)
