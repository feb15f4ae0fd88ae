from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ascnet import MemoryBank


def filled(count: int = 50, dim: int = 8, **options: Any) -> MemoryBank:
    torch.manual_seed(0)
    bank = MemoryBank(count, dim, **options)
    rows = torch.randperm(count)[: count * 3 // 4]
    bank.update(rows, torch.randn(len(rows), dim))
    return bank


def literal(bank: MemoryBank, query: Tensor, k: int, exclude: list[int], groups: list[int]) -> list[list[int]]:
    answers = []
    for row, own, group in zip(query, exclude, groups, strict=True):
        scores = {}
        for video in range(len(bank)):
            if bank.valid[video] and video != own and int(bank.groups[video]) != group:
                scores[video] = float((row / row.norm()) @ bank.features[video].float())
        best = sorted(scores, key=lambda video: (-scores[video], video))[:k]
        answers.append(best + [-1] * (k - len(best)))
    return answers


@pytest.mark.parametrize("budget", [1, 400, 3000, 1 << 20])
@pytest.mark.parametrize("k", [1, 3, 60])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_nearest_equals_a_literal_loop_whatever_the_budget(budget: int, k: int, dtype: torch.dtype) -> None:
    bank = filled(groups=torch.arange(50) // 4, budget=budget, dtype=dtype)
    query, own = torch.randn(6, 8), torch.randint(0, 50, (6,))
    scores, videos = bank.nearest(query, exclude=own, exclude_groups=bank.groups[own], k=k)
    assert videos.tolist() == literal(bank, query, k, own.tolist(), bank.groups[own].tolist())
    found = videos >= 0
    cosines = (query / query.norm(dim=1, keepdim=True)) @ bank.features.float().T
    torch.testing.assert_close(scores[found], cosines.gather(1, videos.clamp(min=0))[found])
    assert (scores[~found] == -torch.inf).all()


def test_exclusion_is_per_query_and_minus_1_excludes_nothing() -> None:
    bank = MemoryBank(3, 2, groups=torch.tensor([5, 5, 6]))
    bank.update(torch.arange(3), torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]))
    query = torch.tensor([[1.0, 0.0]] * 3)
    assert bank.nearest(query, exclude=torch.tensor([0, -1, 1]))[1][:, 0].tolist() == [1, 0, 0]
    assert bank.nearest(query, exclude_groups=torch.tensor([5, -1, 6]))[1][:, 0].tolist() == [2, 0, 0]


def test_rows_that_were_never_written_are_never_returned() -> None:
    bank = MemoryBank(4, 2)
    scores, videos = bank.nearest(torch.ones(2, 2), k=2)
    assert videos.tolist() == [[-1, -1]] * 2 and (scores == -torch.inf).all()
    bank.update(torch.tensor([2]), torch.tensor([[-1.0, -1.0]]))
    # Its score is lower than that of an empty row would be.
    assert bank.nearest(torch.ones(1, 2), k=2)[1].tolist() == [[2, -1]]
    assert bank.nearest(torch.ones(1, 2), exclude=torch.tensor([2]))[1].tolist() == [[-1]]


@pytest.mark.parametrize("budget", [1, 1 << 20])
def test_equal_scores_give_the_lower_video_number(budget: int) -> None:
    bank = MemoryBank(9, 2, budget=budget)
    bank.update(torch.arange(9), torch.ones(9, 2))
    assert bank.nearest(torch.ones(1, 2), exclude=torch.tensor([1]), k=3)[1].tolist() == [[0, 2, 3]]


class Sizes(TorchDispatchMode):
    """Records the bytes of every tensor that an operation makes, views of the bank's rows aside."""

    def __init__(self, bank: MemoryBank) -> None:
        super().__init__()
        self.bank, self.largest = bank, 0

    def __torch_dispatch__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        own = {tensor.untyped_storage().data_ptr() for tensor in self.bank.buffers()}
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in own:
                self.largest = max(self.largest, tensor.numel() * tensor.itemsize)
        return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_search_makes_no_tensor_larger_than_the_budget(dtype: torch.dtype) -> None:
    query, videos, budget = torch.randn(16, 8), torch.arange(16), 20_000
    assert 5 * budget < 16 * 2000 * 4  # the full score matrix would not fit
    bank = filled(2000, groups=torch.arange(2000) // 2, budget=budget, dtype=dtype)
    with Sizes(bank) as sizes:
        bank.nearest(query, exclude=videos, exclude_groups=bank.groups[videos], k=2)
    assert 0 < sizes.largest <= budget
    assert bank.chunk_rows(16) > 50  # the budget is made use of


def test_update_writes_in_place_and_the_last_of_a_repeated_video_wins() -> None:
    bank = MemoryBank(5, 2, normalize=False)
    before = bank.features.data_ptr()
    bank.update(torch.tensor([3, 1, 3]), torch.tensor([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]))
    assert bank.features.data_ptr() == before
    assert bank.features.tolist() == [[0, 0], [2, 2], [0, 0], [3, 3], [0, 0]]
    assert bank.valid.tolist() == [False, True, False, True, False]


def test_rows_have_length_1_unless_raw_features_are_asked_for() -> None:
    unit, raw = MemoryBank(2, 2), MemoryBank(2, 2, normalize=False)
    for bank in (unit, raw):
        bank.update(torch.tensor([0, 1]), torch.tensor([[3.0, 4.0], [0.6, 0.8]]))
    assert unit.features.flatten().tolist() == pytest.approx([0.6, 0.8, 0.6, 0.8])
    # Of raw features the longer one has the larger dot product.
    scores, videos = raw.nearest(torch.tensor([[3.0, 4.0]]), k=2)
    assert videos.tolist() == [[0, 1]] and scores[0].tolist() == pytest.approx([25.0, 5.0])


def test_momentum_keeps_a_share_of_a_row_seen_before_and_none_of_an_empty_one() -> None:
    bank = MemoryBank(2, 2, momentum=0.75, normalize=False)
    bank.update(torch.tensor([0]), torch.tensor([[4.0, 0.0]]))
    assert bank.features[0].tolist() == [4.0, 0.0]
    bank.update(torch.tensor([0]), torch.tensor([[0.0, 4.0]]))
    assert bank.features[0].tolist() == [3.0, 1.0]


def test_feature_that_is_not_finite_changes_nothing() -> None:
    bank = MemoryBank(2, 2, normalize=False)
    bank.update(torch.tensor([0]), torch.tensor([[1.0, 2.0]]))
    bank.update(torch.tensor([0, 1]), torch.tensor([[torch.nan, 1.0], [torch.inf, 1.0]]))
    assert bank.features.tolist() == [[1, 2], [0, 0]] and bank.valid.tolist() == [True, False]


def test_state_is_taken_up_by_another_bank() -> None:
    bank, other = filled(), MemoryBank(50, 8)
    other.load_state_dict(bank.state_dict())
    query = torch.randn(3, 8)
    assert bank.nearest(query, k=4)[1].tolist() == other.nearest(query, k=4)[1].tolist()


def test_groups_of_the_wrong_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"groups has shape \(3,\); expected \(4,\)"):
        MemoryBank(4, 2, groups=torch.zeros(3))
