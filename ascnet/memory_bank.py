"""The gallery of Algorithm 1: one appearance feature per video, searched exactly."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
        budget: int = 256 << 20,
    ) -> None:
        """
        Args:
            num_videos: N, rows; the corpus length.
            dim: D, length of a feature.
            device: Where the rows live and the search runs.
            dtype: torch.float32, or torch.float16 for half the memory.
            groups: (N,) integers for `exclude_groups`.
            momentum: Share of its old value that a valid row keeps when written again.
            normalize: Keep rows, and take queries, at length 1, so that a score is a cosine.
            budget: Largest temporary memory of a search, in bytes.

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
        self.budget = budget

    def __len__(self) -> int:
        return len(self.features)

    @torch.no_grad()
    def update(self, videos: Tensor, features: Tensor) -> None:
        """Writes the rows of a batch in place.

        A video that occurs twice keeps its last feature; a feature that is not finite changes nothing.

        Args:
            videos: (B,) int64 row numbers.
            features: (B, D), any floating type.
        """
        if not len(videos):
            return
        videos = videos.to(self.features.device)
        places = torch.arange(len(videos), device=videos.device)
        # A scatter with repeated rows would keep an arbitrary one of them: let all write what the last one brings.
        last = torch.where(videos[:, None] == videos[None, :], places, -1).amax(dim=1)
        wide = torch.promote_types(self.features.dtype, torch.float32)
        new = features.to(videos.device, wide)[last]
        old, known = self.features[videos].to(wide), self.valid[videos]
        finite = new.isfinite().all(dim=1)
        if self.normalize:
            new = F.normalize(new, dim=1)
        if self.momentum:
            new = torch.where(known[:, None], self.momentum * old + (1 - self.momentum) * new, new)
            new = F.normalize(new, dim=1) if self.normalize else new
        self.features[videos] = torch.where(finite[:, None], new, old).to(self.features.dtype)
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

        The search is exact. It goes through the rows in chunks, so that what it needs besides the bank stays within
        `budget` bytes (one row at a time at the least). Of equal scores the lower video number comes first.

        Args:
            query: (B, D).
            exclude: (B,) one video for each query that is never returned for it; -1 for none.
            exclude_groups: (B,) one group number for each query whose videos are never returned for it; -1 for none.
            k: Videos wanted for each query.

        Returns:
            scores (B, k) float32 (float64 for a float64 bank) and videos (B, k) int64. Where fewer than k rows qualify,
            the rest is filled with -inf and -1.
        """
        device = self.features.device
        wide = torch.promote_types(self.features.dtype, torch.float32)
        query = query.to(device, wide)
        query = F.normalize(query, dim=1) if self.normalize else query
        scores = query.new_full((len(query), k), -torch.inf)
        videos = torch.full((len(query), k), -1, device=device, dtype=torch.int64)
        rows = self.chunk_rows(len(query))
        for start in range(0, len(self), rows):
            chunk = slice(start, min(start + rows, len(self)))
            found, where = self._best_of_chunk(query, chunk, exclude, exclude_groups, k)
            # Earlier rows stand first and the sort is stable: of equal scores the lower video number wins.
            scores, order = torch.cat([scores, found], dim=1).sort(dim=1, descending=True, stable=True)
            scores, videos = scores[:, :k], torch.cat([videos, where], dim=1).gather(1, order[:, :k])
        return scores, videos

    def chunk_rows(self, queries: int) -> int:
        """Rows searched at a time: scores, their mask and the rows in full precision together fit the budget."""
        width = torch.promote_types(self.features.dtype, torch.float32).itemsize
        converted = self.features.shape[1] * width if self.features.dtype.itemsize < width else 0
        return max(1, int(self.budget // (queries * (width + 1) + converted)))

    def _best_of_chunk(
        self, query: Tensor, chunk: slice, exclude: Tensor | None, groups: Tensor | None, k: int
    ) -> tuple[Tensor, Tensor]:
        scores = query @ self.features[chunk].to(query.dtype).T
        scores.masked_fill_(~self.valid[chunk], -torch.inf)
        if groups is not None:
            scores.masked_fill_(groups.to(query.device)[:, None] == self.groups[chunk], -torch.inf)
        if exclude is not None:
            own = exclude.to(query.device)[:, None] - chunk.start
            inside = (own >= 0) & (own < scores.shape[1])
            column = own.clamp(0, scores.shape[1] - 1)
            scores.scatter_(1, column, torch.where(inside, -torch.inf, scores.gather(1, column)))
        best, where = [], []
        for _ in range(min(k, scores.shape[1])):
            # max names the first of equal values, which topk does not promise; k is small.
            value, place = scores.max(dim=1, keepdim=True)
            best.append(value)
            where.append(torch.where(value > -torch.inf, place + chunk.start, -1))
            scores.scatter_(1, place, -torch.inf)
        return torch.cat(best, dim=1), torch.cat(where, dim=1)
