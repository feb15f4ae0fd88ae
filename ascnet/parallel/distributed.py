"""The processes of a run: who there is, what they tell each other, and what becomes of them when one is gone.

    with World.join("auto") as world:             # what `torchrun` has started; one process where it has not
        model = world.parallel(model)
        stop, positives = world.total(stop, positives)

A run in one process uses the same calls, which then return at once.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from types import TracebackType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ascnet.errors import ConfigError
from ascnet.parallel.lifeline import Lifeline
from ascnet.precision import pick_device

T = TypeVar("T")


class Elsewhere(SystemExit):
    """Ends this process without a word, with status 1: another one tells why."""

    def __init__(self) -> None:
        super().__init__(1)


def restarted() -> bool:
    """Whether `torchrun --max-restarts` has started these processes in place of ones that failed."""
    return _attempt() > 0


def _attempt() -> int:
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def _meet(backend: str, **options: Any) -> None:
    store, rank, size = next(dist.rendezvous("env://"))
    # The store of torchrun outlives a failure, and with it the addresses of processes that are gone.
    fresh = dist.PrefixStore(f"attempt {_attempt()}", store)
    dist.init_process_group(backend, store=fresh, rank=rank, world_size=size, **options)


class World:
    """All processes of a run, seen from one of them.

    Attributes:
        rank: Number of this process.
        size: Number of processes.
        local_size: Number of them on this machine.
        device: Where this process computes.
        host: Process group (gloo) for what lies on the CPU; None for a single process.
    """

    def __init__(self, device: torch.device, rank: int = 0, size: int = 1, local_size: int = 1) -> None:
        """A single process; `join` makes one of several."""
        self.device, self.rank, self.size, self.local_size = device, rank, size, local_size
        self.host: dist.ProcessGroup | None = None
        self.lifeline: Lifeline | None = None

    @classmethod
    def join(cls, device: str = "auto") -> World:
        """Meets the other processes, as the variables RANK, WORLD_SIZE and LOCAL_RANK of `torchrun` say.

        Args:
            device: As `pick_device` takes it; with several processes each takes the GPU of its local rank.

        Raises:
            ConfigError: If the device is a certain GPU for several processes, or there are too few GPUs.
        """
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return cls(pick_device(device))
        rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
        picked = pick_device(device)
        if picked.type == "cuda":
            if picked.index is not None:
                raise ConfigError(f"device is {device!r} for {size} processes; say cuda, then each takes its own GPU")
            picked = pick_device(f"cuda:{local}")
            torch.cuda.set_device(picked)
            _meet("nccl", device_id=picked)
        else:
            _meet("gloo")
        world = cls(picked, rank, size, int(os.environ.get("LOCAL_WORLD_SIZE", str(size))))
        # Its own group: what is said here must not get between the gradients on their way.
        world.host = dist.new_group(backend="gloo")
        world.lifeline = Lifeline(rank, size, dist.new_group(backend="gloo", timeout=timedelta(days=365)))
        return world

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and shows."""
        return self.rank == 0

    def __enter__(self) -> World:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.lifeline is None:
            return
        if error is not None:
            # What torch says where another process is gone is a RuntimeError; then this call ends the process.
            self.lifeline.fail(perhaps_gone=isinstance(error, RuntimeError))
            return
        self.barrier()
        self.lifeline.close()
        dist.destroy_process_group()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Around what every process does without the others: an error in one of them ends all, and is told once."""
        error: Exception | None = None
        try:
            yield
        except Exception as caught:
            if self.size == 1:
                raise
            error = caught
        failed = [rank for rank, bad in enumerate(self.everyone(error is not None)) if bad]
        if error is not None and self.rank == failed[0]:
            raise error
        if failed:
            raise Elsewhere

    def total(self, *numbers: float) -> list[float]:
        """Sums over all processes."""
        if self.size == 1:
            return list(numbers)
        sums = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(sums, group=self.host)
        return sums.tolist()

    def everyone(self, value: T) -> list[T]:
        """The values of all processes, by rank; anything that can be pickled."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.host)
        return values

    def gather(self, value: T) -> list[T]:
        """The values of all processes, by rank, on the first one; an empty list on the others."""
        if self.size == 1:
            return [value]
        values: list[Any] | None = [None] * self.size if self.is_first else None
        dist.gather_object(value, values, group=self.host)
        return values or []

    def share(self, make: Callable[[], T]) -> T:
        """What `make` returns on the first process, on all of them."""
        if self.size == 1:
            return make()
        values: list[Any] = [None]
        with self.together():
            values = [make() if self.is_first else None]
        dist.broadcast_object_list(values, group=self.host)
        return values[0]

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes of a tensor on their devices, without waiting for a GPU."""
        if self.size > 1:
            tensor = tensor.clone()
            dist.all_reduce(tensor)
        return tensor

    def stack(self, tensor: Tensor) -> Tensor:
        """The tensors of all processes, of one shape, one after another along the first axis."""
        if self.size == 1:
            return tensor
        parts = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(self.size)]
        dist.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Around the writing of a file: the loss of another process does not end this one within."""
        with nullcontext() if self.lifeline is None else self.lifeline.busy:
            yield

    def barrier(self) -> None:
        """Waits for all processes."""
        self.total(0)

    def parallel(self, model: nn.Module) -> nn.Module:
        """The model with its gradients averaged over all processes in the backward pass."""
        if self.size == 1:
            return model
        # Filters in channels-last order have gradients of other strides here and there, which costs a copy of these.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        with warnings.catch_warnings():
            # Newer releases of torch have another name for `broadcast_buffers`, older ones only this.
            warnings.simplefilter("ignore", FutureWarning)
            return nn.parallel.DistributedDataParallel(
                model,
                device_ids=[self.device] if self.device.type == "cuda" else None,
                # Without positives the heads of the speed task are not used.
                find_unused_parameters=True,
                # They are synchronised by the layers, if at all.
                broadcast_buffers=False,
            )
