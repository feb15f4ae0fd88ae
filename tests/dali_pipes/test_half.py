"""Clips as float16: rounded as torch rounds, in memory that nobody else holds."""

from __future__ import annotations

import gc

import torch

from dali_pipes.half import Halver


def test_half_precision_is_rounded_to_the_nearest() -> None:
    values = torch.randn(3, 2, 5, 97, 113) * 3
    assert torch.equal(Halver()(values), values.half())


def test_memory_is_used_again_once_no_view_of_it_is_held() -> None:
    halve, values = Halver(), torch.randn(4, 50_000)
    held = halve(values)[1:3, 7:]
    place = held.untyped_storage().data_ptr()
    others = [halve(values + 1) for _ in range(3)]
    assert len({place, *(one.data_ptr() for one in others)}) == 4
    assert torch.equal(held, values.half()[1:3, 7:])
    del held
    gc.collect()
    assert halve(values - 1).data_ptr() == place
    assert all(torch.equal(one, (values + 1).half()) for one in others)


def test_another_size_gets_memory_of_its_own() -> None:
    halve = Halver()
    for rows in (4, 3, 5, 3, 4):
        values = torch.randn(rows, 40_000)
        assert torch.equal(halve(values), values.half())


def test_little_is_kept_of_what_is_dropped() -> None:
    halve = Halver()
    batches = [halve(torch.randn(100)) for _ in range(20)]
    batches.clear()
    gc.collect()
    assert len(halve._free) == 4
