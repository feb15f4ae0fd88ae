"""DataLoaders over PyAV (https://github.com/PyAV-Org/PyAV): FFmpeg's decoder, driven frame by frame from Python."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.measure.plan import Request
from bench.measure.reference import centre_square
from bench.peers.base import LoaderCandidate
from bench.peers.recipes import gather, normalise, usual_clip

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer


class PyavUsual(LoaderCandidate):
    """Seek to the key frame before a view, decode up to its last frame, full size, then torch."""

    kind = "usual"
    notes = "seek and decode per view at full size; torch resize, crop, normalise in the worker; float32 transport"
    needs = ("av",)

    @staticmethod
    def read(request: Request, size: int) -> torch.Tensor:
        views = []
        with opened(request.path) as container:
            for numbers in request.numbers:
                found = {
                    number: upright(frame.to_ndarray(format="rgb24"), frame)
                    for number, frame in sought(container, sorted(set(numbers)))
                }
                views.append(usual_clip(torch.from_numpy(np.stack([found[number] for number in numbers])), size))
        return torch.stack(views)

    def finish(self, batch: torch.Tensor) -> torch.Tensor:
        return batch.to(self.setting.device, self.setting.dtype, non_blocking=True)


class PyavBest(LoaderCandidate):
    """No frame is decoded twice; OpenCV resizes, which is quicker than letting FFmpeg's scaler do it."""

    kind = "best"
    notes = "unique frames, sought only past a key frame; centre square resized by OpenCV (linear); uint8 transport"
    needs = ("av", "cv2")

    @staticmethod
    def read(request: Request, size: int) -> torch.Tensor:
        import cv2
        from av.video.reformatter import VideoReformatter

        colours = VideoReformatter()  # one for all frames, or each would build its tables anew
        small = []
        with opened(request.path) as container:
            for run in runs(request.unique, key_frames(container)):
                for _, frame in sought(container, run):
                    whole = upright(colours.reformat(frame, format="rgb24", threads=1).to_ndarray(), frame)
                    small.append(cv2.resize(centre_square(whole), (size, size), interpolation=cv2.INTER_LINEAR))
        return gather(np.stack(small), request)

    def finish(self, batch: torch.Tensor) -> torch.Tensor:
        return normalise(batch, self.setting.dtype, self.setting.device)


def opened(path: str) -> InputContainer:
    """Open a file for decoding by one thread."""
    import av

    container = av.open(path, metadata_errors="ignore")
    container.streams.video[0].thread_type = "NONE"
    return container


def sought(container: InputContainer, numbers: Sequence[int]) -> Iterator[tuple[int, VideoFrame]]:
    """Seek to the key frame before the first of some frames, decode up to the last of them, and give those.

    Args:
        container: A file whose first video stream has a constant rate.
        numbers: Frame numbers, rising, each once.

    Raises:
        ValueError: If the decoder does not come by one of them.
    """
    stream = container.streams.video[0]
    rate, base = stream.average_rate, stream.time_base
    if rate is None or base is None:
        raise ValueError("no frame rate")
    first, step = stream.start_time or 0, 1 / (rate * base)
    wanted, early = list(numbers), 0
    while wanted:
        start = max(0, wanted[0] - early)
        container.seek(first + int(start * step), stream=stream)
        for frame in container.decode(stream):
            number = round((frame.pts - first) / step) if frame.pts is not None else -1
            if number > wanted[0]:
                break
            if number == wanted[0]:
                yield wanted.pop(0), frame
            if not wanted:
                return
        # An MP4 is sought by decoding time, which for a frame just before a key frame may lead to that key frame.
        if start == 0:
            raise ValueError(f"frame {wanted[0]} was not decoded")
        early = max(8, 4 * early)


def key_frames(container: InputContainer) -> list[int]:
    """Numbers of the key frames as the container's index has them; empty where it has none."""
    stream = container.streams.video[0]
    rate, base = stream.average_rate, stream.time_base
    entries = list(stream.index_entries)
    if rate is None or base is None or len(entries) < 2:
        return []
    # Entries bear decoding times, which all precede the times of presentation by the same delay.
    first = entries[0].timestamp
    return [round((entry.timestamp - first) * base * rate) for entry in entries if entry.is_keyframe]


def runs(numbers: Sequence[int], keys: Sequence[int]) -> list[list[int]]:
    """Cut rising frame numbers where a key frame lies in between: only there does seeking save decoding."""
    cut: list[list[int]] = []
    for number in numbers:
        if cut and not any(cut[-1][-1] < key <= number for key in keys):
            cut[-1].append(number)
        else:
            cut.append([number])
    return cut


def upright(picture: NDArray[Any], frame: VideoFrame) -> NDArray[np.uint8]:
    """The picture turned as the file says."""
    turned = np.rot90(picture, round(frame.rotation / 90)) if frame.rotation else picture
    return np.ascontiguousarray(turned, dtype=np.uint8)
