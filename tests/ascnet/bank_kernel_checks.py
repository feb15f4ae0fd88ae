"""The kernel of the memory bank under Triton's interpreter; run by test_bank_triton.py with TRITON_INTERPRET=1."""

from __future__ import annotations

import pytest
import torch
from bank_reference import Case, exact_case, reference, unit_case

from ascnet import MemoryBank
from ascnet.bank import kernel
from ascnet.bank.search import nearest_rows

DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def run(case: Case, k: int, *, own: bool = True, groups: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    return nearest_rows(
        case.features,
        case.valid,
        case.groups,
        case.query,
        exclude=case.exclude if own else None,
        exclude_groups=case.exclude_groups if groups else None,
        k=k,
        search="triton",
    )


def check(case: Case, k: int, *, own: bool = True, groups: bool = True) -> None:
    scores, rows = run(case, k, own=own, groups=groups)
    expected, numbers = reference(case, k, own=own, groups=groups)
    assert rows.dtype == torch.int64 and scores.dtype == torch.float32
    assert rows.tolist() == numbers.tolist()
    assert torch.equal(scores.double(), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [1, 2, 3, 5, 8, 13, 16])
def test_rows_and_scores_equal_the_reference_for_every_k(dtype: torch.dtype, k: int) -> None:
    check(exact_case(300, 20, 5, dtype), k)


@pytest.mark.parametrize("count", [1, 31, 32, 33, 96, 97, 500])
def test_any_number_of_rows_is_searched_to_the_last(count: int) -> None:
    case = exact_case(count, 16, 3, torch.float16, valid=1.0)
    case.features[-1] = 4 * case.query[0].sign()
    check(case, 2, own=False, groups=False)
    assert run(case, 1, own=False, groups=False)[1][0, 0] == count - 1


@pytest.mark.parametrize("queries", [1, 15, 16, 17, 64, 65, 150])
def test_any_number_of_queries_is_answered(queries: int) -> None:
    check(exact_case(70, 16, queries, torch.float16), 2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [1, 7, 48, 100, 256])
def test_features_of_any_length_are_compared_whole(dtype: torch.dtype, dim: int) -> None:
    check(exact_case(50, dim, 3, dtype), 3)


@pytest.mark.parametrize("dtype", DTYPES)
def test_queries_keep_the_bits_that_the_rows_format_does_not_hold(dtype: torch.dtype) -> None:
    # 19 bits, where fp16 has 11 and bf16 has 8; sums stay below 2 ** 24.
    check(exact_case(60, 8, 4, dtype, bits=19), 4)


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("groups", [True, False])
def test_own_rows_and_groups_are_left_out_only_when_asked(own: bool, groups: bool) -> None:
    case = exact_case(40, 4, 6, torch.float16, valid=1.0)
    case.exclude = case.features.float().matmul(case.query.T).argmax(dim=0)
    case.exclude_groups = case.groups[case.exclude]
    check(case, 3, own=own, groups=groups)


@pytest.mark.parametrize("capability", [(8, 0), (9, 0), (10, 0)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_block_sizes_of_every_device_give_the_same_answers(
    dtype: torch.dtype, capability: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = kernel.blocks
    monkeypatch.setattr(kernel, "blocks", lambda dtype, dim, _, *counts: sizes(dtype, dim, capability, *counts))
    check(exact_case(600, 40, 70, dtype), 5)


def test_a_group_called_minus_1_is_excluded_by_nobody() -> None:
    case = exact_case(20, 4, 3, torch.float16)
    case.groups[:], case.exclude_groups[:] = -1, -1
    check(case, 3)


def test_equal_rows_come_in_the_order_of_their_numbers() -> None:
    case = exact_case(200, 8, 2, torch.float16, valid=1.0)
    case.features[:] = 1
    case.exclude[:] = torch.tensor([0, -1])
    assert run(case, 4, groups=False)[1].tolist() == [[1, 2, 3, 4], [0, 1, 2, 3]]


def test_where_too_few_rows_qualify_the_rest_is_filled() -> None:
    case = exact_case(100, 8, 3, torch.float16, valid=0.0)
    scores, rows = run(case, 5)
    assert (rows == -1).all() and (scores == -torch.inf).all()
    case.valid[70] = True
    check(case, 5)


def test_an_empty_bank_and_no_queries_give_empty_answers() -> None:
    assert run(exact_case(0, 8, 2, torch.float16), 2)[1].tolist() == [[-1, -1]] * 2
    assert run(exact_case(5, 8, 0, torch.float16), 2)[1].shape == (0, 2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_directions_as_in_training_have_the_reference_s_scores(dtype: torch.dtype) -> None:
    case = unit_case(400, 32, 6, dtype)
    scores, rows = run(case, 4)
    expected, numbers = reference(case, 4)
    torch.testing.assert_close(scores.double(), expected, rtol=0, atol=2e-7)
    assert rows.tolist() == numbers.tolist()


def test_bank_uses_the_kernel_when_told_to() -> None:
    torch.manual_seed(0)
    banks = [MemoryBank(90, 12, dtype=torch.float16, search=search) for search in ("triton", "torch")]
    videos, features, query = torch.randperm(90)[:60], torch.randn(60, 12), torch.randn(4, 12) * 1000
    query[2, 3] = torch.nan
    for bank in banks:
        bank.update(videos, features)
    assert [bank.plan(3).kernel for bank in banks] == ["triton", "torch"]
    (scores, found), (expected, numbers) = (bank.nearest(query, exclude=videos[:4], k=3) for bank in banks)
    assert found.tolist() == numbers.tolist() and found[2].tolist() == [-1] * 3
    torch.testing.assert_close(scores, expected)
