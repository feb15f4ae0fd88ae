"""The gallery of Algorithm 1: one appearance feature per video, searched exactly."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ascnet.bank.search import Plan, Search, chunk_rows, nearest_rows, plan


class MemoryBank(nn.Module):
    """One row per video in one preallocated tensor, written in place, with a mask of the rows that hold something.

    Example:
        >>> bank = MemoryBank(1000, dim=256, device="cuda")
        >>> bank.update(videos, features)
        >>> scores, nearest = bank.nearest(query, exclude=videos, k=1)

    Attributes:
        features: (N, D), row v is the feature of video v; of unit length where `normalize` is set.
        valid: (N,) bool, rows that have been written.
        groups: (N,) int64, videos with the same number belong together; row numbers where none were given.
    """

    features: Tensor
    valid: Tensor
    groups: Tensor

    def __init__(
        self,
        num_videos: int,
        dim: int = 256,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
        groups: Tensor | None = None,
        momentum: float = 0.0,
        normalize: bool = True,
        search: Search = "auto",
        budget: int = 256 << 20,
    ) -> None:
        """
        Args:
            num_videos: N, rows; the corpus length.
            dim: D, length of a feature.
            device: Where the rows live and the search runs.
            dtype: torch.float32, or torch.float16 or torch.bfloat16 for half the memory.
            groups: (N,) integers for `exclude_groups`.
            momentum: Share of its old value that a valid row keeps when written again.
            normalize: Keep rows, and take queries, at length 1, so that a score is a cosine.
            search: `auto`, or insist on the `triton` kernel or the `torch` search (`ascnet.bank.search.plan`).
            budget: Largest temporary memory of the torch search, in bytes.

        Raises:
            ValueError: If `groups` has not one number per video.
        """
        super().__init__()
        if groups is not None and tuple(groups.shape) != (num_videos,):
            raise ValueError(f"groups has shape {tuple(groups.shape)}; expected ({num_videos},), one number a video")
        numbers = torch.arange(num_videos) if groups is None else torch.as_tensor(groups, dtype=torch.int64)
        self.register_buffer("features", torch.zeros(num_videos, dim, device=device, dtype=dtype))
        self.register_buffer("valid", torch.zeros(num_videos, device=device, dtype=torch.bool))
        # The corpus knows the groups; a checkpoint need not carry them.
        self.register_buffer("groups", numbers.to(device), persistent=False)
        self.momentum = momentum
        self.normalize = normalize
        self.search = search
        self.budget = budget

    def __len__(self) -> int:
        return len(self.features)

    @torch.no_grad()
    def update(self, videos: Tensor, features: Tensor) -> None:
        """Writes the rows of a batch in place.

        A video that occurs twice keeps its last feature; a feature that is not finite, or not in the bank's number
        format, changes nothing.

        Args:
            videos: (B,) int64 row numbers.
            features: (B, D), any floating type.
        """
        if not len(videos):
            return
        videos = videos.to(self.features.device)
        # A scatter with repeated rows would keep an arbitrary one of them: let all write what the last one brings.
        ordered, places = videos.sort(stable=True)
        last = places[torch.searchsorted(ordered, videos, right=True) - 1]
        wide = torch.promote_types(self.features.dtype, torch.float32)
        new = features.to(videos.device, wide)[last]
        old, known = self.features[videos], self.valid[videos]
        finite = new.isfinite().all(dim=1)
        if self.normalize:
            new = F.normalize(new, dim=1)
        if self.momentum:
            new = torch.where(known[:, None], self.momentum * old.to(wide) + (1 - self.momentum) * new, new)
            new = F.normalize(new, dim=1) if self.normalize else new
        stored = new.to(self.features.dtype)
        # What half precision cannot hold is no better than what was not finite to begin with.
        finite &= stored.isfinite().all(dim=1)
        self.features[videos] = torch.where(finite[:, None], stored, old)
        self.valid[videos] = known | finite

    @torch.no_grad()
    def nearest(
        self,
        query: Tensor,
        *,
        exclude: Tensor | None = None,
        exclude_groups: Tensor | None = None,
        k: int = 1,
    ) -> tuple[Tensor, Tensor]:
        """The k valid rows with the largest dot product with each query, best first (METHOD: Algorithm 1, line 8).

        The search is exact, and `plan` says how it is done: on a GPU a kernel goes through the rows once; elsewhere
        they are taken in chunks, so that what it needs besides the bank stays within `budget` bytes (one row at a time
        at the least). Of equal scores the lower video number comes first.

        Args:
            query: (B, D).
            exclude: (B,) one video for each query that is never returned for it; -1 for none.
            exclude_groups: (B,) one group number for each query whose videos are never returned for it; -1 for none.
            k: Videos wanted for each query.

        Returns:
            scores (B, k) float32 (float64 for a float64 bank) and videos (B, k) int64. Where fewer than k rows qualify,
            the rest is filled with -inf and -1, as all is for a query that is not finite.
        """
        device = self.features.device
        query = query.to(device, torch.promote_types(self.features.dtype, torch.float32))
        return nearest_rows(
            self.features,
            self.valid,
            self.groups,
            F.normalize(query, dim=1) if self.normalize else query,
            exclude=None if exclude is None else exclude.to(device, torch.int64),
            exclude_groups=None if exclude_groups is None else exclude_groups.to(device, torch.int64),
            k=k,
            search=self.search,
            budget=self.budget,
        )

    def plan(self, k: int = 1) -> Plan:
        """Which search `nearest` uses for k neighbours, and why; print it.

        Raises:
            ValueError: If `search` insists on the kernel where it cannot be used.
        """
        return plan(self.features, k, self.search)

    def chunk_rows(self, queries: int) -> int:
        """Rows that the torch search takes at a time, so that it stays within the budget."""
        return chunk_rows(self.features, queries, self.budget)
