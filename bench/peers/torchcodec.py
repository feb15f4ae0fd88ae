"""DataLoaders over torchcodec (https://github.com/meta-pytorch/torchcodec)."""

from __future__ import annotations

import numpy as np
import torch

from bench.measure.plan import Request
from bench.measure.reference import centre_square
from bench.peers.base import LoaderCandidate
from bench.peers.recipes import gather, normalise, usual_clip


class TorchcodecUsual(LoaderCandidate):
    """Full-size frames, a call a view, then torch."""

    kind = "usual"
    notes = "get_frames_at per view at full size; torch resize, crop, normalise in the worker; float32 transport"
    needs = ("torchcodec.decoders",)

    @staticmethod
    def read(request: Request, size: int) -> torch.Tensor:
        from torchcodec.decoders import VideoDecoder

        video = VideoDecoder(request.path, dimension_order="NHWC", num_ffmpeg_threads=1)
        views = [video.get_frames_at(list(numbers)).data for numbers in request.numbers]
        return torch.stack([usual_clip(view, size) for view in views])

    def finish(self, batch: torch.Tensor) -> torch.Tensor:
        return batch.to(self.setting.device, self.setting.dtype, non_blocking=True)


class TorchcodecBest(LoaderCandidate):
    """Every frame is asked for once and resized by OpenCV, which is quicker than torch and than its own resize."""

    kind = "best"
    notes = "unique frames of all views at once; centre square resized by OpenCV (linear); uint8 transport"
    needs = ("torchcodec.decoders", "cv2")

    @staticmethod
    def read(request: Request, size: int) -> torch.Tensor:
        import cv2
        from torchcodec.decoders import VideoDecoder

        video = VideoDecoder(request.path, dimension_order="NHWC", num_ffmpeg_threads=1)
        squares = centre_square(video.get_frames_at(request.unique).data.numpy())
        small = np.stack([cv2.resize(square, (size, size), interpolation=cv2.INTER_LINEAR) for square in squares])
        return gather(small, request)

    def finish(self, batch: torch.Tensor) -> torch.Tensor:
        return normalise(batch, self.setting.dtype, self.setting.device)
