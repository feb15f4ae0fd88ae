"""The search of the memory bank as one Triton kernel: similarity and top-k in a single pass over the rows.

Every program walks over blocks of rows. A block is read once; its scores against a block of queries come out of the
tensor cores into registers, rows that may not be returned are struck out there, and what beats the program's k best so
far replaces the worst of them. Only these lists are written: no score matrix is in memory. docs/bank.md has the
arithmetic.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import NamedTuple

import torch
import triton  # type: ignore[import-untyped, import-not-found, unused-ignore]
import triton.language as tl  # type: ignore[import-untyped, import-not-found, unused-ignore]
from torch import Tensor

# Triton reads this variable when a kernel is defined, so that it counts as it is now. The interpreter's tl.dot takes
# bfloat16 for whole numbers: there the factors become float32 first, which changes none of the products.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

# How a float32 query is written as a sum of numbers of the rows' type, each part holding the next bits, and the factor
# between a part and the one before it: 2 x 11 bits of fp16, 3 x 8 of bf16. The products are exact in float32, so that
# the rows' type costs the precision of the rows and none of the query's.
PARTS = {torch.float16: (2, 2.0**-11), torch.bfloat16: (3, 2.0**-8), torch.float32: (1, 1.0)}


class Blocks(NamedTuple):
    """Sizes of one program: queries and rows of a block, row blocks on their way from memory, warps."""

    queries: int
    rows: int
    stages: int
    warps: int


def blocks(dtype: torch.dtype, dim: int, capability: tuple[int, int], queries: int, k: int = 1) -> Blocks:
    """Sizes that fit the shared memory and the registers of a device (docs/bank.md, "Sizes").

    Args:
        dtype: Of the rows.
        dim: D.
        capability: Of the device, such as (9, 0).
        queries: B, more than 0.
        k: Neighbours wanted.
    """
    if dtype == torch.float32:
        # Three products of TF32 for each: small blocks, or the parts of the rows leave the registers.
        size = Blocks(16, 32, 3, 4)
    elif capability[0] == 9:  # 227 KiB of shared memory
        size = Blocks(64, 64, 4, 4) if dtype == torch.float16 else Blocks(64, 64, 3, 4)
    elif capability[0] == 10:  # 227 KiB; with 64 queries Triton 3.7 fails on the way to tensor memory
        size = Blocks(32, 64, 3, 4)
    elif capability in ((8, 0), (8, 7)):  # 163 KiB
        size = Blocks(64, 128, 2, 8) if dtype == torch.float16 else Blocks(32, 64, 3, 4)
    else:  # 99 KiB
        size = Blocks(64, 32, 2, 4) if dtype == torch.float16 else Blocks(32, 32, 2, 4)
    if k > 8:
        # Triton 3.7 does not get through longer lists beside the wide products of 9.0 in minutes.
        size = size._replace(queries=min(32, size.queries), stages=min(3, size.stages))
    width = _padded(dim) * dtype.itemsize
    wide = 1024 if dtype == torch.float32 else 512
    if width > wide:
        size = size._replace(queries=max(16, size.queries // 2), rows=size.rows // 2)
    return size._replace(queries=min(size.queries, max(16, triton.next_power_of_2(queries))))


def _padded(dim: int) -> int:
    return max(16, triton.next_power_of_2(dim))


@triton.jit
def replace(
    score: tl.tensor,
    best: tl.tensor,
    found: tl.tensor,
    worst: tl.tensor,
    leaving: tl.tensor,
    n: tl.tensor,
    start: tl.tensor,
    K: tl.constexpr,
) -> tl.tensor:
    """Moves each query's largest score into its list, if it belongs there; last, whether more scores do."""
    # Blocks come in ascending order and of equal scores the lowest place is named first, so that asking for more than
    # the worst of the list, and not for as much, lets the lower video number win.
    top, place = tl.max(score, axis=1, return_indices=True)
    slot = (found == leaving[:, None]) & (top > worst)[:, None]
    best = tl.where(slot, top[:, None], best)
    found = tl.where(slot, (place + start).to(tl.int32)[:, None], found)
    worst = tl.min(best, axis=1)
    leaving = tl.max(tl.where(best == worst[:, None], found, -1 - K), axis=1)
    score = tl.where(n[None, :] == place[:, None], -float("inf"), score)
    more = tl.max((tl.max(score, axis=1) > worst).to(tl.int32), axis=0) > 0
    return score, best, found, worst, leaving, more


@triton.jit(do_not_specialize=["rows", "queries", "query_blocks", "walkers"])
def walk_rows(
    features: tl.tensor,  # (N, D)
    valid: tl.tensor,  # (N,) uint8
    groups: tl.tensor,  # (N,) int64
    query: tl.tensor,  # (PARTS, Q, BLOCK_D), zeros beyond D and beyond the last query
    own: tl.tensor,  # (Q,) int64, -1 for none
    own_groups: tl.tensor,  # (Q,) int64
    scores: tl.tensor,  # out, (walkers, Q, K) float32
    videos: tl.tensor,  # out, (walkers, Q, K) int32, negative where there is none
    rows: tl.tensor,
    queries: tl.tensor,
    query_blocks: tl.tensor,
    walkers: tl.tensor,
    D: tl.constexpr,
    K: tl.constexpr,
    PARTS: tl.constexpr,
    FACTOR: tl.constexpr,
    BY_GROUP: tl.constexpr,
    UPCAST: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    STAGES: tl.constexpr,
) -> None:
    """One program: the K best of its rows for one block of queries.

    Programs of the same rows and other queries are neighbours in the grid, so that the rows come from the L2 cache for
    all but the first of them.
    """
    # int64 from here on: 10 M rows of 256 numbers are more than an int32 counts.
    walker = (tl.program_id(0) // query_blocks).to(tl.int64)
    q = (tl.program_id(0) % query_blocks) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    n = tl.arange(0, BLOCK_N)
    d = tl.arange(0, BLOCK_D)
    slots = tl.arange(0, K)

    part = query + q[:, None] * BLOCK_D + d[None, :]
    size = query_blocks * BLOCK_Q * BLOCK_D
    high = tl.load(part)
    if PARTS > 1:
        middle = tl.load(part + size)
    if PARTS > 2:
        low = tl.load(part + 2 * size)
    if UPCAST:
        high = high.to(tl.float32)
        if PARTS > 1:
            middle = middle.to(tl.float32)
        if PARTS > 2:
            low = low.to(tl.float32)
    mine = tl.load(own + q)
    my_group = tl.load(own_groups + q)

    # Queries that only fill the block have a list that nothing beats.
    best = tl.where((q < queries)[:, None] & (slots >= 0)[None, :], -float("inf"), float("inf"))
    # Free slots carry distinct numbers, so that exactly one is filled at a time.
    found = tl.zeros((BLOCK_Q, K), tl.int32) - 1 - slots[None, :]
    worst = tl.min(best, axis=1)
    leaving = tl.max(found, axis=1)

    for block in tl.range(walker, tl.cdiv(rows, BLOCK_N), walkers, num_stages=STAGES):
        start = block * BLOCK_N
        inside = n < rows - start
        tile = tl.load(
            features + start * D + (n[:, None] * D + d[None, :]),
            mask=inside[:, None] & (d < D)[None, :],
            other=0.0,
        )
        if UPCAST:
            tile = tile.to(tl.float32)
        turned = tl.trans(tile)
        if PARTS == 1:
            score = tl.dot(high, turned, input_precision="tf32x3")
        elif PARTS == 2:
            score = tl.dot(high, turned, acc=tl.dot(middle, turned) * FACTOR)
        else:
            score = tl.dot(middle, turned, acc=tl.dot(low, turned) * FACTOR)
            score = tl.dot(high, turned, acc=score * FACTOR)

        allowed = tl.load(valid + start + n, mask=inside, other=0) != 0
        keep = allowed[None, :] & ((mine - start).to(tl.int32)[:, None] != n[None, :])
        if BY_GROUP:
            group = tl.load(groups + start + n, mask=inside, other=0)
            keep = keep & (group[None, :] != my_group[:, None])
        score = tl.where(keep, score, -float("inf"))

        more = tl.max((tl.max(score, axis=1) > worst).to(tl.int32), axis=0) > 0
        if K > 8:
            # Sixteen rounds written out take Triton 3.7 minutes to compile for some devices.
            while more:
                score, best, found, worst, leaving, more = replace(score, best, found, worst, leaving, n, start, K)
        else:
            # Not a loop: Triton fetches ahead only in the innermost one. Once `more` is false the rest is skipped.
            for _ in tl.static_range(K):
                if more:
                    score, best, found, worst, leaving, more = replace(score, best, found, worst, leaving, n, start, K)

    out = (walker * query_blocks * BLOCK_Q + q)[:, None] * K + slots[None, :]
    tl.store(scores + out, best)
    tl.store(videos + out, found)


def walk(
    features: Tensor,
    valid: Tensor,
    groups: Tensor,
    query: Tensor,
    exclude: Tensor | None,
    exclude_groups: Tensor | None,
    k: int,
) -> tuple[Tensor, Tensor]:
    """Runs the kernel: each program's best rows for each query, in no order.

    Args:
        features: (N, D), float16, bfloat16 or float32, N and B more than 0.
        valid: (N,) bool.
        groups: (N,) int64.
        query: (B, D) float32, finite.
        exclude: (B,) int64 or None.
        exclude_groups: (B,) int64 or None.
        k: At most 16.

    Returns:
        scores (B, M) float32 and rows (B, M) int32, M at least k times the number of programs; -inf where a program had
        fewer rows.
    """
    device, (rows, dim), count = features.device, features.shape, len(query)
    on_gpu = device.type == "cuda"
    # The interpreter takes the sizes of a small device.
    size = blocks(features.dtype, dim, torch.cuda.get_device_capability(device) if on_gpu else (0, 0), count, k)
    processors = torch.cuda.get_device_properties(device).multi_processor_count if on_gpu else 3
    query_blocks = triton.cdiv(count, size.queries)
    walkers = max(1, min(processors // query_blocks, triton.cdiv(rows, size.rows)))
    padded, kept = query_blocks * size.queries, triton.next_power_of_2(k)

    split, scale = split_query(query, features.dtype)
    parts = split.new_zeros(len(split), padded, _padded(dim))
    parts[:, :count, :dim] = split
    none = torch.full((count,), -1, device=device)
    fill = (0, padded - count)
    own = torch.nn.functional.pad(none if exclude is None else exclude.to(device, torch.int64), fill, value=-1)
    own_groups = none if exclude_groups is None else exclude_groups.to(device, torch.int64)
    own_groups = torch.nn.functional.pad(own_groups, fill, value=-1)
    scores = torch.empty(walkers, padded, kept, device=device, dtype=torch.float32)
    found = torch.empty(walkers, padded, kept, device=device, dtype=torch.int32)
    # Triton launches on the current device, whatever the tensors say.
    with torch.cuda.device(device) if on_gpu else nullcontext():
        walk_rows[(walkers * query_blocks,)](
            features,
            valid.contiguous().view(torch.uint8),
            groups.contiguous(),
            parts,
            own,
            own_groups,
            scores,
            found,
            rows,
            count,
            query_blocks,
            walkers,
            D=dim,
            K=kept,
            PARTS=len(split),
            FACTOR=PARTS[features.dtype][1],
            BY_GROUP=exclude_groups is not None,
            UPCAST=INTERPRETED,
            BLOCK_Q=size.queries,
            BLOCK_N=size.rows,
            BLOCK_D=_padded(dim),
            STAGES=size.stages,
            num_warps=size.warps,
            enable_fp_fusion=True,
        )
    scores, found = (lists[:, :count].transpose(0, 1).reshape(count, -1) for lists in (scores, found))
    return scores * scale, found


def split_query(query: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Queries as a sum of parts in the rows' number format.

    Returns parts (P, B, D) and scale (B, 1), powers of 2: the query is scale * (parts[0] + factor * (parts[1] + ...)).
    """
    count, factor = PARTS[dtype]
    largest = query.abs().amax(dim=1, keepdim=True)
    scale = torch.ldexp(torch.ones_like(largest), torch.frexp(largest).exponent)
    rest, parts = query / scale, []
    for _ in range(count):
        parts.append(rest.to(dtype))
        rest = (rest - parts[-1].to(rest.dtype)) / factor
    return torch.stack(parts), scale
