"""PyAV (https://github.com/PyAV-Org/PyAV), written as people usually write it."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.decoders.base import ThreadedDecoder
from bench.measure.plan import Request
from bench.peers.pyav import sought, upright


class Pyav(ThreadedDecoder):
    """One seek to the key frame before the first frame wanted, then everything up to the last one."""

    notes = "one seek, decode to the last frame wanted, to_ndarray('rgb24') of those wanted; one codec thread"
    needs = ("av",)

    def read(self, request: Request) -> Any:
        import av

        with av.open(request.path, metadata_errors="ignore") as container:
            return np.stack(
                [upright(frame.to_ndarray(format="rgb24"), frame) for _, frame in sought(container, request.unique)]
            )
