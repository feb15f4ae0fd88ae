from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from bank_ranks import DIM, GROUPS, OPTIONS, PLACEMENTS, STEPS, VIDEOS, batch, part, run_ranks, walk
from torch import Tensor

from ascnet import MemoryBank
from ascnet.bank.shards import Ranks, ShardedMemoryBank, make_bank

Seen = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def two(folder: Path) -> Seen:
    return run_ranks(2, folder / "two")


@pytest.fixture(scope="module")
def three(folder: Path, two: Seen) -> Seen:
    """Three ranks that go on with what two have saved."""
    return run_ranks(3, folder / "three", resume=folder / "two")


def alone(steps: int = STEPS) -> tuple[MemoryBank, list[tuple[Tensor, Tensor]]]:
    """One bank in one process and its answers in the last `STEPS` steps."""
    bank, answers = MemoryBank(VIDEOS, DIM, groups=GROUPS, **OPTIONS), []
    for first in range(0, steps, STEPS):
        answers = walk(bank, first=first)
    return bank, answers


def check_answers(seen: list[dict[str, Any]], expected: list[tuple[Tensor, Tensor]]) -> None:
    for place, (scores, videos) in enumerate(expected):
        answers = [rank["answers"][place] for rank in seen]
        assert torch.cat([found for _, found in answers]).tolist() == videos.tolist()
        assert torch.equal(torch.cat([values for values, _ in answers]), scores)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_two_ranks_find_the_neighbours_that_one_process_finds(placement: str, two: Seen) -> None:
    _, expected = alone()
    scores, _ = expected[-1]
    assert (scores[:, 1:] == scores[:, :-1]).any(), "there is a tie to be decided"
    check_answers(two[placement], expected)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_ranks_hold_what_one_process_holds_after_repeated_videos_and_momentum(placement: str, two: Seen) -> None:
    bank, _ = alone()
    whole = two[placement][0]["state"]
    assert torch.equal(whole["features"], bank.features) and torch.equal(whole["valid"], bank.valid)
    assert all(torch.equal(rank["valid"], bank.valid) for rank in two[placement])
    repeated = [videos for videos, _ in map(batch, range(STEPS)) if videos[0] == videos[5]]
    assert repeated and len(part(repeated[0], 0, 2, 0)) in (5, 6), "one of them is on the other rank"


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_three_ranks_go_on_with_what_two_saved(placement: str, three: Seen) -> None:
    bank, expected = alone(2 * STEPS)
    check_answers(three[placement], expected)
    assert torch.equal(three[placement][0]["state"]["features"], bank.features)


def test_replicas_are_equal_and_shards_share_the_rows(three: Seen) -> None:
    first, *others = [rank["state"] for rank in three["replicated"]]
    assert all(torch.equal(first[name], other[name]) for other in others for name in first)
    assert [rank["rows"] for rank in three["replicated"]] == [VIDEOS] * 3
    assert [rank["rows"] for rank in three["sharded"]] == [14, 14, 13]
    assert [rank["state"] for rank in three["sharded"][1:]] == [{}, {}]


@pytest.mark.parametrize("kind", ["MemoryBank", "sharded", "replicated"])
def test_one_process_goes_on_with_what_two_ranks_saved(kind: str, two: Seen) -> None:
    _, expected = alone(2 * STEPS)
    options = {"groups": GROUPS, **OPTIONS}
    bank = MemoryBank(VIDEOS, DIM, **options) if kind == "MemoryBank" else make_bank(kind, VIDEOS, DIM, **options)  # type: ignore[arg-type]
    bank.load_state_dict(two["sharded"][0]["state"])
    for (scores, videos), (right, numbers) in zip(walk(bank, first=STEPS), expected, strict=True):
        assert videos.tolist() == numbers.tolist() and torch.equal(scores, right)


def test_part_of_the_ranks_may_share_a_bank(folder: Path, three: Seen) -> None:
    bank, expected = alone()
    seen = [torch.load(folder / "three" / f"group-{rank}.pt") for rank in range(2)]
    check_answers(seen, expected)
    assert torch.equal(seen[0]["state"]["features"], bank.features) and seen[1]["state"] == {}


def test_fewer_rows_than_ranks_leave_a_rank_without_any(three: Seen) -> None:
    for placement in PLACEMENTS:
        assert [rank["small"].tolist() for rank in three[placement]] == [[[0, -1]] * 2] * 3


def test_ranks_that_ask_for_different_k_are_all_told(two: Seen) -> None:
    message = "the ranks ask for different numbers of neighbours, k = [1, 2]"
    assert [rank.get("error") for rank in two["sharded"]] == [message] * 2


def test_state_of_a_bank_of_another_size_is_refused() -> None:
    state = MemoryBank(5, 3).state_dict()
    with pytest.raises(ValueError, match=re.escape("features of shape (5, 3); this one has (6, 3)")):
        ShardedMemoryBank(6, 3).load_state_dict(state)
    with pytest.raises(ValueError, match=re.escape("valid of shape None; this one has (5,)")):
        ShardedMemoryBank(5, 3).load_state_dict({"features": state["features"]})


def test_unknown_placement_and_wrong_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="placement is 'split'; expected 'replicated' or 'sharded'"):
        make_bank("split", 4, 2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"groups has shape \(3,\); expected \(4,\)"):
        make_bank("sharded", 4, 2, groups=torch.zeros(3))


def test_without_a_process_group_this_process_is_the_only_rank() -> None:
    ranks = Ranks(torch.device("cpu"))
    assert (ranks.rank, ranks.size, ranks.counts(3)) == (0, 1, [3])
    assert len(ShardedMemoryBank(7, 2).features) == 7
