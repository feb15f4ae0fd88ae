"""Are the frames that a candidate delivers the frames that were asked for?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bench.measure.plan import Request
from bench.measure.reference import RESIZES, Frames

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
REACH = 3
# Two pictures can be told apart by a third only if they differ by more than twice the distance between it and the
# nearer of them (triangle inequality); in squares, four times. The floor covers rounding to whole grey levels.
APART = 4.0
ROUNDING = 0.25


@dataclass
class Check:
    """What comparing a candidate's frames with the reference found.

    Attributes:
        frames: Frames compared.
        told_apart: Frames whose direct neighbours look different enough to know their number for certain.
        wrong: Frames that certainly are others than those asked for.
        psnr: PSNR of all frames together against the antialiased centre square, dB: how good the resize is.
        psnr_nearest: The same against the way of resizing that the candidate is nearest to, dB.
        resize: That way.
        reason: Why the candidate is wrong; empty where it is right.
        examples: Some of the wrong frames: file, number asked for, number of the nearest neighbour.
    """

    frames: int = 0
    told_apart: int = 0
    wrong: int = 0
    psnr: float = float("nan")
    psnr_nearest: float = float("nan")
    resize: str = ""
    reason: str = ""
    examples: list[tuple[str, int, int]] = field(default_factory=list)

    @property
    def right(self) -> bool:
        return not self.reason

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def pictures(clips: torch.Tensor) -> NDArray[np.float32]:
    """Undo the normalisation: ``(B, V, 3, T, H, W)`` -> ``(B, V, T, H, W, 3)`` grey levels 0 to 255."""
    plain = clips.detach().float().cpu().permute(0, 1, 3, 4, 5, 2)
    return ((plain * torch.tensor(STD) + torch.tensor(MEAN)) * 255).numpy()


def compare(
    batches: Sequence[torch.Tensor], requests: Sequence[Request], frames: Frames, *, size: int, lowest_psnr: float
) -> Check:
    """Compare a candidate's normalised clips with the reference frames.

    A frame is wrong if the picture of a neighbour within ±3 frames is nearer to it (mean squared error) than the
    picture of its own number, and the two pictures differ by more than the resize can explain.

    Args:
        batches: ``(B, V, 3, T, size, size)`` each; together they hold the requests, in order.
        requests: What was asked for.
        frames: The reference, with neighbours.
        size: Side of the frames, pixels.
        lowest_psnr: A candidate below this, over all frames, shows another picture (dB).
    """
    views, length = len(requests[0].numbers), len(requests[0].numbers[0])
    for batch in batches:
        if batch.ndim != 6 or tuple(batch.shape[1:]) != (views, 3, length, size, size):
            return Check(reason=f"shape {tuple(batch.shape)} instead of (B, {views}, 3, {length}, {size}, {size})")
    delivered = sum(len(batch) for batch in batches)
    if delivered != len(requests):
        return Check(reason=f"{delivered} samples delivered, {len(requests)} asked for")
    return judge(lambda: _frames(batches, requests), frames, lowest_psnr=lowest_psnr)


def judge(
    delivered: Callable[[], Iterable[tuple[str, int, NDArray[np.float32] | NDArray[np.uint8]]]],
    frames: Frames,
    *,
    lowest_psnr: float,
) -> Check:
    """Compare pictures, each delivered as a certain frame of a video, with the reference frames.

    Args:
        delivered: Gives (path, frame number asked for, ``(size, size, 3)`` picture delivered); called twice.
        frames: The reference, with neighbours.
        lowest_psnr: Below this, over all frames, it is another picture (dB).
    """
    errors = np.stack(
        [[_error(picture, way) for way in frames[path][number]] for path, number, picture in delivered()]
    ).mean(axis=0)
    nearest_way = int(np.argmin(errors))
    check = Check(psnr=_psnr(errors[0]), psnr_nearest=_psnr(errors[nearest_way]), resize=list(RESIZES)[nearest_way])
    for path, number, picture in delivered():
        near = {
            other: frames[path][other][nearest_way]
            for other in range(number - REACH, number + REACH + 1)
            if other in frames[path]
        }
        _judge(check, path, number, picture, near)
    check.reason = _reason(check, lowest_psnr)
    return check


def _frames(
    batches: Sequence[torch.Tensor], requests: Sequence[Request]
) -> Iterator[tuple[str, int, NDArray[np.float32]]]:
    """(path, frame number asked for, picture delivered), for every frame."""
    samples = (sample for batch in batches for sample in pictures(batch))
    for request, sample in zip(requests, samples, strict=True):
        for view, numbers in zip(sample, request.numbers, strict=True):
            for picture, number in zip(view, numbers, strict=True):
                yield request.path, number, picture


def _judge(
    check: Check,
    path: str,
    number: int,
    picture: NDArray[np.float32] | NDArray[np.uint8],
    near: dict[int, NDArray[np.uint8]],
) -> None:
    """Count one frame."""
    check.frames += 1
    errors = {other: _error(picture, reference) for other, reference in near.items()}
    nearest = min(errors, key=lambda other: errors[other])
    noise = APART * (errors[nearest] + ROUNDING)
    neighbours = [other for other in (number - 1, number + 1) if other in near]
    check.told_apart += all(_error(near[other], near[number]) > noise for other in neighbours)
    if nearest != number and _error(near[nearest], near[number]) > noise:
        check.wrong += 1
        if len(check.examples) < 5:
            # The name alone: results are committed, and say nothing of the machine's folders.
            check.examples.append((Path(path).name, number, nearest))


def _reason(check: Check, lowest_psnr: float) -> str:
    if check.wrong:
        path, number, nearest = check.examples[0]
        return f"{check.wrong} of {check.frames} frames are others, e.g. {nearest} for {number} of {path}"
    if not check.psnr_nearest >= lowest_psnr:  # so written that NaN is refused
        return f"PSNR {check.psnr_nearest:.1f} dB is below {lowest_psnr:g} dB: another picture"
    if not check.told_apart:
        return f"none of {check.frames} frames could be told from its neighbours; use videos in which something moves"
    return ""


def _error(picture: NDArray[np.float32] | NDArray[np.uint8], reference: NDArray[np.uint8]) -> float:
    difference = np.subtract(picture, reference, dtype=np.float32).ravel()
    return float(difference @ difference) / difference.size


def _psnr(error: float) -> float:
    return float(10 * np.log10(255.0**2 / max(error, 1e-6)))
