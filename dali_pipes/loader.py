"""SpeedLoader: epochs of clips at several playback speeds, shuffled, sharded over ranks, exactly resumable."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

from dali_pipes.augment import Augment
from dali_pipes.background import StreamStats
from dali_pipes.clips.request import ClipBatch, ClipRequest
from dali_pipes.clips.sampler import ClipSampler, SpeedOrder, Window
from dali_pipes.clips.speed import Short
from dali_pipes.decode.choice import Decoder
from dali_pipes.errors import DataError
from dali_pipes.pipeline import DType
from dali_pipes.stream import ClipStream

if TYPE_CHECKING:
    from dali_pipes.corpus import Corpus

_STATE_VERSION = 1


class SpeedLoader:
    """Batches of clips of random videos, each at every one of some playback speeds.

    One pass of a ``for`` loop goes through the rest of the current epoch; the next loop goes on with the next one. A
    loop left early goes on where it was left. The last batch of an epoch that would not be full is dropped, and all
    ranks make the same number of steps.

    Args:
        corpus: The videos.
        frames: Frames per clip, T.
        size: Side of the square output, pixels.
        speeds: Playback speed of each view.
        batch_size: Samples per batch on this rank.
        device: ``auto`` (the current GPU if torch sees one), ``cpu``, ``cuda`` or ``cuda:N``.
        seed: Seed of order, first frames and augmentation.
        rank, world_size: This process's number among those that share the epoch.
        split: Only videos of this split; ``auto``: ``train`` where the corpus has it, else all; None: all.
        window, short, fps, speed_order, clips_per_video, shuffle: See :class:`ClipSampler`.
        augment: What to draw for each clip; None: the centred square.
        dtype: ``float16``, ``float32`` (normalised) or ``uint8``.
        decoder: ``auto``, ``dali`` or ``host``.
        threads: Host and graph threads; None: one for each core.
        prefetch: Batches kept on the way.

    Raises:
        DataError: If an argument is out of range or the videos do not fill one batch on every rank.

    Example:
        >>> loader = SpeedLoader(corpus, frames=16, size=112, speeds=(1, 2), batch_size=64)   # doctest: +SKIP
        >>> for batch in loader:                                                             # doctest: +SKIP
        ...     batch.clips      # (64, 2, 3, 16, 112, 112)
    """

    def __init__(
        self,
        corpus: Corpus,
        *,
        frames: int = 16,
        size: int = 112,
        speeds: Sequence[float] = (1, 2),
        batch_size: int = 64,
        device: str = "auto",
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        split: str | None = "auto",
        window: Window = "independent",
        short: Short = "loop",
        fps: float | None = None,
        speed_order: SpeedOrder = "given",
        clips_per_video: int = 1,
        shuffle: bool = True,
        augment: Augment | None = Augment(),  # noqa: B008 -- frozen
        dtype: DType = "float16",
        decoder: Decoder = "auto",
        threads: int | None = None,
        prefetch: int = 2,
    ) -> None:
        if batch_size < 1:
            raise DataError(f"batch_size={batch_size} must be at least 1")
        if not 0 <= rank < world_size:
            raise DataError(f"rank={rank} must lie in 0..world_size-1 = 0..{world_size - 1}")
        if split == "auto":
            split = "train" if "train" in corpus.splits else None
        self.sampler = ClipSampler(
            corpus,
            frames=frames,
            speeds=speeds,
            seed=seed,
            split=split,
            window=window,
            short=short,
            fps=fps,
            speed_order=speed_order,
            clips_per_video=clips_per_video,
            shuffle=shuffle,
        )
        self.corpus = corpus
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        if len(self) == 0:
            raise DataError(
                f"{len(self.sampler)} clips an epoch do not fill one batch of {batch_size} on {world_size} rank(s); "
                "lower batch_size or raise clips_per_video"
            )
        self._stream = ClipStream(
            corpus,
            frames=frames,
            size=size,
            batch_size=batch_size,
            views=len(self.sampler.speeds),
            device=device,
            augment=augment,
            dtype=dtype,
            short=short,
            fps=fps,
            window=window,
            decoder=decoder,
            threads=threads,
            prefetch=prefetch,
            replacements=self.sampler.videos,
        )
        self._epoch = 0
        self._step = 0  # steps of this epoch already handed out
        self._ahead: deque[tuple[int, int]] = deque()  # (epoch, step) of batches on the way, oldest first

    def __len__(self) -> int:
        """Steps of an epoch, the same on every rank."""
        return len(self.sampler) // (self.batch_size * self.world_size)

    @property
    def epoch(self) -> int:
        """The epoch that the next batch belongs to."""
        return self._epoch

    @property
    def stats(self) -> StreamStats:
        """What was delivered, replaced and waited for."""
        return self._stream.stats

    def set_epoch(self, epoch: int) -> None:
        """Goes to the beginning of an epoch."""
        if epoch < 0:
            raise DataError(f"epoch={epoch} must not be negative")
        self._epoch, self._step = epoch, 0

    def requests(self, epoch: int, step: int) -> list[ClipRequest]:
        """The requests of one step on this rank; a pure function."""
        first = (step * self.world_size + self.rank) * self.batch_size
        return [self.sampler.request(epoch, position) for position in range(first, first + self.batch_size)]

    def __iter__(self) -> Iterator[ClipBatch]:
        epoch = self._epoch
        while self._epoch == epoch and self._step < len(self):
            place = (self._epoch, self._step)
            self._fill(place)
            # The place moves on before the batch is handed out: a state taken in the loop's body is behind this batch.
            try:
                batch = self._stream.get()
            finally:  # a batch that failed is no longer on the way either; one not waited for (Ctrl-C) still is
                self._forget()
            self._step += 1
            yield replace(batch, epoch=place[0])
        if self._epoch == epoch and self._step >= len(self):
            self._epoch, self._step = epoch + 1, 0

    def _fill(self, place: tuple[int, int]) -> None:
        """Keeps ``prefetch`` batches on the way behind the one at ``place``, across the end of the epoch too."""
        # Set to another place, or interrupted between asking and noting it: what is on the way is not what is wanted.
        if (self._ahead and self._ahead[0] != place) or len(self._ahead) != self._stream.pending:
            self._stream.discard()
            self._ahead.clear()
        epoch, step = self._ahead[-1] if self._ahead else (place[0], place[1] - 1)
        while len(self._ahead) <= self._stream.prefetch:
            step += 1
            if step >= len(self):
                epoch, step = epoch + 1, 0
            self._stream.submit(self.requests(epoch, step))
            self._ahead.append((epoch, step))

    def _forget(self) -> None:
        while len(self._ahead) > self._stream.pending:
            self._ahead.popleft()

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands: behind the last batch handed out. A few integers and strings."""
        return {**self._identity(), "epoch": self._epoch, "step": self._step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a state, with exactly the batches that would have followed.

        Raises:
            DataError: If the state is of another corpus, seed, batch size or number of ranks, naming what differs.
        """
        for name, mine in self._identity().items():
            if name not in state:
                raise DataError(f"the loader state lacks {name!r}; it was not made by SpeedLoader.state_dict()")
            if state[name] != mine:
                raise DataError(f"the loader state was saved with {name}={state[name]!r}, this loader has {mine!r}")
        epoch, step = state.get("epoch"), state.get("step")
        if not (isinstance(epoch, int) and isinstance(step, int) and epoch >= 0 and 0 <= step <= len(self)):
            raise DataError(f"the loader state has epoch={epoch!r}, step={step!r}; an epoch has {len(self)} steps")
        self._epoch, self._step = epoch, step

    def _identity(self) -> dict[str, Any]:
        """What must be the same for a state to mean the same batches."""
        sampler = self.sampler
        return {
            "version": _STATE_VERSION,
            "corpus": self.corpus.fingerprint,
            "videos": len(sampler.videos),
            "seed": sampler.seed,
            "world_size": self.world_size,
            "batch_size": self.batch_size,
            "split": sampler.split,
            "frames": sampler.frames,
            "speeds": list(sampler.speeds),
            "window": sampler.window,
            "short": sampler.short,
            "fps": sampler.fps,
            "clips_per_video": sampler.clips_per_video,
            "speed_order": sampler.speed_order,
            "shuffle": sampler.shuffle,
        }

    def close(self) -> None:
        """Stops all threads. May be called more than once."""
        self._stream.close()

    def __enter__(self) -> SpeedLoader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
