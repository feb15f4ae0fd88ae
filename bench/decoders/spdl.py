"""SPDL (https://github.com/facebookresearch/spdl)."""

from __future__ import annotations

import importlib
from typing import Any

from bench.decoders.base import ThreadedDecoder
from bench.measure.plan import Request


class Spdl(ThreadedDecoder):
    """All packets of the file, of which it decodes those that the frames need."""

    notes = "spdl.io.demux_video, sample_decode_video of the unique frames (rgb24, one codec thread), convert_frames"
    needs = ("spdl.io",)

    def read(self, request: Request) -> Any:
        io: Any = importlib.import_module("spdl.io")
        packets = io.demux_video(request.path)
        frames = io.sample_decode_video(
            packets,
            request.unique,
            decode_config=io.decode_config(decoder_options={"threads": "1"}),
            filter_desc=io.get_video_filter_desc(pix_fmt="rgb24"),
        )
        return io.to_numpy(io.convert_frames(frames))
