"""The memory bank on a GPU: the same answers as on the CPU, in place, within its budget, and bit for bit again."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from bank_reference import Case, exact_case, reference, unit_case
from torch import Tensor

from ascnet import MemoryBank
from ascnet.bank.search import nearest_rows

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]


kernel = pytest.mark.skipif(
    find_spec("triton") is None or (torch.cuda.is_available() and torch.cuda.get_device_capability() < (8, 0)),
    reason="the kernel needs triton and a GPU of compute capability 8.0",
)
DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def run(case: Case, k: int, search: str, *, groups: bool = True) -> tuple[Tensor, Tensor]:
    case = case.to("cuda")
    return nearest_rows(
        case.features,
        case.valid,
        case.groups,
        case.query,
        exclude=case.exclude,
        exclude_groups=case.exclude_groups if groups else None,
        k=k,
        search=search,  # type: ignore[arg-type]
    )


def make_pair(dtype: torch.dtype, count: int = 20_000, budget: int = 1 << 20) -> tuple[MemoryBank, MemoryBank]:
    torch.manual_seed(0)
    rows, features = torch.randperm(count)[: count // 2], torch.randn(count // 2, 64)
    banks = []
    for device in ("cpu", "cuda"):
        bank = MemoryBank(count, 64, device=device, dtype=dtype, groups=torch.arange(count) // 4, budget=budget)
        bank.update(rows, features)
        banks.append(bank)
    return banks[0], banks[1]


@pytest.mark.parametrize("search", [pytest.param("triton", marks=kernel), "torch"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [1, 2, 3, 5, 8, 13, 16])
def test_rows_and_scores_equal_the_reference(search: str, dtype: torch.dtype, k: int) -> None:
    # Small whole numbers, which the tensor cores add without rounding: ties are ties.
    case = exact_case(3001, 100, 70, dtype)
    scores, rows = run(case, k, search)
    expected, numbers = reference(case, k)
    assert rows.tolist() == numbers.tolist()
    assert torch.equal(scores.cpu().double(), expected)


@kernel
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [1, 16, 48, 128, 256, 512])
@pytest.mark.parametrize("queries", [1, 17, 130])
def test_kernel_takes_any_number_of_queries_and_any_length_of_a_row(dtype: torch.dtype, dim: int, queries: int) -> None:
    if dim * dtype.itemsize > 1024:
        pytest.skip("the kernel holds rows of at most 1024 bytes")
    case = exact_case(500, dim, queries, dtype)
    assert torch.equal(run(case, 4, "triton", groups=False)[1].cpu(), reference(case, 4, groups=False)[1])


@kernel
@pytest.mark.parametrize("dtype", DTYPES)
def test_kernel_s_scores_have_the_precision_of_float32(dtype: torch.dtype) -> None:
    case = unit_case(5000, 256, 64, dtype)
    scores, rows = run(case, 3, "triton")
    expected, numbers = reference(case, 3)
    torch.testing.assert_close(scores.cpu().double(), expected, rtol=0, atol=2e-6)
    assert (rows.cpu() == numbers).float().mean() > 0.99


@kernel
def test_kernel_reaches_rows_beyond_2_to_the_31_numbers() -> None:
    count, dim = 9_000_000, 256
    if torch.cuda.mem_get_info()[0] < 8 << 30:
        pytest.skip("needs 8 GiB of free memory on the GPU")
    assert count * dim > 2**31
    bank = MemoryBank(count, dim, device="cuda", dtype=torch.float16, search="triton")
    videos = torch.tensor([0, count // 2, count - 1], device="cuda")
    bank.update(videos, torch.eye(3, dim, device="cuda"))
    assert bank.nearest(torch.eye(3, dim))[1][:, 0].tolist() == videos.tolist()


@kernel
def test_kernel_makes_no_score_matrix() -> None:
    bank = MemoryBank(1_000_000, 64, device="cuda", dtype=torch.float16)
    bank.update(torch.arange(1000), torch.randn(1000, 64))
    query = torch.randn(64, 64, device="cuda")
    assert bank.plan(16).kernel == "triton"
    bank.nearest(query, k=16)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    bank.nearest(query, k=16)
    # The matrix would have 256 MB.
    assert torch.cuda.max_memory_allocated() - before < 32 << 20


@kernel
def test_kernel_repeats_bit_for_bit() -> None:
    case = unit_case(20_000, 256, 64, torch.float16)
    (first, rows), *others = [run(case, 8, "triton") for _ in range(3)]
    assert all(torch.equal(first, scores) and torch.equal(rows, found) for scores, found in others)


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
