"""What a candidate is, and the PyTorch DataLoader that all peers share."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch.utils.data import DataLoader, Dataset

from bench.measure.plan import Request

if TYPE_CHECKING:
    from dali_pipes import Corpus

Kind = Literal["ours", "usual", "best", "dali"]


@dataclass(frozen=True)
class Setting:
    """What all candidates are told.

    Attributes:
        frames: Frames of a clip, T.
        size: Side of the delivered square, pixels.
        batch_size: Samples of a batch.
        workers: Worker processes of a DataLoader; threads of a tool that uses threads.
        dtype: Of the delivered clips.
        device: Where the clips must be in the end.
        corpus: The indexed videos; only ours reads it.
        prefetch: Batches prepared ahead: by each worker of a DataLoader; in all where there are threads.
    """

    frames: int
    size: int
    batch_size: int
    workers: int
    dtype: torch.dtype
    device: torch.device
    corpus: Corpus
    prefetch: int = 2


def why_missing(modules: Sequence[str]) -> str | None:
    """The first of some modules that cannot be imported, with what importing it raised; None if all can."""
    for name in modules:
        try:
            importlib.import_module(name)
        # Whatever a foreign package raises while it is imported, the answer is the same: it cannot be used.
        except Exception as error:
            first = (str(error).strip().splitlines() or [""])[0]
            return f"{name}: {type(error).__name__}: {first}"
    return None


class Candidate(ABC):
    """Delivers the clips of a plan as normalised batches.

    Opened once, it keeps its workers from epoch to epoch where the tool permits.

    Attributes:
        kind: "ours"; "usual": written as people usually write it; "best": the best that the tool permits; "dali":
            DALI's own ways.
        notes: How it works, one line.
        needs: Modules that must be importable.
    """

    kind: Kind
    notes: str
    needs: tuple[str, ...] = ()

    @classmethod
    def missing(cls) -> str | None:
        """Why this candidate cannot run here, or None."""
        return why_missing(cls.needs)

    @classmethod
    def refuses(cls, requests: Sequence[Request], setting: Setting) -> str | None:
        """Why this candidate, though installed, cannot do what is asked, or None."""
        return None

    @abstractmethod
    def __init__(self, requests: Sequence[Request], setting: Setting) -> None: ...

    @abstractmethod
    def epoch(self, batches: Sequence[Sequence[int]]) -> Iterator[torch.Tensor]:
        """Deliver batches of requests, given by their numbers in the plan.

        Yields:
            ``(B, V, 3, T, H, W)`` on the device, in the order asked for, each its own memory.
        """

    @abstractmethod
    def close(self) -> None:
        """Stop the workers."""


class Clips(Dataset[torch.Tensor]):
    """Map-style dataset over a plan: request number -> what `read` makes of it."""

    def __init__(self, requests: Sequence[Request], size: int, read: Callable[[Request, int], torch.Tensor]) -> None:
        self.requests = list(requests)
        self.size = size
        self.read = read

    def __len__(self) -> int:
        return len(self.requests)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.read(self.requests[index], self.size)


class _Order:
    """Batch sampler whose batches are set before each epoch; only the main process reads it."""

    def __init__(self) -> None:
        self.batches: Sequence[Sequence[int]] = []

    def __iter__(self) -> Iterator[list[int]]:
        return (list(batch) for batch in self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class LoaderCandidate(Candidate):
    """A PyTorch DataLoader with workers that live as long as the candidate; adapters say how to read and to finish."""

    def __init__(self, requests: Sequence[Request], setting: Setting) -> None:
        self.setting = setting
        self.order = _Order()
        self.loader = DataLoader(
            Clips(requests, setting.size, type(self).read),
            batch_sampler=self.order,
            num_workers=setting.workers,
            persistent_workers=setting.workers > 0,
            prefetch_factor=setting.prefetch if setting.workers else None,
            # A fork would copy the threads' locks of whichever candidates are open already.
            multiprocessing_context="spawn" if setting.workers else None,
            worker_init_fn=one_thread,
            pin_memory=setting.device.type == "cuda",
        )

    @staticmethod
    @abstractmethod
    def read(request: Request, size: int) -> torch.Tensor:
        """Make one sample, in a worker process."""

    @abstractmethod
    def finish(self, batch: torch.Tensor) -> torch.Tensor:
        """Make the batch what the model takes, in the main process."""

    def epoch(self, batches: Sequence[Sequence[int]]) -> Iterator[torch.Tensor]:
        self.order.batches = batches
        for batch in self.loader:
            yield self.finish(batch)

    def close(self) -> None:
        # The loader has no public way to stop persistent workers; they stop when its iterator is collected.
        del self.loader


def one_thread(worker: int = 0) -> None:
    """Keep every library of this process to one thread: the workers are the parallelism."""
    torch.set_num_threads(1)
    try:
        import cv2
    except ImportError:
        return
    cv2.setNumThreads(1)
