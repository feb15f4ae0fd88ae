"""torchcodec (https://github.com/meta-pytorch/torchcodec)."""

from __future__ import annotations

from typing import Any

from bench.decoders.base import Job, ThreadedDecoder
from bench.measure.isolated import in_one_line
from bench.measure.plan import Request


class TorchcodecCpu(ThreadedDecoder):
    """FFmpeg on the CPU, exact seeking, as by default."""

    notes = "VideoDecoder(num_ffmpeg_threads=1).get_frames_at of the unique frames; seek_mode exact"
    needs = ("torchcodec.decoders",)

    def read(self, request: Request) -> Any:
        from torchcodec.decoders import VideoDecoder

        video = VideoDecoder(request.path, dimension_order="NHWC", num_ffmpeg_threads=1)
        return video.get_frames_at(request.unique).data.numpy()


class TorchcodecCuda(ThreadedDecoder):
    """NVDEC; frames stay on the GPU."""

    where = "cuda"
    notes = "VideoDecoder(device='cuda').get_frames_at of the unique frames; seek_mode exact"
    needs = ("torchcodec.decoders",)

    @classmethod
    def refuses(cls, job: Job) -> str | None:
        from torchcodec.decoders import VideoDecoder

        try:
            video = VideoDecoder(job.requests[0].path, device=job.device)
            video.get_frames_at(job.requests[0].unique[:1])
        # A wheel without CUDA says so only here.
        except Exception as error:
            return in_one_line(error)
        return None

    def read(self, request: Request) -> Any:
        from torchcodec.decoders import VideoDecoder

        video = VideoDecoder(request.path, dimension_order="NHWC", device=self.job.device)
        return video.get_frames_at(request.unique).data
