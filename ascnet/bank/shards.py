"""The memory bank over the ranks of torch.distributed: a copy on every rank, or a block of its rows on each.

    bank = make_bank("sharded", num_videos, dim=256, device=device)
    bank.update(videos, features)                             # of this rank's part of the batch
    scores, nearest = bank.nearest(query, exclude=videos)     # for this rank's queries

Both placements answer as one bank in one process does that is given the ranks' batches one after the other, rank 0
first. All methods are collective: every rank calls them, in the same order. Ranks may bring different numbers of videos
or queries, also none. Where torch.distributed is not initialised, this process is the only rank.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from ascnet.bank.memory_bank import MemoryBank
from ascnet.bank.search import Plan, merge

Placement = Literal["replicated", "sharded"]

# Bytes of a shard that travel to rank 0 at a time when the bank is saved.
CHUNK = 64 << 20


class Bank(Protocol):
    """What training uses of a bank, wherever its rows lie."""

    @property
    def features(self) -> Tensor: ...
    @property
    def valid(self) -> Tensor: ...
    @property
    def groups(self) -> Tensor: ...
    def __len__(self) -> int: ...
    def update(self, videos: Tensor, features: Tensor) -> None: ...
    def nearest(
        self, query: Tensor, *, exclude: Tensor | None = None, exclude_groups: Tensor | None = None, k: int = 1
    ) -> tuple[Tensor, Tensor]: ...
    def plan(self, k: int = 1) -> Plan: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Mapping[str, Any], /) -> Any: ...


def make_bank(placement: Placement, num_videos: int, dim: int = 256, **options: Any) -> Bank:
    """An empty bank in one of the two placements.

    Args:
        placement: `replicated`: every rank holds all rows. `sharded`: every rank holds a block of them.
        num_videos: N.
        dim: D.
        **options: Of `MemoryBank`, and `group`, the process group; by default that of all ranks.

    Raises:
        ValueError: If there is no such placement.
    """
    banks: dict[str, Callable[..., Bank]] = {"replicated": ReplicatedMemoryBank, "sharded": ShardedMemoryBank}
    if placement not in banks:
        raise ValueError(f"placement is {placement!r}; expected 'replicated' or 'sharded'")
    return banks[placement](num_videos, dim, **options)


class Ranks:
    """The processes that share a bank, and how tensors travel between them."""

    def __init__(self, device: torch.device, group: dist.ProcessGroup | None = None) -> None:
        """
        Args:
            device: Where tensors come from and are returned to.
            group: Process group; by default that of all ranks, or only this process where there is none.
        """
        alone = not (dist.is_available() and dist.is_initialized())
        self.size = 1 if alone else dist.get_world_size(group)
        self.rank = 0 if alone else dist.get_rank(group)
        self._group, self._device = group, device
        # gloo moves tensors of the CPU, NCCL those of the GPU.
        by_gpu = not alone and device.type == "cuda" and "cuda:nccl" in dist.get_backend_config(group)
        self._wire = device if by_gpu else torch.device("cpu")

    def numbers(self, *mine: int) -> list[list[int]]:
        """These numbers of every rank."""
        if self.size == 1:
            return [list(mine)]
        every = [torch.empty(len(mine), dtype=torch.int64, device=self._wire) for _ in range(self.size)]
        dist.all_gather(every, torch.tensor(mine, device=self._wire), group=self._group)
        return torch.stack(every).tolist()

    def counts(self, count: int) -> list[int]:
        """The `count` of every rank."""
        return [count for (count,) in self.numbers(count)]

    def gather(self, tensor: Tensor, counts: list[int]) -> Tensor:
        """The tensors of all ranks, one after the other; `counts` are their lengths."""
        if self.size == 1:
            return tensor
        # Collectives want equal shapes.
        mine = torch.zeros(max(counts), *tensor.shape[1:], dtype=tensor.dtype, device=self._wire)
        mine[: len(tensor)] = tensor
        every = [torch.empty_like(mine) for _ in counts]
        if mine.numel():
            dist.all_gather(every, mine, group=self._group)
        return torch.cat([part[:count] for part, count in zip(every, counts, strict=True)]).to(self._device)

    def exchange(self, tensor: Tensor, counts: list[int]) -> Tensor:
        """Hands out a tensor with rows for all ranks' queries in order; returns those for the own ones, (size, B, ...).

        `counts` are the ranks' numbers of queries.
        """
        own = counts[self.rank]
        if self.size == 1:
            return tensor[None]
        mine = tensor.to(self._wire).contiguous()
        received = mine.new_empty(self.size * own, *tensor.shape[1:])
        dist.all_to_all_single(received, mine, [own] * self.size, counts, group=self._group)
        return received.to(self._device).view(self.size, own, *tensor.shape[1:])

    def collect(self, tensor: Tensor, lengths: list[int], whole: Tensor | None) -> None:
        """Writes the tensors of all ranks, of these lengths, one after the other into `whole` on rank 0, by chunks."""
        row = max(1, tensor[:1].numel() * tensor.itemsize)
        rows, start = max(1, CHUNK // row), 0
        for rank, length in enumerate(lengths):
            for place in range(0, length, rows):
                count = min(rows, length - place)
                if rank == self.rank:
                    chunk = tensor[place : place + count]
                    if rank:
                        # Bytes, for not every backend knows every number format.
                        dist.send(_bytes(chunk).to(self._wire), self._global(0), group=self._group)
                elif self.rank == 0:
                    chunk = torch.empty(count, *tensor.shape[1:], dtype=tensor.dtype, device=self._wire)
                    dist.recv(_bytes(chunk), self._global(rank), group=self._group)
                if whole is not None:
                    whole[start + place : start + place + count] = chunk
            start += length

    def _global(self, rank: int) -> int:
        return rank if self._group is None else dist.get_global_rank(self._group, rank)


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(torch.uint8)


class ReplicatedMemoryBank(MemoryBank):
    """The same bank on every rank: all of them write what any of them brings, and each searches alone."""

    def __init__(
        self, num_videos: int, dim: int = 256, *, group: dist.ProcessGroup | None = None, **options: Any
    ) -> None:
        """
        Args:
            num_videos: N.
            dim: D.
            group: Process group; by default that of all ranks.
            **options: Of `MemoryBank`.
        """
        super().__init__(num_videos, dim, **options)
        self._ranks = Ranks(self.features.device, group)

    @torch.no_grad()
    def update(self, videos: Tensor, features: Tensor) -> None:
        """Writes the rows of all ranks' batches; of a repeated video the last one in the order of ranks counts."""
        super().update(*_gather_batch(self._ranks, self.features, videos, features))


class ShardedMemoryBank:
    """Rank r holds the rows from r * ceil(N / ranks) on; a search asks all ranks and merges what they find.

    Attributes:
        features: (rows, D), the rows of this rank.
        valid: (N,) bool, rows of all ranks that have been written.
        groups: (N,) int64, of all videos.
    """

    def __init__(
        self, num_videos: int, dim: int = 256, *, group: dist.ProcessGroup | None = None, **options: Any
    ) -> None:
        """
        Args:
            num_videos: N, rows of all ranks together.
            dim: D.
            group: Process group; by default that of all ranks.
            **options: Of `MemoryBank`; `groups` are those of all videos.

        Raises:
            ValueError: If `groups` has not one number per video.
        """
        groups = options.pop("groups", None)
        if groups is not None and tuple(groups.shape) != (num_videos,):
            raise ValueError(f"groups has shape {tuple(groups.shape)}; expected ({num_videos},), one number a video")
        device = torch.zeros((), device=options.get("device")).device
        groups = torch.arange(num_videos) if groups is None else groups.to(torch.int64)
        self.groups = groups.to(device)
        self.valid = torch.zeros(num_videos, device=device, dtype=torch.bool)
        self._ranks = Ranks(device, group)
        self._block = max(1, -(-num_videos // self._ranks.size))
        self._start = min(self._ranks.rank * self._block, num_videos)
        mine = slice(self._start, min(self._start + self._block, num_videos))
        self.local = MemoryBank(len(self.groups[mine]), dim, groups=self.groups[mine], **options)

    def __len__(self) -> int:
        return len(self.valid)

    @property
    def features(self) -> Tensor:
        return self.local.features

    def plan(self, k: int = 1) -> Plan:
        """Which search this rank uses for its rows, and why."""
        return self.local.plan(k)

    @torch.no_grad()
    def update(self, videos: Tensor, features: Tensor) -> None:
        """Writes the rows of all ranks' batches, each on its rank; of a repeated video the last in rank order counts.

        Args:
            videos: (B,) int64 row numbers, of all ranks' rows.
            features: (B, D), any floating type.
        """
        videos, features = _gather_batch(self._ranks, self.features, videos, features)
        videos = videos.to(self.valid.device)
        mine = (videos >= self._start) & (videos < self._start + len(self.local))
        own = videos[mine]
        self.local.update(own - self._start, features.to(videos.device)[mine])
        # Only the owner knows whether a row was fit to be kept.
        counts = self._ranks.counts(len(own))
        written = self._ranks.gather(torch.stack([own, self.local.valid[own - self._start].long()], dim=1), counts)
        self.valid[written[:, 0]] = written[:, 1].bool()

    @torch.no_grad()
    def nearest(
        self,
        query: Tensor,
        *,
        exclude: Tensor | None = None,
        exclude_groups: Tensor | None = None,
        k: int = 1,
    ) -> tuple[Tensor, Tensor]:
        """As `MemoryBank.nearest`, over the rows of all ranks: every rank searches its rows for all ranks' queries.

        Raises:
            ValueError: If the ranks ask for different numbers of neighbours; on all of them.
        """
        device = self.valid.device
        numbers = self._ranks.numbers(len(query), k, int(exclude_groups is not None))
        if len({other for _, other, _ in numbers}) > 1:
            raise ValueError(f"the ranks ask for different numbers of neighbours, k = {[k for _, k, _ in numbers]}")
        counts, by_group = [count for count, _, _ in numbers], any(given for *_, given in numbers)
        none = torch.full((len(query),), -1, device=device)
        mine = [none if given is None else given.to(device, torch.int64) for given in (exclude, exclude_groups)]
        queries = self._ranks.gather(query.to(device, _wide(self.features)), counts)
        own, groups = self._ranks.gather(torch.stack(mine, dim=1), counts).unbind(dim=1)
        inside = (own >= self._start) & (own < self._start + len(self.local))
        scores, rows = self.local.nearest(
            queries,
            exclude=torch.where(inside, own - self._start, -1),
            exclude_groups=groups if by_group else None,
            k=k,
        )
        rows = torch.where(rows >= 0, rows + self._start, -1)
        shape = len(query), self._ranks.size * k
        scores, rows = (self._ranks.exchange(found, counts).transpose(0, 1).reshape(shape) for found in (scores, rows))
        return merge(scores, rows, k)

    def state_dict(self) -> dict[str, Tensor]:
        """The whole bank, as `MemoryBank.state_dict` gives it, in the memory of rank 0; on other ranks nothing.

        Collective. The rows come rank by rank in chunks of 64 MiB, so that rank 0 needs the bytes of the whole bank and
        one chunk in the memory of its host, and nothing more on its GPU than a chunk.
        """
        whole = None
        if self._ranks.rank == 0:
            whole = torch.empty(len(self), self.features.shape[1], dtype=self.features.dtype)
        self._ranks.collect(self.features, self._ranks.counts(len(self.local)), whole)
        return {} if whole is None else {"features": whole, "valid": self.valid.cpu()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Takes this rank's rows of a whole bank, saved by any number of ranks in either placement.

        Every rank is given the whole state. Of one that is mapped from a file (`torch.load(..., mmap=True)`) a rank
        reads only its rows.

        Raises:
            ValueError: If the state is that of a bank of another size.
        """
        shape = (len(self), self.features.shape[1])
        for name, expected in (("features", shape), ("valid", shape[:1])):
            found = tuple(state[name].shape) if name in state else None
            if found != expected:
                raise ValueError(f"the saved bank has {name} of shape {found}; this one has {expected}")
        mine = slice(self._start, self._start + len(self.local))
        self.valid.copy_(state["valid"])
        self.local.features.copy_(state["features"][mine])
        self.local.valid.copy_(state["valid"][mine])


def _wide(features: Tensor) -> torch.dtype:
    return torch.promote_types(features.dtype, torch.float32)


def _gather_batch(ranks: Ranks, rows: Tensor, videos: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
    counts = ranks.counts(len(videos))
    return ranks.gather(videos.to(rows.device), counts), ranks.gather(features.to(rows.device, _wide(rows)), counts)
