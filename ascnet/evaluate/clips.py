"""Which clips of a video a protocol looks at, and what is cut out of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ascnet.errors import UserError
from ascnet.evaluate.protocols import AREA, FLIP, Crop, Protocol, Role
from dali_pipes import Augment, ClipRequest, Corpus, Draws, Key, even_requests


def requests_of(corpus: Corpus, rows: Sequence[int], protocol: Protocol, role: Role) -> list[ClipRequest]:
    """One request a video, with the clips of the protocol in order of time.

    What is drawn for a video depends on the seed and its row alone: not on the other videos, their order or the number
    of processes.
    """
    requests = []
    for row in rows:
        request = even_requests(
            corpus, row, frames=protocol.frames, clips=protocol.clips, speed=protocol.speed, fps=protocol.fps
        )
        if protocol.rounding == "down" and protocol.clips > 1:
            starts = np.linspace(0, request.views[-1].start, protocol.clips).astype(int)
            views = [replace(view, start=int(start)) for view, start in zip(request.views, starts, strict=True)]
            request = replace(request, views=tuple(views))
        draws = None if _drawn(protocol, role) else region(protocol.crop, *_shown(corpus, row))
        if draws is not None:
            request = replace(request, views=tuple(replace(view, draws=draws) for view in request.views))
        requests.append(replace(request, key=Key(protocol.seed, 0, int(row))))
    return requests


def augment_of(protocol: Protocol, role: Role) -> Augment | None:
    """What the stream draws; None where it only cuts out the largest centred square, normalised by ImageNet's colours.

    With one, the host decodes to somewhat more than the size of the clips, so that nothing is enlarged afterwards.
    """
    if protocol.crop == "centre" and not _drawn(protocol, role):
        return None
    area, flip = (AREA, FLIP) if _drawn(protocol, role) else ((1.0, 1.0), 0.0)
    return Augment(
        crop_area=area,
        flip=flip,
        brightness=0,
        contrast=0,
        saturation=0,
        hue=0,
        jitter=0,
        grayscale=0,
        mean=protocol.mean,
        std=protocol.std,
    )


def region(crop: Crop, width: int, height: int) -> Draws | None:
    """What is cut out of an upright picture of `width` x `height`; None for the largest centred square."""
    if crop == "vcop":
        # Torchvision's centre crop of a picture 171 wide begins at 29.5, rounded to the even number.
        return Draws(30 / 171, 8 / 128, 142 / 171, 120 / 128)
    if crop == "coclr":
        side = min(width, height) * 224 / 240
        left, top = (width - side) / 2 / width, (height - side) / 2 / height
        return Draws(left, top, 1 - left, 1 - top)
    return None


def dropped(rows: NDArray[np.int64], batch: int, *, seed: int | None = None) -> NDArray[np.int64]:
    """The rows left when the last incomplete batch is dropped, in their order.

    Args:
        rows: Row numbers.
        batch: Videos in a batch; 0: nothing is dropped.
        seed: Of the order in which batches are filled; None: that of `rows`.

    Raises:
        UserError: Nothing would be left.
    """
    if not batch:
        return rows
    kept = len(rows) - len(rows) % batch
    if not kept:
        raise UserError(
            f"{len(rows)} videos do not fill a batch of {batch}, and this protocol drops incomplete ones; "
            "--protocol clean keeps all"
        )
    order = np.arange(len(rows)) if seed is None else np.random.default_rng(seed).permutation(len(rows))
    return rows[np.sort(order[:kept])]


def _drawn(protocol: Protocol, role: Role) -> bool:
    return protocol.augmented_gallery and role == "gallery"


def _shown(corpus: Corpus, row: int) -> tuple[int, int]:
    """Width and height of a video, upright."""
    width, height = int(corpus.width[row]), int(corpus.height[row])
    return (height, width) if int(corpus.column("rotation")[row]) in (90, 270) else (width, height)
