"""DALI's own two ways to clips of video files: its decoder over whole files, and its video reader.

Both take only codecs that DALI knows on the device: on the CPU VP8, VP9 and MJPEG. What follows decoding is the same
in both, and is what DALI's users write: short side to size, centre crop, normalise.
"""

from __future__ import annotations

import tempfile
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.check import MEAN, STD
from bench.peers.base import Candidate, Setting
from bench.plan import Request

if TYPE_CHECKING:
    from nvidia.dali.data_node import DataNode
    from nvidia.dali.pipeline import Pipeline


class DaliCandidate(Candidate):
    """One DALI pipeline an epoch, built over that epoch's requests before its first batch."""

    kind = "dali"
    needs = ("nvidia.dali",)

    def __init__(self, requests: Sequence[Request], setting: Setting) -> None:
        self.requests, self.setting = list(requests), setting

    @classmethod
    def refuses(cls, requests: Sequence[Request], setting: Setting) -> str | None:
        from dali_pipes.decode.choice import CPU_CODECS, GPU_CODECS

        known = tuple(GPU_CODECS) if setting.device.type == "cuda" else CPU_CODECS
        codecs = sorted(set(setting.corpus.column("codec")[setting.corpus.select()].tolist()) - set(known))
        if codecs:
            where = "GPU" if setting.device.type == "cuda" else "CPU"
            return f"DALI's {where} decoder does not take {', '.join(codecs)} (it takes {', '.join(known)})"
        return None

    @abstractmethod
    def clips(self, batches: Sequence[Sequence[int]]) -> tuple[DataNode, ...]:
        """The nodes of one clip a view, ``(T, H, W, 3)`` with the short side at the size, for an epoch's requests."""

    def epoch(self, batches: Sequence[Sequence[int]]) -> Iterator[torch.Tensor]:
        pipeline = self._build(batches)
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

    def _build(self, batches: Sequence[Sequence[int]]) -> Pipeline:
        from nvidia.dali import fn, types
        from nvidia.dali.pipeline import Pipeline

        setting = self.setting
        pipeline = Pipeline(
            batch_size=setting.batch_size,
            num_threads=setting.workers or 1,
            device_id=(setting.device.index or 0) if setting.device.type == "cuda" else None,
            prefetch_queue_depth=2,
            exec_dynamic=True,
        )
        half = setting.dtype is torch.float16
        with pipeline:
            outputs = [
                fn.crop_mirror_normalize(
                    clip,
                    crop=(setting.size, setting.size),
                    dtype=types.DALIDataType.FLOAT16 if half else types.DALIDataType.FLOAT,
                    output_layout="CFHW",
                    mean=[255 * value for value in MEAN],
                    std=[255 * value for value in STD],
                )
                for clip in self.clips(batches)
            ]
            pipeline.set_outputs(*outputs)
        pipeline.build()
        return pipeline

    @property
    def gpu(self) -> bool:
        return self.setting.device.type == "cuda"


class DaliDecoder(DaliCandidate):
    """Every frame is decoded and resized once, out of the whole file's bytes."""

    notes = "fn.decoders.video over whole files (external source), unique frames, resized once, gathered per view"

    def clips(self, batches: Sequence[Sequence[int]]) -> tuple[DataNode, ...]:
        from nvidia.dali import fn

        views = len(self.requests[0].numbers)
        nodes: Any = fn.external_source(source=self._inputs(batches), num_outputs=2 + views, batch=True)
        encoded, numbers, *orders = nodes
        frames = fn.decoders.video(encoded, frames=numbers, device="mixed" if self.gpu else "cpu")
        small: Any = fn.resize(frames, resize_shorter=self.setting.size)
        return tuple(fn.sequence_rearrange(small, new_order=order) for order in orders)

    def _inputs(self, batches: Sequence[Sequence[int]]) -> Iterator[tuple[list[NDArray[Any]], ...]]:
        for batch in batches:
            requests = [self.requests[number] for number in batch]
            yield (
                [np.fromfile(request.path, np.uint8) for request in requests],
                [np.array(request.unique, np.int32) for request in requests],
                *(
                    [np.searchsorted(r.unique, np.asarray(r.numbers[view])).astype(np.int32) for r in requests]
                    for view in range(len(requests[0].numbers))
                ),
            )


class DaliReader(DaliCandidate):
    """A reader for each view, whose file list names every clip by its first and last frame.

    A reader's stride and its list are fixed when it is built. So it is built anew for each epoch's order, which no
    clock sees, and what overlaps between views is decoded by each.
    """

    notes = "fn.experimental.readers.video per view; file_list with frame ranges, stride = speed; built anew each epoch"

    def __init__(self, requests: Sequence[Request], setting: Setting) -> None:
        super().__init__(requests, setting)
        self.folder = tempfile.TemporaryDirectory(prefix="bench-dali-reader-")
        # Names in a file list end at the first space, so each file goes by a link that has none.
        self.links: dict[str, Path] = {}
        for path in sorted({request.path for request in requests}):
            self.links[path] = Path(self.folder.name) / f"{len(self.links)}{Path(path).suffix.replace(' ', '')}"
            self.links[path].symlink_to(Path(path).resolve())

    @classmethod
    def refuses(cls, requests: Sequence[Request], setting: Setting) -> str | None:
        odd = sorted({speed for request in requests for speed in request.speeds if speed != int(speed)})
        if odd:
            return f"its stride is a whole number of frames; speed {odd[0]:g} is none"
        return super().refuses(requests, setting)

    def clips(self, batches: Sequence[Sequence[int]]) -> tuple[DataNode, ...]:
        from nvidia.dali import fn

        requests = [self.requests[number] for batch in batches for number in batch]
        nodes: list[Any] = []
        for view, speed in enumerate(requests[0].speeds):
            stride = int(speed)
            # A sequence takes T * stride frames of a range, though it shows the last stride - 1 of them never.
            span = self.setting.frames * stride
            lines = [f"{self.links[r.path]} 0 {r.starts[view]} {r.starts[view] + span}" for r in requests]
            path = Path(self.folder.name) / f"view{view}.txt"
            path.write_text("\n".join(lines) + "\n")
            outputs: Any = fn.experimental.readers.video(
                device="gpu" if self.gpu else "cpu",
                file_list=str(path),
                file_list_format="frames",
                file_list_include_end=False,
                sequence_length=self.setting.frames,
                stride=stride,
                prefetch_queue_depth=2,
            )
            nodes.append(fn.resize(outputs[0], resize_shorter=self.setting.size))
        return tuple(nodes)

    def close(self) -> None:
        self.folder.cleanup()
