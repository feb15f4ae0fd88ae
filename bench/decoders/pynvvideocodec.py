"""PyNvVideoCodec (https://pypi.org/project/PyNvVideoCodec): NVDEC as NVIDIA's SDK gives it to Python."""

from __future__ import annotations

import importlib
import threading
from typing import Any

import torch

from bench.decoders.base import Job, ThreadedDecoder
from bench.measure.plan import Request


class PyNvVideoCodec(ThreadedDecoder):
    """A decoder a thread, given the next file by `reconfigure_decoder`, as its sample of frame sampling does."""

    where = "cuda"
    notes = "SimpleDecoder a thread, reconfigure_decoder, get_batch_frames_by_index, stacked by torch"
    needs = ("PyNvVideoCodec",)

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.local = threading.local()
        self.device = torch.device(job.device)
        self.width = max(video.width for video in job.videos.values())
        self.height = max(video.height for video in job.videos.values())

    def read(self, request: Request) -> Any:
        codec: Any = importlib.import_module("PyNvVideoCodec")
        torch.cuda.set_device(self.device)
        decoder = getattr(self.local, "decoder", None)
        if decoder is None:
            decoder = codec.SimpleDecoder(
                request.path,
                gpu_id=self.device.index or 0,
                use_device_memory=True,
                max_width=self.width,
                max_height=self.height,
                output_color_type=codec.OutputColorType.RGB,
            )
            self.local.decoder = decoder
        else:
            decoder.reconfigure_decoder(request.path)
        frames = decoder.get_batch_frames_by_index(request.unique)
        # Its own memory: the decoder writes the next frames where these are.
        clip = torch.stack([torch.from_dlpack(frame) for frame in frames])
        torch.cuda.current_stream().synchronize()
        return clip
