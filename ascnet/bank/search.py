"""Exact search of the k rows with the largest dot product, by one of two ways with the same answers.

    triton   one pass over the rows by `ascnet.bank.kernel`, on an NVIDIA GPU
    torch    chunks of rows, each with its scores in memory; every device and number format

`plan` says which one is used and why. An error of the kernel is an error: nothing falls back silently.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor

Search = Literal["auto", "triton", "torch"]

# What the kernel is written for (ascnet/bank/kernel.py, which only a plan that uses it imports).
KERNEL_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
KERNEL_NEIGHBOURS = 16
KERNEL_ROW_BYTES = 1024
KERNEL_ROWS = 2**31 - 1024
KERNEL_CAPABILITY = (8, 0)
KERNEL_TRITON = (3, 7)


@dataclass(frozen=True)
class Plan:
    """Which search is used, and why that one; `str(plan)` is a line to print."""

    kernel: Literal["triton", "torch"]
    reason: str

    def __str__(self) -> str:
        return f"bank search: {self.kernel} ({self.reason})"


def plan(features: Tensor, k: int, search: Search = "auto") -> Plan:
    """Chooses the search for a bank.

    Args:
        features: The rows, (N, D).
        k: Neighbours wanted.
        search: `auto` takes the kernel wherever it can be used; the others insist.

    Raises:
        ValueError: If the kernel is insisted on where it cannot be used, or `search` is none of the three.
    """
    if search not in ("auto", "triton", "torch"):
        raise ValueError(f"search is {search!r}; expected 'auto', 'triton' or 'torch'")
    if search == "torch":
        return Plan("torch", "asked for")
    obstacle = _obstacle(features, k, interpreted=search == "triton" and os.environ.get("TRITON_INTERPRET") == "1")
    if search == "triton":
        if obstacle:
            raise ValueError(f"search 'triton' cannot be used: {obstacle}")
        return Plan("triton", "asked for")
    if obstacle:
        return Plan("torch", obstacle)
    return Plan("triton", f"{str(features.dtype).removeprefix('torch.')} rows on {features.device}")


def _obstacle(features: Tensor, k: int, *, interpreted: bool) -> str | None:
    rows, dim = features.shape
    if features.dtype not in KERNEL_DTYPES:
        return f"rows are {features.dtype}; the kernel reads float16, bfloat16 and float32"
    if k > KERNEL_NEIGHBOURS:
        return f"k is {k}; the kernel keeps at most {KERNEL_NEIGHBOURS}"
    if dim * features.itemsize > KERNEL_ROW_BYTES:
        return f"a row has {dim * features.itemsize} bytes; the kernel holds at most {KERNEL_ROW_BYTES}"
    if rows > KERNEL_ROWS:
        return f"{rows} rows; the kernel counts to {KERNEL_ROWS}"
    if not features.is_contiguous():
        return "rows do not lie one after the other in memory"
    return (None if interpreted else _obstacle_of(features.device)) or _obstacle_of_triton()


def _obstacle_of(device: torch.device) -> str | None:
    if device.type != "cuda":
        return f"rows are on {device}; the kernel needs a CUDA GPU"
    if torch.version.hip is not None:
        return "this is an AMD GPU; the kernel is written for NVIDIA's"
    capability = torch.cuda.get_device_capability(device)
    if capability < KERNEL_CAPABILITY:
        return f"compute capability {capability[0]}.{capability[1]}; the kernel needs {KERNEL_CAPABILITY[0]}.0"
    return None


@cache
def _obstacle_of_triton() -> str | None:
    if find_spec("triton") is None:
        return "the package triton is not installed"
    version = str(import_module("triton").__version__)
    if tuple(int(part) for part in version.split(".")[:2]) < KERNEL_TRITON:
        return f"triton is {version}; the kernel is tested with {KERNEL_TRITON[0]}.{KERNEL_TRITON[1]} and later"
    return None


def nearest_rows(
    features: Tensor,
    valid: Tensor,
    groups: Tensor,
    query: Tensor,
    *,
    exclude: Tensor | None = None,
    exclude_groups: Tensor | None = None,
    k: int = 1,
    search: Search = "auto",
    budget: int = 256 << 20,
) -> tuple[Tensor, Tensor]:
    """The k valid rows with the largest dot product with each query, best first; of equal scores the lower number.

    Queries are taken as they are, and lie on the device of the rows, like all other tensors.

    Args:
        features: (N, D) rows.
        valid: (N,) bool, rows that may be returned.
        groups: (N,) int64.
        query: (B, D), float32, or float64 for float64 rows.
        exclude: (B,) int64, one row for each query that is never returned for it; -1 for none.
        exclude_groups: (B,) int64, one group for each query whose rows are never returned for it; -1 for none.
        k: Rows wanted for each query.
        search: See `plan`.
        budget: Largest temporary memory of the torch search, in bytes.

    Returns:
        scores (B, k) and rows (B, k) int64, filled with -inf and -1 where fewer qualify. A query with a number that is
        not finite has no neighbours.
    """
    chosen = plan(features, k, search)
    usable = query.isfinite().all(dim=1, keepdim=True)
    query = torch.where(usable, query, 0.0)
    if exclude_groups is not None:
        # A group may have any number; -1 means none even where a row's group is -1.
        nothing = torch.iinfo(torch.int64).min
        exclude_groups = torch.where(exclude_groups == -1, nothing, exclude_groups)
    if not len(query) or not len(features):
        scores = query.new_full((len(query), k), -torch.inf)
        return scores, torch.full(scores.shape, -1, device=query.device)
    if chosen.kernel == "triton":
        from ascnet.bank import kernel as bank_triton

        lists = bank_triton.walk(features, valid, groups, query, exclude, exclude_groups, k)
        scores, rows = merge(*lists, k)
    else:
        scores, rows = _chunked(features, valid, groups, query, exclude, exclude_groups, k, budget)
    return torch.where(usable, scores, -torch.inf), torch.where(usable, rows, -1)


def merge(scores: Tensor, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best of lists of candidates in any order, (B, M) each: score falling, of equal ones row number rising.

    Returns scores and rows, (B, k); -inf and -1 beyond the candidates and where a score is -inf.
    """
    rows, order = rows.sort(dim=1)
    scores, best = scores.gather(1, order).sort(dim=1, descending=True, stable=True)
    scores, rows = scores[:, :k], rows.gather(1, best[:, :k]).to(torch.int64)
    missing = (0, k - scores.shape[1])
    scores = torch.nn.functional.pad(scores, missing, value=-torch.inf)
    return scores, torch.where(scores > -torch.inf, torch.nn.functional.pad(rows, missing, value=-1), -1)


def chunk_rows(features: Tensor, queries: int, budget: int) -> int:
    """Rows searched at a time: scores, their mask and the rows in full precision together fit the budget."""
    width = torch.promote_types(features.dtype, torch.float32).itemsize
    converted = features.shape[1] * width if features.dtype.itemsize < width else 0
    return max(1, int(budget // max(1, queries * (width + 1) + converted)))


def bytes_read(features: Tensor, *, by_group: bool = False) -> int:
    """Bytes that one pass over the rows has to read: what a search's time is to be held against."""
    return len(features) * (features.shape[1] * features.itemsize + 1 + (8 if by_group else 0))


def _chunked(
    features: Tensor,
    valid: Tensor,
    groups: Tensor,
    query: Tensor,
    exclude: Tensor | None,
    exclude_groups: Tensor | None,
    k: int,
    budget: int,
) -> tuple[Tensor, Tensor]:
    scores = query.new_full((len(query), k), -torch.inf)
    rows = torch.full((len(query), k), -1, device=query.device, dtype=torch.int64)
    size = chunk_rows(features, len(query), budget)
    for start in range(0, len(features), size):
        chunk = slice(start, min(start + size, len(features)))
        found = query @ features[chunk].to(query.dtype).T
        found.masked_fill_(~valid[chunk], -torch.inf)
        if exclude_groups is not None:
            found.masked_fill_(exclude_groups[:, None] == groups[chunk], -torch.inf)
        if exclude is not None:
            own = exclude[:, None] - start
            inside = (own >= 0) & (own < found.shape[1])
            column = own.clamp(0, found.shape[1] - 1)
            found.scatter_(1, column, torch.where(inside, -torch.inf, found.gather(1, column)))
        best, where = _best(found, k)
        # Earlier rows stand first and the sort is stable: of equal scores the lower row number wins.
        scores, order = torch.cat([scores, best], dim=1).sort(dim=1, descending=True, stable=True)
        rows = torch.cat([rows, torch.where(best > -torch.inf, where + start, -1)], dim=1).gather(1, order[:, :k])
        scores = scores[:, :k]
    return scores, rows


def _best(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    best, where = [], []
    for _ in range(min(k, scores.shape[1])):
        # max names the first of equal values, which topk does not promise; k is small.
        value, place = scores.max(dim=1, keepdim=True)
        best.append(value)
        where.append(place)
        scores.scatter_(1, place, -torch.inf)
    return torch.cat(best, dim=1), torch.cat(where, dim=1)
