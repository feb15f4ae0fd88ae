from __future__ import annotations

import os
import re
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch
from bank_reference import Case, exact_case, reference, unit_case
from torch import Tensor

from ascnet import MemoryBank
from ascnet.bank.search import bytes_read, merge, nearest_rows, plan


def run(case: Case, k: int, budget: int, *, own: bool = True, groups: bool = True) -> tuple[Tensor, Tensor]:
    return nearest_rows(
        case.features,
        case.valid,
        case.groups,
        case.query.to(torch.promote_types(case.features.dtype, torch.float32)),
        exclude=case.exclude if own else None,
        exclude_groups=case.exclude_groups if groups else None,
        k=k,
        search="torch",
        budget=budget,
    )


@pytest.mark.parametrize("budget", [600, 1 << 20])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("k", [1, 2, 16, 40])
def test_rows_and_scores_equal_the_reference_whatever_the_chunks(dtype: torch.dtype, k: int, budget: int) -> None:
    for (own, groups), count in product([(True, True), (True, False), (False, True), (False, False)], [1, 70]):
        case = exact_case(count, 11, 5, dtype)
        scores, rows = run(case, k, budget, own=own, groups=groups)
        expected, numbers = reference(case, k, own=own, groups=groups)
        assert rows.tolist() == numbers.tolist() and torch.equal(scores.double(), expected)


def test_cases_have_ties_exclusions_and_missing_rows_to_get_wrong() -> None:
    case = exact_case(120, 11, 5, torch.float16)
    scores, rows = reference(case, 16)
    assert (scores[:, 1:] == scores[:, :-1]).any() and not case.valid.all()
    assert not torch.equal(rows, reference(case, 16, own=False, groups=False)[1])


def test_directions_as_in_training_have_the_reference_s_scores() -> None:
    case = unit_case(500, 32, 6, torch.float16)
    scores, rows = run(case, 5, 5000)
    expected, numbers = reference(case, 5)
    torch.testing.assert_close(scores.double(), expected, rtol=0, atol=2e-7)
    assert rows.tolist() == numbers.tolist()


def test_a_query_that_is_not_finite_has_no_neighbours_and_spoils_no_other() -> None:
    bank = MemoryBank(5, 3)
    bank.update(torch.arange(5), torch.randn(5, 3))
    query = torch.tensor([[1.0, torch.nan, 0], [0, 1, 0], [torch.inf, 0, 0]])
    scores, videos = bank.nearest(query, k=2)
    assert videos[[0, 2]].tolist() == [[-1, -1]] * 2 and (scores[[0, 2]] == -torch.inf).all()
    assert videos[1].tolist() == bank.nearest(query[1:2], k=2)[1][0].tolist() and (videos[1] >= 0).all()


def test_a_group_called_minus_1_is_excluded_by_nobody() -> None:
    case = exact_case(20, 4, 3, torch.float32)
    case.groups[:], case.exclude_groups[:] = -1, -1
    assert torch.equal(run(case, 3, 1000)[1], reference(case, 3, groups=False)[1])


def test_an_empty_bank_and_no_queries_give_empty_answers() -> None:
    assert MemoryBank(0, 4).nearest(torch.ones(2, 4), k=2)[1].tolist() == [[-1, -1]] * 2
    assert MemoryBank(5, 4).nearest(torch.ones(0, 4), k=2)[1].shape == (0, 2)


def test_feature_too_large_for_half_precision_changes_nothing() -> None:
    bank = MemoryBank(2, 2, normalize=False, dtype=torch.float16)
    bank.update(torch.tensor([0, 0]), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    bank.update(torch.tensor([0, 1]), torch.tensor([[1e6, 1.0], [1e6, 1.0]]))
    assert bank.features.tolist() == [[3, 4], [0, 0]] and bank.valid.tolist() == [True, False]


def test_lists_are_merged_by_score_and_then_by_number() -> None:
    inf = torch.inf
    scores = torch.tensor([[0.0, 2.0, -0.0, 2.0, -inf], [-inf, -inf, -inf, -inf, 1.0]])
    rows = torch.tensor([[4, 9, 1, 3, 0], [0, 1, 2, 3, 8]], dtype=torch.int32)
    best, numbers = merge(scores, rows, 6)
    assert numbers.tolist() == [[3, 9, 1, 4, -1, -1], [8, -1, -1, -1, -1, -1]]
    assert best.tolist() == [[2, 2, 0, 0, -inf, -inf], [1, -inf, -inf, -inf, -inf, -inf]]


@pytest.mark.parametrize(
    ("features", "k", "reason"),
    [
        (torch.zeros(4, 8, dtype=torch.float64), 1, "rows are torch.float64; the kernel reads float16"),
        (torch.zeros(4, 8), 17, "k is 17; the kernel keeps at most 16"),
        (torch.zeros(4, 257), 1, "a row has 1028 bytes; the kernel holds at most 1024"),
        (torch.zeros(8, 4).T, 1, "rows do not lie one after the other in memory"),
        (torch.zeros(4, 8), 1, "rows are on cpu; the kernel needs a CUDA GPU"),
    ],
)
def test_plan_names_what_keeps_the_kernel_from_being_used(features: Tensor, k: int, reason: str) -> None:
    assert plan(features, k).kernel == "torch" and reason in str(plan(features, k))
    with pytest.raises(ValueError, match=f"search 'triton' cannot be used: {re.escape(reason)}"):
        plan(features, k, "triton")


@pytest.mark.parametrize(
    ("version", "reason"), [("3.2.0", "triton is 3.2.0; the kernel is tested with 3.7"), ("3.10.0+git1", None)]
)
def test_a_triton_older_than_the_tested_ones_is_not_used(version: str, reason: str | None, tmp_path: Path) -> None:
    # A package of that version, found before the installed one.
    (tmp_path / "triton.py").write_text(f"__version__ = {version!r}\n")
    code = "from ascnet.bank import search; print(search._obstacle_of_triton())"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=100)
    assert done.stdout.startswith(str(reason)), done.stderr


def test_search_on_the_cpu_is_torch_s_and_an_unknown_one_is_refused() -> None:
    bank = MemoryBank(4, 8, dtype=torch.float16)
    assert bank.plan().kernel == "torch" and str(bank.plan()).startswith("bank search: torch (")
    assert str(MemoryBank(4, 8, search="torch").plan()) == "bank search: torch (asked for)"
    with pytest.raises(ValueError, match="search is 'fast'; expected 'auto', 'triton' or 'torch'"):
        MemoryBank(4, 8, search="fast").nearest(torch.ones(1, 8))  # type: ignore[arg-type]


def test_bytes_read_count_rows_validity_and_groups() -> None:
    features = torch.empty(10, 256, dtype=torch.float16)
    assert bytes_read(features) == 10 * (512 + 1) and bytes_read(features, by_group=True) == 10 * (512 + 1 + 8)
