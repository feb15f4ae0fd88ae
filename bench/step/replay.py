"""Batches that have been decoded before, handed out again: a training step without a loader behind it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dali_pipes import ClipBatch, ClipRequest

if TYPE_CHECKING:
    from ascnet.retrieval import Loader, Sampler, Stream


class KeepingLoader:
    """A loader that keeps its first batches while it hands them out.

    Attributes:
        kept: Those batches, on the loader's device.
    """

    def __init__(self, loader: Loader, count: int) -> None:
        self.kept: list[ClipBatch] = []
        self._loader, self._count = loader, count

    @property
    def sampler(self) -> Sampler:
        return self._loader.sampler

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[ClipBatch]:
        for batch in self._loader:
            if len(self.kept) < self._count:
                self.kept.append(replace(batch, clips=batch.clips.clone()))
            yield batch

    def state_dict(self) -> dict[str, Any]:
        return self._loader.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._loader.load_state_dict(state)

    def close(self) -> None:
        self._loader.close()


class KeepingStream:
    """A stream of positives that keeps the first ones while it hands them out.

    Attributes:
        kept: Those batches.
    """

    def __init__(self, stream: Stream, count: int) -> None:
        self.kept: list[ClipBatch] = []
        self._stream, self._count = stream, count

    def submit(self, requests: list[ClipRequest]) -> None:
        self._stream.submit(requests)

    def get(self) -> ClipBatch:
        batch = self._stream.get()
        if len(self.kept) < self._count:
            self.kept.append(replace(batch, clips=batch.clips.clone()))
        return batch

    def close(self) -> None:
        self._stream.close()


class ReplayLoader:
    """The same few batches again and again. What is read of a loader by `ascnet.retrieval.LookAhead` is here."""

    def __init__(self, batches: Sequence[ClipBatch], loader: Loader) -> None:
        """
        Args:
            batches: At least one.
            loader: Where they come from; its sampler is asked for positives as in training.
        """
        self._batches, self._loader = list(batches), loader

    @property
    def sampler(self) -> Sampler:
        return self._loader.sampler

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[ClipBatch]:
        return iter(self._batches)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing: there is no place to go back to."""

    def close(self) -> None:
        """Nothing: the batches end with whoever holds them."""


class ReplayStream:
    """Positives that are there at once: clips decoded before, under the requests of now."""

    def __init__(self, batches: Sequence[ClipBatch]) -> None:
        """
        Args:
            batches: At least one, in the order they are handed out in.
        """
        self._batches, self._next = list(batches), 0
        self._asked: deque[list[ClipRequest]] = deque()

    def submit(self, requests: list[ClipRequest]) -> None:
        self._asked.append(requests)

    def get(self) -> ClipBatch:
        requests, batch = self._asked.popleft(), self._batches[self._next % len(self._batches)]
        self._next += 1
        count = len(requests)
        clips = batch.clips[:count]
        if len(clips) < count:
            # A sample more has a positive this time.
            clips = batch.clips.repeat(-(-count // len(clips)), *[1] * (batch.clips.dim() - 1))[:count]
        return replace(batch, clips=clips, requests=tuple(requests))

    def close(self) -> None:
        """Nothing: the batches end with whoever holds them."""
