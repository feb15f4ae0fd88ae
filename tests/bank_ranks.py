"""One rank of a bank over several processes: goes through a small run and leaves what it saw in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from ascnet.bank import shards as bank_shards
from ascnet.bank.shards import Bank, Placement, make_bank

VIDEOS, DIM, STEPS = 41, 6, 6
PLACEMENTS: tuple[Placement, ...] = ("replicated", "sharded")
OPTIONS: dict[str, Any] = {"momentum": 0.5, "normalize": False, "dtype": torch.float16, "search": "torch"}
GROUPS = torch.arange(VIDEOS) // 3


def batch(step: int) -> tuple[Tensor, Tensor]:
    """All ranks' videos and features of a step: repeated videos, and one feature that is not finite.

    Small whole numbers, of which means are exact: sums do not depend on their order, and scores are often equal.
    """
    draw = torch.Generator().manual_seed(step)
    videos = torch.randint(0, VIDEOS, (11,), generator=draw)
    videos[5] = videos[0]
    features = 4.0 * torch.randint(-2, 3, (11, DIM), generator=draw)
    features[7, 2] = torch.nan
    return videos, features


def queries(step: int) -> tuple[Tensor, Tensor]:
    """All ranks' queries of a step and the videos that they are of."""
    draw = torch.Generator().manual_seed(100 + step)
    return torch.randint(-2, 3, (9, DIM), generator=draw).float(), torch.randint(-1, VIDEOS, (9,), generator=draw)


def part(tensor: Tensor, rank: int, world: int, step: int) -> Tensor:
    """A rank's part of a batch: in some steps all have as good as equal ones, in others rank 0 or the last has all."""
    if step % 3:
        last = 0 if step % 3 == 1 else world - 1
        return tensor if rank == last else tensor[:0]
    return tensor.tensor_split(world)[rank]


def walk(bank: Bank, rank: int = 0, world: int = 1, first: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Updates and searches; scores and videos of every search, this rank's."""
    answers = []
    for step in range(first, first + STEPS):
        videos, features = (part(tensor, rank, world, step) for tensor in batch(step))
        bank.update(videos, features)
        query, own = (part(tensor, rank, world, step) for tensor in queries(step))
        groups = torch.where(own >= 0, bank.groups[own.clamp(min=0)], -1)
        answers.append(bank.nearest(query, exclude=own))
        answers.append(bank.nearest(query, exclude=own, exclude_groups=groups, k=3))
        answers.append(bank.nearest(query, k=VIDEOS))
    return answers


def run_ranks(world: int, folder: Path, resume: Path | None = None) -> dict[str, list[dict[str, Any]]]:
    """Runs all ranks; what each saw, by placement. `resume` is a folder whose banks are gone on with."""
    folder.mkdir()
    mp.spawn(_rank, (world, folder, resume), nprocs=world)
    return {
        placement: [torch.load(folder / f"{placement}-{rank}.pt") for rank in range(world)] for placement in PLACEMENTS
    }


def _rank(rank: int, world: int, folder: Path, resume: Path | None) -> None:
    torch.set_num_threads(1)
    bank_shards.CHUNK = 50  # bytes: the rows of a rank are collected in several parts
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    for placement in PLACEMENTS:
        bank = make_bank(placement, VIDEOS, DIM, groups=GROUPS, **OPTIONS)
        if resume is not None:
            bank.load_state_dict(torch.load(resume / f"{placement}-0.pt", mmap=True)["state"])
        answers = walk(bank, rank, world, first=0 if resume is None else STEPS)
        seen = {"answers": answers, "valid": bank.valid, "rows": len(bank.features), "state": bank.state_dict()}
        small = make_bank(placement, 1, 2)
        small.update(torch.zeros(1, dtype=torch.int64), torch.ones(1, 2))
        seen["small"] = small.nearest(torch.ones(2, 2), k=2)[1]
        try:
            bank.nearest(torch.ones(1, DIM), k=1 + rank)
        except ValueError as error:
            seen["error"] = str(error)
        torch.save(seen, folder / f"{placement}-{rank}.pt")
    # A bank that not all ranks share: here by the last ones.
    members = list(range(1, world))
    group = dist.new_group(members)
    if rank in members:
        bank = make_bank("sharded", VIDEOS, DIM, groups=GROUPS, group=group, **OPTIONS)
        answers = walk(bank, rank - 1, world - 1)
        torch.save({"answers": answers, "state": bank.state_dict()}, folder / f"group-{rank - 1}.pt")
    dist.destroy_process_group()
