"""The memory bank on a GPU: the same answers as on the CPU, in place, within its budget, and bit for bit again."""

from __future__ import annotations

import pytest
import torch

from ascnet import MemoryBank

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]


def make_pair(dtype: torch.dtype, count: int = 20_000, budget: int = 1 << 20) -> tuple[MemoryBank, MemoryBank]:
    torch.manual_seed(0)
    rows, features = torch.randperm(count)[: count // 2], torch.randn(count // 2, 64)
    banks = []
    for device in ("cpu", "cuda"):
        bank = MemoryBank(count, 64, device=device, dtype=dtype, groups=torch.arange(count) // 4, budget=budget)
        bank.update(rows, features)
        banks.append(bank)
    return banks[0], banks[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("k", [1, 5])
def test_search_on_the_gpu_finds_what_the_cpu_finds(dtype: torch.dtype, k: int) -> None:
    cpu, gpu = make_pair(dtype)
    query, own = torch.randn(64, 64), torch.randint(0, len(cpu), (64,))
    expected, videos = cpu.nearest(query, exclude=own, exclude_groups=cpu.groups[own], k=k)
    scores, found = gpu.nearest(query.cuda(), exclude=own.cuda(), exclude_groups=gpu.groups[own.cuda()], k=k)
    torch.testing.assert_close(scores.cpu(), expected, rtol=1e-4, atol=1e-5)
    # Rounding may exchange rows whose scores are as good as equal, and no others.
    exact = torch.nn.functional.normalize(query, dim=1) @ cpu.features.float().T
    torch.testing.assert_close(exact.gather(1, found.cpu()), exact.gather(1, videos), rtol=1e-4, atol=1e-5)
    assert (found.cpu() == videos).float().mean() > 0.99


def test_search_needs_no_more_memory_than_its_budget() -> None:
    budget = 4 << 20
    _, gpu = make_pair(torch.float16, count=400_000, budget=budget)
    query = torch.randn(64, 64, device="cuda")
    assert 64 * len(gpu) * 4 > 20 * budget
    gpu.nearest(query)  # the first call also makes the workspace of the matrix product
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    gpu.nearest(query, exclude=torch.arange(64, device="cuda"))
    # Two chunks may be alive for a moment, the old one's last tensors beside the new one's first.
    assert torch.cuda.max_memory_allocated() - before <= 2 * budget


def test_update_with_repeated_videos_repeats_bit_for_bit() -> None:
    videos = torch.randint(0, 50, (4096,), device="cuda")
    features = torch.randn(4096, 64, device="cuda")
    banks = [MemoryBank(50, 64, device="cuda") for _ in range(3)]
    for bank in banks:
        bank.update(videos, features)
    cpu = MemoryBank(50, 64)
    cpu.update(videos.cpu(), features.cpu())
    assert all(torch.equal(bank.features, banks[0].features) for bank in banks)
    torch.testing.assert_close(banks[0].features.cpu(), cpu.features)


def test_update_writes_in_place() -> None:
    bank = MemoryBank(100, 8, device="cuda")
    before = bank.features.data_ptr()
    bank.update(torch.arange(10), torch.randn(10, 8, device="cuda"))
    assert bank.features.data_ptr() == before and bank.features.is_cuda and int(bank.valid.sum()) == 10
