"""decord (https://github.com/dmlc/decord)."""

from __future__ import annotations

from typing import Any

from bench.decoders.base import ThreadedDecoder
from bench.measure.plan import Request


class Decord(ThreadedDecoder):
    """Its batch of frames at full size, on the CPU: its wheels have no GPU decoder."""

    notes = "VideoReader(num_threads=1).get_batch of the unique frames"
    needs = ("decord",)

    def read(self, request: Request) -> Any:
        import decord

        return decord.VideoReader(request.path, num_threads=1).get_batch(request.unique).asnumpy()
