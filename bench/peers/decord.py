"""DataLoaders over decord (https://github.com/dmlc/decord)."""

from __future__ import annotations

import torch

from bench.measure.plan import Request
from bench.measure.reference import centre_square
from bench.peers.base import LoaderCandidate
from bench.peers.recipes import gather, normalise, small_shape, usual_clip


class DecordUsual(LoaderCandidate):
    """Full-size frames, a batch of frames a view, then torch."""

    kind = "usual"
    notes = "get_batch per view at full size; torch resize, crop, normalise in the worker; float32 transport"
    needs = ("decord",)

    @staticmethod
    def read(request: Request, size: int) -> torch.Tensor:
        import decord

        video = decord.VideoReader(request.path, num_threads=1)
        views = [video.get_batch(list(numbers)).asnumpy() for numbers in request.numbers]
        return torch.stack([usual_clip(torch.from_numpy(view), size) for view in views])

    def finish(self, batch: torch.Tensor) -> torch.Tensor:
        return batch.to(self.setting.device, self.setting.dtype, non_blocking=True)


class DecordBest(LoaderCandidate):
    """decord scales while it decodes; every frame is asked for once."""

    kind = "best"
    notes = "short side scaled by VideoReader(width, height); unique frames of all views at once; uint8 transport"
    needs = ("decord",)

    @staticmethod
    def read(request: Request, size: int) -> torch.Tensor:
        import decord

        width, height = small_shape(request, size)
        video = decord.VideoReader(request.path, width=width, height=height, num_threads=1)
        return gather(centre_square(video.get_batch(request.unique).asnumpy()), request)

    def finish(self, batch: torch.Tensor) -> torch.Tensor:
        return normalise(batch, self.setting.dtype, self.setting.device)
