"""Small looping pictures of videos, as animated WebP, and the bounded memory that they are kept in."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

import numpy as np
from PIL import Image

from dali_pipes import Corpus, read_frames

# Frames of a loop, their shorter side in pixels, milliseconds each is shown, and seconds of the video that they span.
FRAMES, SIDE, SHOWN_MS, SECONDS = 10, 120, 150, 3.0


def preview(corpus: Corpus, row: int, *, still: bool = False) -> bytes:
    """A loop from the middle of a video.

    Args:
        corpus: The videos.
        row: Row number.
        still: Whether one frame is enough.

    Returns:
        A WebP file.

    Raises:
        VideoError: The video cannot be decoded.
    """
    frames = int(corpus.frames[row])
    span = min(frames, max(FRAMES, round(float(corpus.rate[row]) * SECONDS)))
    first = (frames - span) // 2
    wanted = np.linspace(first, first + span - 1, 1 if still else min(FRAMES, span)).round().astype(int)
    pictures = [Image.fromarray(_cut(frame)) for frame in read_frames(corpus, row, wanted, short_side=SIDE)]
    file = io.BytesIO()
    pictures[0].save(
        file, "WEBP", save_all=True, append_images=pictures[1:], duration=SHOWN_MS, loop=0, quality=60, method=2
    )
    return file.getvalue()


def _cut(frame: np.ndarray) -> np.ndarray:
    """The middle of a picture (H, W, 3) that is more than twice as wide as high, or the other way round."""
    height, width = frame.shape[:2]
    across, down = min(width, 2 * height), min(height, 2 * width)
    top, left = (height - down) // 2, (width - across) // 2
    return np.ascontiguousarray(frame[top : top + down, left : left + across])


class Kept:
    """What was made once, up to a number of bytes; what was not asked for longest goes first.

    Args:
        limit: Bytes.
        together: How many may be made at a time.
    """

    def __init__(self, limit: int = 64 << 20, together: int = 2) -> None:
        self.limit, self.size = limit, 0
        self._known: OrderedDict[Hashable, bytes] = OrderedDict()
        self._lock = threading.Lock()
        self._making = threading.Semaphore(together)

    def get(self, key: Hashable, make: Callable[[], bytes]) -> bytes:
        """The value of a key, made where it is not known."""
        if (value := self._look(key)) is not None:
            return value
        with self._making:
            # Another thread may have made it in the meantime.
            value = self._look(key) or make()
        with self._lock:
            self.size += len(value) - len(self._known.pop(key, b""))
            self._known[key] = value
            while self.size > self.limit and self._known:
                self.size -= len(self._known.popitem(last=False)[1])
        return value

    def _look(self, key: Hashable) -> bytes | None:
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
            return self._known.get(key)
