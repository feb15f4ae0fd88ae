"""SpeedLoader: epochs of clips at several playback speeds, shuffled, sharded over ranks, exactly resumable."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch

from dali_pipes.augment import Augment
from dali_pipes.background import StreamStats
from dali_pipes.clips.request import ClipBatch, ClipRequest
from dali_pipes.clips.sampler import ClipSampler, SpeedOrder, Speeds, Window
from dali_pipes.clips.speed import Short
from dali_pipes.decode.cache import VideoCache
from dali_pipes.decode.choice import Decoder
from dali_pipes.errors import DataError
from dali_pipes.pipeline import DType
from dali_pipes.stream import ClipStream

if TYPE_CHECKING:
    from dali_pipes.corpus import Corpus

_STATE_VERSION = 2


class SpeedLoader:
    """Batches of clips of random videos, each at every one of some playback speeds.

    One pass of a ``for`` loop goes through the rest of the current epoch; the next loop goes on with the next one. A
    loop left early goes on where it was left. The last batch of an epoch that would not be full is dropped, and all
    ranks make the same number of steps.

    Args:
        corpus: The videos.
        frames: Frames per clip, T.
        size: Side of the square output, pixels.
        speeds: Playback speed of each view, 0.25 to 16; several in place of one: each request draws one of them.
        batch_size: Samples per batch on this rank.
        device: ``auto`` (the current GPU if torch sees one), ``cpu``, ``cuda`` or ``cuda:N``.
        seed: Seed of order, first frames and augmentation.
        rank, world_size: This process's number among those that share the epoch.
        split: Only videos of this split; ``auto``: ``train`` where the corpus has it, else all; None: all.
        window, short, fps, speed_order, clips_per_video, shuffle, reverse, jitter: See :class:`ClipSampler`.
        label_speeds: Whether batches carry ``speed_labels``: the place of each view's speed among all distinct ones.
        augment: What to draw for each clip; None: the centred square.
        dtype: ``float16``, ``float32`` (normalised) or ``uint8``.
        decoder: ``auto``, ``dali`` or ``host``.
        threads: Threads that read and decode on the host; None: one for each core.
        graph_threads: Threads of the DALI graph; None: as ``threads``, on a GPU at most 8.
        processes: Whether the host decodes in processes, one for each of ``threads``, or in those threads.
        prefetch: Batches kept on the way.
        quarantine, max_bad: What becomes of videos found undecodable; see :class:`ClipStream`.
        cache: Folder of small copies of the videos, which fills itself; see :class:`ClipStream`.

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
        speeds: Speeds = (1, 2),
        batch_size: int = 64,
        device: str = "auto",
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        split: str | None = "auto",
        window: Window | str = "independent",
        short: Short = "loop",
        fps: float | None = None,
        speed_order: SpeedOrder = "given",
        clips_per_video: int = 1,
        shuffle: bool = True,
        reverse: float = 0.0,
        jitter: float = 0.0,
        label_speeds: bool = False,
        augment: Augment | None = Augment(),  # noqa: B008 -- frozen
        dtype: DType = "float16",
        decoder: Decoder = "auto",
        threads: int | None = None,
        graph_threads: int | None = None,
        processes: bool = True,
        prefetch: int = 2,
        quarantine: str | os.PathLike[str] | None = None,
        max_bad: float = 0.05,
        cache: VideoCache | str | os.PathLike[str] | None = None,
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
            reverse=reverse,
            jitter=jitter,
        )
        self.corpus = corpus
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        self.drop_last = True
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
            window=self.sampler.window,
            decoder=decoder,
            threads=threads,
            graph_threads=graph_threads,
            processes=processes,
            prefetch=prefetch,
            replacements=self.sampler.videos,
            quarantine=quarantine,
            max_bad=max_bad,
            cache=cache,
        )
        self.num_workers = self._stream.threads
        self._epoch = 0
        self._position = 0  # positions of this epoch already handed out, on all ranks together
        self._ahead: deque[tuple[int, int]] = deque()  # (epoch, position) of batches on the way, oldest first
        self._labels = {s: i for i, s in enumerate(self.sampler.speed_classes)} if label_speeds else None

    def __len__(self) -> int:
        """Steps of a whole epoch, the same on every rank."""
        return len(self.sampler) // self._global_batch

    @property
    def _global_batch(self) -> int:
        return self.batch_size * self.world_size

    @property
    def dataset(self) -> Corpus:
        """The corpus, by the name that torch's DataLoader has for it."""
        return self.corpus

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
        self._epoch, self._position = epoch, 0

    def requests(self, epoch: int, step: int) -> list[ClipRequest]:
        """The requests of one step on this rank; a pure function."""
        return self._requests_at(epoch, step * self._global_batch)

    def _requests_at(self, epoch: int, position: int) -> list[ClipRequest]:
        """This rank's share of the global batch that begins at a position."""
        return list(self.sampler.requests(epoch, position + self.rank * self.batch_size, self.batch_size))

    def _has_step(self, position: int) -> bool:
        return position + self._global_batch <= len(self.sampler)

    def __iter__(self) -> Iterator[ClipBatch]:
        epoch = self._epoch
        while self._epoch == epoch and self._has_step(self._position):
            place = (self._epoch, self._position)
            self._fill(place)
            # The place moves on before the batch is handed out: a state taken in the loop's body is behind this batch.
            try:
                batch = self._stream.get()
            finally:  # a batch that failed is no longer on the way either; one not waited for (Ctrl-C) still is
                self._forget()
            self._position += self._global_batch
            yield replace(batch, epoch=place[0], speed_labels=self._labelled(batch))
        if self._epoch == epoch and not self._has_step(self._position):
            self._epoch, self._position = epoch + 1, 0

    def _labelled(self, batch: ClipBatch) -> torch.Tensor | None:
        if self._labels is None:
            return None
        labels = [[self._labels[view.speed] for view in request.views] for request in batch.requests]
        return torch.tensor(labels, dtype=torch.int64).to(batch.clips.device)

    def _fill(self, place: tuple[int, int]) -> None:
        """Keeps ``prefetch`` batches on the way behind the one at ``place``, across the end of the epoch too."""
        # Set to another place, or interrupted between asking and noting it: what is on the way is not what is wanted.
        if (self._ahead and self._ahead[0] != place) or len(self._ahead) != self._stream.pending:
            self._stream.discard()
            self._ahead.clear()
        epoch, position = self._ahead[-1] if self._ahead else (place[0], place[1] - self._global_batch)
        while len(self._ahead) <= self._stream.prefetch:
            position += self._global_batch
            if not self._has_step(position):
                epoch, position = epoch + 1, 0
            self._stream.submit(self._requests_at(epoch, position))
            self._ahead.append((epoch, position))

    def _forget(self) -> None:
        while len(self._ahead) > self._stream.pending:
            self._ahead.popleft()

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands: behind the last batch handed out. A few integers and strings.

        The place is counted in positions of the epoch over all ranks, so every rank has the same state and any number
        of ranks can go on from it.
        """
        return {**self._identity(), "epoch": self._epoch, "position": self._position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a state, with exactly the clips that would have followed.

        Batch size, rank and number of ranks may be others than those that saved it: the rest of the epoch is then dealt
        out anew, nothing of it twice and nothing left out but what does not fill a last batch on all ranks.

        Raises:
            DataError: If the state is of another corpus, seed or setting that changes the clips, naming what differs.
        """
        state = _upgraded(state)
        for name, mine in self._identity().items():
            if name not in state:
                raise DataError(f"the loader state lacks {name!r}; it was not made by SpeedLoader.state_dict()")
            if state[name] != mine:
                raise DataError(f"the loader state was saved with {name}={state[name]!r}, this loader has {mine!r}")
        epoch, position, most = state.get("epoch"), state.get("position"), len(self.sampler)
        if not (isinstance(epoch, int) and isinstance(position, int) and epoch >= 0 and 0 <= position <= most):
            raise DataError(
                f"the loader state has epoch={epoch!r}, position={position!r}; an epoch has {most} positions"
            )
        self._epoch, self._position = epoch, position

    def _identity(self) -> dict[str, Any]:
        """What must be the same for a state to mean the same clips."""
        sampler = self.sampler
        return {
            "version": _STATE_VERSION,
            "corpus": self.corpus.fingerprint,
            "videos": len(sampler.videos),
            "seed": sampler.seed,
            "split": sampler.split,
            "frames": sampler.frames,
            "speeds": [list(s) if isinstance(s, tuple) else s for s in sampler.speeds],
            "window": sampler.window,
            "short": sampler.short,
            "fps": sampler.fps,
            "clips_per_video": sampler.clips_per_video,
            "speed_order": sampler.speed_order,
            "shuffle": sampler.shuffle,
            "reverse": sampler.reverse,
            "jitter": sampler.jitter,
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


def _upgraded(state: dict[str, Any]) -> dict[str, Any]:
    """A state of version 1 counted steps of the ranks and batches that it was saved with, and knew no reverse."""
    if state.get("version") != 1:
        return state
    position = 1
    for name in ("step", "world_size", "batch_size"):
        if not isinstance(state.get(name), int):
            raise DataError(
                f"the loader state has {name}={state.get(name)!r}; one of version 1 has a whole number there"
            )
        position *= state[name]
    return {"reverse": 0.0, "jitter": 0.0} | state | {"version": _STATE_VERSION, "position": position}
