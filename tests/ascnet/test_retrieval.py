from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from training_data import MadeCorpus, MadeLoader, MadeStream, make_clip, tiny

from ascnet import MemoryBank
from ascnet.config import RetrievalConfig
from ascnet.errors import CheckpointError
from ascnet.retrieval import LookAhead, PositiveSearch
from dali_pipes import ClipRequest

CPU = torch.device("cpu")


def make_bank(valid: int = 8) -> MemoryBank:
    """Video v at angle v x 10 degrees, so that its nearest are its neighbours; two videos a group."""
    angles = torch.deg2rad(10.0 * torch.arange(8))
    bank = MemoryBank(8, 2, groups=torch.arange(8) // 2)
    bank.update(torch.arange(valid), torch.stack([angles.cos(), angles.sin()], dim=1)[:valid])
    return bank


def search(bank: MemoryBank, videos: list[int], **options: Any) -> list[int]:
    query = bank.features[torch.tensor(videos)]
    return PositiveSearch(bank, RetrievalConfig(**options), 0)(query, videos, 0, list(range(len(videos))), 1).tolist()


def test_nearest_other_video_is_chosen() -> None:
    bank = make_bank()
    assert search(bank, [0, 7]) == [1, 6]


def test_group_exclusion_leaves_out_siblings() -> None:
    assert search(make_bank(), [0, 7], exclude="group") == [2, 5]


def test_pick_among_the_k_nearest_varies_over_samples_and_repeats_for_the_same_key() -> None:
    bank = make_bank()
    picks = search(bank, [0] * 40, topk=3)
    assert set(picks) == {1, 2, 3}
    assert picks == search(bank, [0] * 40, topk=3)


def test_pick_among_more_than_there_are_stays_within_what_there_is() -> None:
    assert set(search(make_bank(valid=3), [0] * 20, topk=6)) == {1, 2}


@pytest.mark.parametrize(("exclude", "allowed"), [("self", {1, 2, 3, 4, 5}), ("group", {2, 3, 4, 5})])
def test_random_positive_is_any_other_valid_video(exclude: str, allowed: set[int]) -> None:
    picks = search(make_bank(valid=6), [0] * 80, positive="random", exclude=exclude)
    assert set(picks) == allowed
    assert picks == search(make_bank(valid=6), [0] * 80, positive="random", exclude=exclude)


@pytest.mark.parametrize("positive", ["nearest", "random"])
def test_empty_bank_gives_no_positives(positive: str) -> None:
    assert search(make_bank(valid=0), [0, 3], positive=positive) == [-1, -1]


def test_lone_positive_is_left_out_since_batch_normalisation_needs_two() -> None:
    bank = make_bank(valid=1)
    assert search(bank, [0, 3]) == [-1, -1]  # only video 3 could have one
    assert search(bank, [0, 3, 4]) == [-1, 0, 0]


class Clock:
    """A target network that answers with the number of steps made so far, to show when it was asked."""

    def __init__(self) -> None:
        self.now = 0
        self.asked: list[int] = []

    def __call__(self, clips: Tensor) -> Tensor:
        self.asked.append(self.now)
        return torch.full((len(clips), 2), float(self.now + 1))


def look_ahead(depth: int, total: int, clock: Clock) -> tuple[LookAhead, MadeLoader, MadeStream]:
    config, bank = tiny(), make_bank()
    loader, stream = MadeLoader(config, MadeCorpus(8), CPU), MadeStream(CPU)
    search = PositiveSearch(bank, config.retrieval, 0)
    return LookAhead(loader, stream, clock, search, depth=depth, total=total), loader, stream


@pytest.mark.parametrize(("depth", "asked"), [(0, [0, 1, 2, 3, 4]), (2, [0, 0, 0, 1, 2])])
def test_target_features_are_computed_once_when_the_batch_arrives(depth: int, asked: list[int]) -> None:
    clock = Clock()
    ahead, loader, _ = look_ahead(depth, 5, clock)
    for step in range(5):
        clock.now = step
        item = ahead.next()
        assert item.a_j[0][0, 0] == asked[step] + 1
        (positives,) = ahead.collect(item, 0)
        assert positives.clips is not None and positives.clips.shape[0] == len(positives.found) == 4
    assert clock.asked == asked
    assert len(loader.handed_out) == 5  # nothing is fetched beyond the end of the run


def test_state_brings_back_batches_under_way_with_their_old_features_and_positives() -> None:
    clock = Clock()
    ahead, *_ = look_ahead(2, 8, clock)
    for _ in range(3):
        ahead.collect(ahead.next(), 0)
    state = ahead.state_dict()
    expected = [(item.videos, item.chosen[0].tolist()) for item in list(ahead._queue)]

    clock.now = 99
    other, *_ = look_ahead(2, 8, clock)
    other.load_state_dict(state, left=5)
    for videos, chosen in expected:
        item = other.next()
        assert item.videos == videos and item.chosen[0].tolist() == chosen
        assert item.a_j[0][0, 0] == 1  # computed at step 0 of the first run and not again
        assert other.collect(item, 0)[0].clips is not None
    assert other.next().a_j[0][0, 0] == 100


def test_state_of_another_order_of_videos_is_refused() -> None:
    ahead, *_ = look_ahead(2, 8, Clock())
    ahead.next()
    state = ahead.state_dict()
    state["under_way"][0]["videos"] = [7, 7, 7, 7]
    other, *_ = look_ahead(2, 8, Clock())
    other.load_state_dict(state, left=7)
    with pytest.raises(CheckpointError, match="the loader does not give the batch"):
        other.next()


def test_without_a_stream_nothing_is_searched() -> None:
    config, bank = tiny(), make_bank()
    loader = MadeLoader(config, MadeCorpus(8), CPU)
    ahead = LookAhead(loader, None, Clock(), PositiveSearch(bank, config.retrieval, 0), depth=1, total=2)
    item = ahead.next()
    assert np.array_equal(item.chosen[0], [-1] * 4)
    assert ahead.collect(item, 0)[0].clips is None


def test_agreement_counts_the_positives_that_the_bank_of_today_would_give_again() -> None:
    config, bank = tiny(), make_bank()
    search = PositiveSearch(bank, config.retrieval, 0)
    ahead = LookAhead(MadeLoader(config, MadeCorpus(8), CPU), MadeStream(CPU), Clock(), search, depth=1, total=3)
    item = ahead.next()
    assert ahead.agreement(item) == (4, 4)
    bank.update(torch.arange(8), bank.features.flip(0).clone())
    same, count = ahead.agreement(item)
    assert same < count == 4


def test_positives_are_dealt_to_the_parts_of_a_batch_and_a_lone_one_is_left_out() -> None:
    config, bank = tiny("data.batch_size=6"), make_bank()
    stream = MadeStream(CPU)
    search = PositiveSearch(bank, config.retrieval, 0)
    loader = MadeLoader(config, MadeCorpus(12), CPU)
    ahead = LookAhead(loader, stream, Clock(), search, depth=0, total=1, parts=3)
    item = ahead.next()
    wanted = item.chosen[0].copy()
    # The third sample's video cannot be had, which leaves its neighbour in the second part alone.
    stream.queue[0][2] = ClipRequest(0 if wanted[2] else 1, stream.queue[0][2].views, stream.queue[0][2].key)
    parts = ahead.collect(item, 0)
    assert [None if part.clips is None else len(part.clips) for part in parts] == [2, None, 2]
    assert [part.found.tolist() for part in parts] == [[0, 1], [], [0, 1]]
    assert item.chosen[0].tolist() == [*wanted[:2], -1, -1, *wanted[4:]]
    asked = stream.asked[0]
    for part, first in ((parts[0], 0), (parts[2], 4)):
        assert part.clips is not None
        assert torch.equal(part.clips, torch.stack([make_clip(asked[first + n], 0) for n in range(2)]))
