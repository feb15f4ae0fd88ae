"""Request -> sample: what happens on the host to one request before the graph sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dali_pipes.augment import PLAIN, Augment, Draws, center_crop
from dali_pipes.clips.frames import clip_frames
from dali_pipes.clips.random import Purpose, generator
from dali_pipes.clips.request import ClipRequest
from dali_pipes.clips.speed import Short, Timing
from dali_pipes.decode.cache import VideoCache
from dali_pipes.decode.choice import Decoder, choose
from dali_pipes.decode.host import decode_frames
from dali_pipes.decode.picture import working_size
from dali_pipes.decode.slice import cut
from dali_pipes.errors import DataError, VideoError
from dali_pipes.pipeline import Sample
from dali_pipes.stages import stage

if TYPE_CHECKING:
    from dali_pipes.corpus import Corpus, Video


@dataclass(frozen=True)
class Preparer:
    """Turns requests into samples.

    Attributes:
        corpus: The videos.
        frames: Frames per clip, T.
        size: Side of the output, pixels.
        augment: What to draw for views that carry no draws; None: the centred square.
        fps: Reference rate for 1x, or None.
        short: What happens past a video's last frame.
        device: ``cpu`` or ``gpu``, where the graph runs.
        decoder: See :func:`dali_pipes.decode.choice.choose`.
        cache: Small copies of the videos to decode instead, where there are any; None: none.
        processes: Whether what the host decodes is decoded in processes of its own.
    """

    corpus: Corpus
    frames: int
    size: int
    augment: Augment | None
    fps: float | None
    short: Short
    device: str
    decoder: Decoder
    cache: VideoCache | None = None
    processes: bool = False

    @property
    def short_side(self) -> int:
        """Shorter side of frames decoded on the host: for random crops 128 for clips of 112, as is usual, so that crops
        lose little; for centred squares the size itself, so that they are scaled once."""
        return self.size if self.augment is None else round(self.size * 8 / 7)

    def __call__(self, request: ClipRequest) -> Sample:
        """Plans, reads and, where DALI cannot, decodes.

        Raises:
            VideoError: If the video cannot be read or decoded.
        """
        video = self.corpus[request.video]
        if video.error:
            raise VideoError(video.uri, video.error)
        # Which frames is a question to the video's own clock, whoever is decoded in its place.
        frames, orders = self.plan(video, request)
        if self.cache is not None and (copy := self.cache.copy_of(video)) is not None:
            try:
                return self._decoded(video, copy, frames, orders, request)
            except VideoError:
                self.cache.forget(video)
        return self._decoded(video, video, frames, orders, request)

    def _decoded(
        self,
        video: Video,
        source: Video,
        frames: NDArray[np.int64],
        orders: tuple[NDArray[np.int32], ...],
        request: ClipRequest,
    ) -> Sample:
        """The sample, its frames taken from ``source``: the video itself or its copy."""
        on_host = choose(source, self.device, self.decoder).decoder == "host"
        draws = tuple(self._draws(video, source, request, v, on_host) for v in range(len(request.views)))
        if not on_host:
            with stage("cut"):
                piece = cut(source, frames)
            return Sample(piece.data, piece.frames, None, orders, draws)
        with stage("decode"):
            square = self._square(request)
            raw = decode_frames(source, frames, short_side=self.short_side, square=square, apart=self.processes)
            raw = np.ascontiguousarray(raw)
        return Sample(None, np.empty(0, np.int32), raw, orders, draws)

    def plan(self, video: Video, request: ClipRequest) -> tuple[NDArray[np.int64], tuple[NDArray[np.int32], ...]]:
        """Frames to decode, sorted and each once, and for each view which of them it shows."""
        timing = Timing(video.frames, video.rate, video.timestamps)
        try:
            wanted = [
                clip_frames(timing, request, view, self.frames, fps=self.fps, short=self.short)
                for view in range(len(request.views))
            ]
        except ValueError as error:
            raise DataError(f"{video.uri}: {error}") from error
        # Plain numbers, as in `frame_indices`.
        shown = [numbers.tolist() for numbers in wanted]
        frames = sorted(set().union(*shown))
        places = {number: at for at, number in enumerate(frames)}
        orders = tuple(np.array([places[number] for number in numbers], np.int32) for numbers in shown)
        return np.array(frames, np.int64), orders

    def _draws(self, video: Video, source: Video, request: ClipRequest, view: int, on_host: bool) -> Draws:
        given = request.views[view].draws
        if given is not None:
            self._check(given)
            return given
        if self.augment is None:
            short_side = self.short_side if on_host else None
            width, height = working_size(source.shown_width, source.shown_height, short_side)
            side = min(width, height)
            return center_crop(side, side) if on_host and self._square(request) else center_crop(width, height)
        rng = generator(request.key, Purpose.AUGMENT, view=view)
        return self.augment.draw(rng, video.shown_width, video.shown_height)

    def _square(self, request: ClipRequest) -> bool:
        """Whether no view shows more than the centred square, so that the host need not hand over the rest."""
        return self.augment is None and all(view.draws is None for view in request.views)

    def _check(self, draws: Draws) -> None:
        """Draws given with a view may need operators that the graph was built without."""
        augment = self.augment or PLAIN
        plain = Draws()
        if not augment.colours and draws[5:9] != plain[5:9]:
            raise DataError(f"{draws} changes colours, which this stream does not; pass augment=Augment(...) to it")
        if draws.blur > 0 and augment.blur == 0:
            raise DataError(f"{draws} blurs, which this stream does not; pass augment=Augment(blur=...) to it")


def read_frames(
    corpus: Corpus, video: int, indices: Sequence[int] | NDArray[np.integer], *, short_side: int | None = None
) -> NDArray[np.uint8]:
    """Decodes some frames of one video on the host.

    Args:
        corpus: The videos.
        video: Row number.
        indices: ``(N,)`` frame numbers in any order; repeats are decoded once.
        short_side: Scale the shorter side down to this many pixels; None: as it is.

    Returns:
        ``(N, H, W, 3)`` uint8 RGB, upright.

    Raises:
        DataError: If a frame number lies outside the video.
        VideoError: If the video cannot be decoded.
    """
    row = corpus[video]
    if row.error:
        raise VideoError(row.uri, row.error)
    wanted = np.asarray(indices, np.int64)
    if len(wanted) and not 0 <= wanted.min() <= wanted.max() < row.frames:
        raise DataError(f"{row.uri}: frames {wanted.min()}..{wanted.max()} asked for; it has 0..{row.frames - 1}")
    frames, inverse = np.unique(wanted, return_inverse=True)
    return decode_frames(row, frames, short_side=short_side)[inverse.reshape(-1)]
