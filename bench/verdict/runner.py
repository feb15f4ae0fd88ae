"""Going through batches, with a step or without, while everything is watched that can be told of them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from bench.measure.poller import Poller
from bench.verdict.foreign import Watched
from bench.verdict.meter import Meter, calling_clocks
from dali_pipes import ClipStream, SpeedLoader
from dali_pipes.errors import DataError
from dali_pipes.stages import StageTimes

# A call for a batch that takes less than this share of a batch's time has found one ready.
_READY = 0.05


def count_samples(batch: Any) -> int:
    """First dimension of the first tensor or array in a batch, however deep in dicts, lists and data classes.

    Raises:
        DataError: If there is none.
    """
    first = first_array(batch)
    if first is None:
        raise DataError(f"no tensor in a batch of type {type(batch).__name__}; tell with samples_of= how many it has")
    return int(first.shape[0]) if first.ndim else 1


def first_array(batch: Any) -> Any:
    if isinstance(batch, (torch.Tensor, np.ndarray)):
        return batch
    parts: Iterable[Any] = ()
    if isinstance(batch, Mapping):
        parts = batch.values()
    elif isinstance(batch, (list, tuple)):
        parts = batch
    elif dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        parts = (getattr(batch, part.name) for part in dataclasses.fields(batch))
    return next((found for part in parts if (found := first_array(part)) is not None), None)


class Feed:
    """Batches of a loader, over as many epochs as it takes."""

    def __init__(self, loader: Iterable[Any]) -> None:
        self._loader = loader
        self.once = iter(loader) is loader if isinstance(loader, Iterator) else False
        self._iterator: Iterator[Any] | None = None

    def take(self) -> Any:
        """The next batch; StopIteration at the end of what can be gone through but once."""
        for _ in range(2):
            fresh = self._iterator is None
            if self._iterator is None:
                self._iterator = iter(self._loader)
            try:
                return next(self._iterator)
            except StopIteration:
                if self.once:
                    raise
                # An epoch entered at its very end has nothing left; the one after it must have.
                self._iterator = None
                if fresh and not isinstance(self._loader, SpeedLoader):
                    break
        raise StopIteration

    def leave(self) -> None:
        """Lets go of the present epoch, with its workers, unless there is no way back into it."""
        if not self.once:
            self._iterator = None


class Replay:
    """One batch, again and again."""

    def __init__(self, batch: Any) -> None:
        self._batch = batch

    def take(self) -> Any:
        return self._batch


class Runner:
    """Goes through batches, with the step or without, and watches."""

    def __init__(
        self,
        step: Callable[[Any], object] | None,
        batches: int,
        warmup: int,
        samples_of: Callable[[Any], int] | None,
        device: str | torch.device | None,
    ) -> None:
        self._step, self._batches, self._warmup = step, batches, warmup
        self._samples_of = samples_of or count_samples
        self._device = None if device is None else torch.device(device)
        self._poller: Poller | None = None
        self.last: Any = None

    def without_step(self) -> Runner:
        """The same, for the loader alone."""
        self._step = None
        return self

    def over(
        self, feed: Feed | Replay, source: ClipStream | SpeedLoader | None
    ) -> tuple[Watched, list[tuple[float, int]], float]:
        """What was watched, the time and samples so far after each batch, and when it began."""
        meter, times = Meter(source), StageTimes()
        for _ in range(self._warmup):
            if not self._one(feed, times):
                raise DataError(f"the loader ended within the warm-up of {self._warmup} batches; lower warmup")
        before = times.snapshot()
        meter.start()
        begun = time.perf_counter()
        stamps, waits = [(begun, 0)], []
        for _ in range(self._batches):
            asked = time.perf_counter()
            found = self._one(feed, times)
            if found is None:
                break
            samples, came = found
            waits.append(came - asked)
            stamps.append((time.perf_counter(), stamps[-1][1] + samples))
        reading = meter.stop()
        if not waits or not stamps[-1][1]:
            raise DataError("the loader gave no samples to time; lower warmup, or give it more batches")
        usual = reading.seconds / len(waits)
        ready = sum(wait < _READY * usual for wait in waits) / len(waits)
        return Watched(stamps[-1][1], reading, calling_clocks(times, before), ready), stamps, begun

    def _one(self, feed: Feed | Replay, times: StageTimes) -> tuple[int, float] | None:
        """One batch; its samples and when it came, or None at the end."""
        try:
            with times.follow("fetch"):
                batch = feed.take()
        except StopIteration:
            return None
        came = time.perf_counter()
        if self._step is not None:
            with times.follow("step"):
                self._step(batch)
                self._wait(batch)
        else:
            self._wait(batch)
        self.last = batch
        return int(self._samples_of(batch)), came

    def _find_device(self, batch: Any) -> None:
        """The device to wait for, where it was not given: a batch from the host may be sent to a GPU by the step."""
        if self._device is None:
            first = first_array(batch)
            if isinstance(first, torch.Tensor) and first.is_cuda:
                self._device = first.device
            elif torch.cuda.is_available() and torch.cuda.is_initialized():
                self._device = torch.device("cuda", torch.cuda.current_device())
        if self._poller is None and self._device is not None and self._device.type == "cuda":
            self._poller = Poller(self._device)

    def _wait(self, batch: Any) -> None:
        self._find_device(batch)
        if self._device is not None and self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def load(self, begun: float, ended: float) -> dict[str, dict[str, float]]:
        """Load of the GPU between two moments."""
        if self._poller is None:
            return {}
        seen = self._poller.summary(begun, ended)
        return {name: values for name, values in seen.items() if name.startswith("gpu/")}

    def close(self) -> None:
        """Stops looking at the GPU."""
        if self._poller is not None:
            self._poller.close()
