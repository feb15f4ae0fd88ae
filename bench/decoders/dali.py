"""DALI's own ways to frames, fed as for `python -m bench loader` (bench/peers/dali.py), ending where decoding does."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from bench.decoders.base import Decoder, Job, Part
from bench.peers.base import Setting
from bench.peers.dali import DaliCandidate, DaliDecoder, DaliReader, Reading, odd_stride, refused_codecs

if TYPE_CHECKING:
    from nvidia.dali.data_node import DataNode


class WholeFiles(DaliDecoder):
    """The decoder over whole files, ending in full-size frames: one output."""

    def __init__(self, job: Job, setting: Setting) -> None:
        super().__init__(job.requests, setting)
        self.job = job

    def outputs(self, batches: Sequence[Sequence[int]]) -> tuple[DataNode, ...]:
        return (self.decoded(batches),)


class Ranges(DaliReader):
    """The readers, ending in full-size frames: one output each."""

    def __init__(self, job: Job, setting: Setting) -> None:
        super().__init__(job.requests, setting)

    def outputs(self, batches: Sequence[Sequence[int]]) -> tuple[DataNode, ...]:
        return self.sequences(batches)


class LegacyRanges(Ranges):
    """The same with the older reader, which decodes only on a GPU."""

    def span(self, reading: Reading) -> int:
        # It makes a sequence of exactly the frames from the first to the last shown, and refuses to pass the end.
        return 1 + (reading.length - 1) * reading.stride

    def reader(self, file_list: str, reading: Reading) -> Any:
        from nvidia.dali import fn

        outputs: Any = fn.readers.video(
            device="gpu",
            file_list=file_list,
            file_list_frame_num=True,
            sequence_length=reading.length,
            stride=reading.stride,
            step=self.span(reading),
            prefetch_queue_depth=2,
        )
        return outputs[0]


class DaliFrames(Decoder):
    """A DALI pipeline an epoch, built before its first batch, of which only the frames are wanted."""

    needs: tuple[str, ...] = ("nvidia.dali",)

    def __init__(self, job: Job) -> None:
        self.job = job
        device = torch.device(job.device if self.where == "cuda" else "cpu")
        setting = Setting(job.frames, 0, job.batch_size, job.workers, torch.float32, device, corpus=None)  # type: ignore[arg-type]
        self.pipelines = self.graph(job, setting)

    @abstractmethod
    def graph(self, job: Job, setting: Setting) -> DaliCandidate:
        """Builds the pipelines; `corpus` and `size` of the setting mean nothing here."""

    @classmethod
    def refuses(cls, job: Job) -> str | None:
        return refused_codecs((video.codec for video in job.videos.values()), cls.where)

    def epoch(self, batches: Sequence[Sequence[int]]) -> Iterator[list[list[Part]]]:
        pipeline = self.pipelines.build(batches)
        # A reader fills its batches across ours, so some of its samples may belong to the next one.
        waiting: deque[tuple[Any, ...]] = deque()
        for batch in batches:
            while len(waiting) < len(batch):
                outputs = pipeline.run()
                waiting.extend(zip(*([output[i] for i in range(len(output))] for output in outputs), strict=True))
            yield [self.parts(number, waiting.popleft()) for number in batch]

    def parts(self, number: int, sample: tuple[Any, ...]) -> list[Part]:
        """What a sample of the pipeline holds: all unique frames, or a view an output."""
        request = self.job.requests[number]
        return [(request.unique, sample[0])]

    def close(self) -> None:
        self.pipelines.close()


class DecoderCpu(DaliFrames):
    """fn.decoders.video on whole files."""

    notes = "fn.decoders.video over whole files (external source), unique frames"

    def graph(self, job: Job, setting: Setting) -> DaliCandidate:
        return WholeFiles(job, setting)


class DecoderCuda(DecoderCpu):
    """The same by NVDEC."""

    where = "cuda"


class ReaderCpu(DaliFrames):
    """fn.experimental.readers.video, one for each view or one for views that begin together."""

    notes = (
        "fn.experimental.readers.video; file_list with frame ranges; one per view with stride = speed, or one for "
        "views that begin together; built anew each round"
    )

    def graph(self, job: Job, setting: Setting) -> DaliCandidate:
        return Ranges(job, setting)

    @classmethod
    def refuses(cls, job: Job) -> str | None:
        return odd_stride(job.requests) or super().refuses(job)

    def parts(self, number: int, sample: tuple[Any, ...]) -> list[Part]:
        assert isinstance(self.pipelines, DaliReader)
        starts = self.job.requests[number].starts
        return [
            ([starts[one.view] + place * one.stride for place in one.kept], frames)
            for one, frames in zip(self.pipelines.readings, sample, strict=True)
        ]


class ReaderCuda(ReaderCpu):
    """The same by NVDEC."""

    where = "cuda"


class LegacyReaderCuda(ReaderCpu):
    """fn.readers.video, one for each view or one for views that begin together."""

    where = "cuda"
    notes = (
        "fn.readers.video; file_list with frame ranges; one per view with stride = speed, or one for views that begin "
        "together; built anew each round"
    )

    def graph(self, job: Job, setting: Setting) -> DaliCandidate:
        return LegacyRanges(job, setting)
