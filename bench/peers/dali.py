"""DALI's own two ways to clips of video files: its decoder over whole files, and its video reader.

Both take only codecs that DALI knows on the device: on the CPU VP8, VP9 and MJPEG. What follows decoding is the same
in both, and is what DALI's users write: short side to size, centre crop, normalise.
"""

from __future__ import annotations

import tempfile
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from bench.measure.check import MEAN, STD
from bench.measure.plan import Request
from bench.peers.base import Candidate, Setting

if TYPE_CHECKING:
    from nvidia.dali.data_node import DataNode
    from nvidia.dali.pipeline import Pipeline


def refused_codecs(codecs: Iterable[str], device: str) -> str | None:
    """Why DALI's decoder does not take videos of these codecs on the device ("cpu" or "cuda"), or None."""
    from dali_pipes.decode.choice import CPU_CODECS, GPU_CODECS

    known = tuple(GPU_CODECS) if device == "cuda" else CPU_CODECS
    others = sorted(set(codecs) - set(known))
    if others:
        where = "GPU" if device == "cuda" else "CPU"
        return f"DALI's {where} decoder does not take {', '.join(others)} (it takes {', '.join(known)})"
    return None


def odd_stride(requests: Sequence[Request]) -> str | None:
    """Why a reader, whose stride is a whole number of frames, cannot show these speeds, or None."""
    odd = sorted({speed for request in requests for speed in request.speeds if speed != int(speed)})
    return f"its stride is a whole number of frames; speed {odd[0]:g} is none" if odd else None


class DaliCandidate(Candidate):
    """One DALI pipeline an epoch, built over that epoch's requests before its first batch."""

    kind = "dali"
    needs = ("nvidia.dali",)

    def __init__(self, requests: Sequence[Request], setting: Setting) -> None:
        self.requests, self.setting = list(requests), setting

    @classmethod
    def refuses(cls, requests: Sequence[Request], setting: Setting) -> str | None:
        return refused_codecs(setting.corpus.column("codec")[setting.corpus.select()].tolist(), setting.device.type)

    @abstractmethod
    def clips(self, batches: Sequence[Sequence[int]]) -> tuple[DataNode, ...]:
        """The nodes of one clip a view, ``(T, H, W, 3)`` with the short side at the size, for an epoch's requests."""

    def epoch(self, batches: Sequence[Sequence[int]]) -> Iterator[torch.Tensor]:
        pipeline = self.build(batches)
        waiting = torch.empty(0)
        for batch in batches:
            # A reader fills its batches across ours, so some of its samples may belong to the next one.
            while len(waiting) < len(batch):
                views = [torch.from_dlpack(output.as_tensor()) for output in pipeline.run()]
                fresh = torch.stack(views, dim=1)
                waiting = torch.cat([waiting, fresh]) if len(waiting) else fresh
            yield waiting[: len(batch)]
            waiting = waiting[len(batch) :]

    def close(self) -> None:
        """Pipelines live no longer than their epoch."""

    def build(self, batches: Sequence[Sequence[int]]) -> Pipeline:
        """The pipeline of an epoch."""
        from nvidia.dali.pipeline import Pipeline

        setting = self.setting
        pipeline = Pipeline(
            batch_size=setting.batch_size,
            num_threads=setting.workers or 1,
            device_id=(setting.device.index or 0) if setting.device.type == "cuda" else None,
            prefetch_queue_depth=setting.prefetch,
            exec_dynamic=True,
        )
        with pipeline:
            pipeline.set_outputs(*self.outputs(batches))
        pipeline.build()
        return pipeline

    def outputs(self, batches: Sequence[Sequence[int]]) -> tuple[DataNode, ...]:
        """What the pipeline delivers: one normalised clip a view."""
        from nvidia.dali import fn, types

        setting = self.setting
        nodes: list[Any] = [
            fn.crop_mirror_normalize(
                clip,
                crop=(setting.size, setting.size),
                dtype=types.DALIDataType.FLOAT16 if setting.dtype is torch.float16 else types.DALIDataType.FLOAT,
                output_layout="CFHW",
                mean=[255 * value for value in MEAN],
                std=[255 * value for value in STD],
            )
            for clip in self.clips(batches)
        ]
        return tuple(nodes)

    @property
    def gpu(self) -> bool:
        return self.setting.device.type == "cuda"


class DaliDecoder(DaliCandidate):
    """Every frame is decoded and resized once, out of the whole file's bytes."""

    notes = "fn.decoders.video over whole files (external source), unique frames, resized once, gathered per view"

    # Further options of the decoder on a GPU.
    gpu_options: ClassVar[dict[str, Any]] = {}

    def clips(self, batches: Sequence[Sequence[int]]) -> tuple[DataNode, ...]:
        from nvidia.dali import fn

        views = len(self.requests[0].numbers)
        orders: Any = fn.external_source(source=self.orders(batches), num_outputs=views, batch=True)
        small: Any = fn.resize(self.decoded(batches), resize_shorter=self.setting.size)
        return tuple(fn.sequence_rearrange(small, new_order=order) for order in orders)

    def decoded(self, batches: Sequence[Sequence[int]]) -> Any:
        """The node of the unique frames of each request, at full size."""
        from nvidia.dali import fn

        nodes: Any = fn.external_source(source=self.encoded(batches), num_outputs=2, batch=True)
        encoded, numbers = nodes
        if self.gpu:
            return fn.decoders.video(encoded, frames=numbers, device="mixed", **self.gpu_options)
        return fn.decoders.video(encoded, frames=numbers, device="cpu")

    def encoded(self, batches: Sequence[Sequence[int]]) -> Iterator[tuple[list[NDArray[Any]], list[NDArray[Any]]]]:
        """Of each batch the bytes to decode, and the numbers of the unique frames in them."""
        for batch in batches:
            requests = [self.requests[number] for number in batch]
            yield (
                [np.fromfile(request.path, np.uint8) for request in requests],
                [np.array(request.unique, np.int32) for request in requests],
            )

    def orders(self, batches: Sequence[Sequence[int]]) -> Iterator[tuple[list[NDArray[Any]], ...]]:
        """Of each batch and view the places of the view's frames among the unique ones."""
        for batch in batches:
            requests = [self.requests[number] for number in batch]
            yield tuple(
                [np.searchsorted(r.unique, np.asarray(r.numbers[view])).astype(np.int32) for r in requests]
                for view in range(len(requests[0].numbers))
            )


@dataclass(frozen=True)
class Reading:
    """What one reader reads of every request.

    Attributes:
        view: The view whose first frame it begins with.
        stride: Distance between two of its frames.
        kept: Which of its frames any view shows, counted from the first.
    """

    view: int
    stride: int
    kept: tuple[int, ...]

    @property
    def length(self) -> int:
        """How many frames it reads."""
        return self.kept[-1] + 1


class DaliReader(DaliCandidate):
    """A reader whose file list names every clip by its first and last frame.

    There is one for each view, whose stride is the speed; or one for all views where these begin together, which reads
    and resizes every frame once. A reader's stride and list are fixed when it is built. So it is built anew for each
    epoch's order, which no clock sees.

    Attributes:
        readings: What each reader reads.
    """

    notes = (
        "fn.experimental.readers.video; file_list with frame ranges; one per view with stride = speed, or one for "
        "views that begin together; built anew each epoch"
    )

    def __init__(self, requests: Sequence[Request], setting: Setting) -> None:
        super().__init__(requests, setting)
        self.folder = tempfile.TemporaryDirectory(prefix="bench-dali-reader-")
        # Names in a file list end at the first space, so each file goes by a link that has none.
        self.links: dict[str, Path] = {}
        for path in sorted({request.path for request in requests}):
            self.links[path] = Path(self.folder.name) / f"{len(self.links)}{Path(path).suffix.replace(' ', '')}"
            self.links[path].symlink_to(Path(path).resolve())
        speeds, frames = [int(speed) for speed in requests[0].speeds], range(setting.frames)
        if all(len(set(request.starts)) == 1 for request in requests):
            step = gcd(*speeds)
            kept = tuple(sorted({place * speed // step for speed in speeds for place in frames}))
            self.readings = [Reading(0, step, kept)]
        else:
            self.readings = [Reading(view, speed, tuple(frames)) for view, speed in enumerate(speeds)]

    @classmethod
    def refuses(cls, requests: Sequence[Request], setting: Setting) -> str | None:
        return odd_stride(requests) or super().refuses(requests, setting)

    def clips(self, batches: Sequence[Sequence[int]]) -> tuple[DataNode, ...]:
        from nvidia.dali import fn

        nodes: list[Any] = [fn.resize(one, resize_shorter=self.setting.size) for one in self.sequences(batches)]
        speeds = self.requests[0].speeds
        if len(nodes) == len(speeds):
            return tuple(nodes)
        one = self.readings[0]
        orders = [
            [one.kept.index(place * int(speed) // one.stride) for place in range(self.setting.frames)]
            for speed in speeds
        ]
        return tuple(fn.sequence_rearrange(nodes[0], new_order=order) for order in orders)

    def sequences(self, batches: Sequence[Sequence[int]]) -> tuple[Any, ...]:
        """What each reader keeps of its frames, at full size."""
        from nvidia.dali import fn

        requests = [self.requests[number] for batch in batches for number in batch]
        nodes: list[Any] = []
        for reading in self.readings:
            begins = [(self.links[request.path], request.starts[reading.view]) for request in requests]
            span = self.span(reading)
            path = Path(self.folder.name) / f"view{reading.view}.txt"
            path.write_text("".join(f"{link} 0 {start} {start + span}\n" for link, start in begins))
            node = self.reader(str(path), reading)
            whole = len(reading.kept) == reading.length
            nodes.append(node if whole else fn.sequence_rearrange(node, new_order=list(reading.kept)))
        return tuple(nodes)

    def span(self, reading: Reading) -> int:
        """Frames of a range that one sequence takes, though it never shows the last stride - 1."""
        return reading.length * reading.stride

    def reader(self, file_list: str, reading: Reading) -> Any:
        """The node of a reader over a list of ``file label first last`` lines."""
        from nvidia.dali import fn

        outputs: Any = fn.experimental.readers.video(
            device="gpu" if self.gpu else "cpu",
            file_list=file_list,
            file_list_format="frames",
            file_list_include_end=False,
            sequence_length=reading.length,
            stride=reading.stride,
            prefetch_queue_depth=self.setting.prefetch,
        )
        return outputs[0]

    def close(self) -> None:
        self.folder.cleanup()
