"""An epoch that is begun on some ranks and ended on others; speed labels, and the names that torch's DataLoader has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from loader_checks import corpus_of, expected, kept, loader_of, make_plain, numbers_shown, requests_of

from dali_pipes import ClipBatch, ClipRequest, Corpus, DataError

pytest_plugins = ["loader_fixtures"]


def steps_of(
    corpus: Corpus, ranks: int, batch: int, state: dict[str, Any] | None, steps: int | None, **options: Any
) -> tuple[list[ClipRequest], dict[str, Any]]:
    """What some ranks deliver of the current epoch, in the order of positions, and the state behind it."""
    delivered: list[list[ClipBatch]] = []
    states = []
    for rank in range(ranks):
        with loader_of(corpus, "cpu", batch_size=batch, rank=rank, world_size=ranks, **options) as loader:
            if state is not None:
                loader.load_state_dict(json.loads(json.dumps(state)))
            if steps is None:
                delivered.append(list(loader))
            else:
                delivered.append(kept(loader, steps))
            states.append(loader.state_dict())
    assert all(other == states[0] for other in states)
    assert len({len(batches) for batches in delivered}) == 1  # the same steps on every rank
    together = [request for step in zip(*delivered, strict=True) for request in requests_of(step)]
    return together, states[0]


def test_an_epoch_goes_on_from_one_rank_to_three_to_two_with_nothing_twice_and_nothing_lost(mixed: Corpus) -> None:
    options: dict[str, Any] = {"clips_per_video": 5}  # 35 positions
    one, state = steps_of(mixed, 1, 3, None, 2, **options)
    three, state = steps_of(mixed, 3, 2, state, 2, **options)
    assert state["position"] == 6 + 12
    two, state = steps_of(mixed, 2, 4, state, None, **options)
    found = one + three + two
    assert [request.key.position for request in found] == list(range(34))
    with loader_of(mixed, "cpu", **options) as loader:
        assert found == [loader.sampler.request(0, position) for position in range(34)]
    # The next epoch begins at its beginning on any number of ranks.
    assert (state["epoch"], state["position"]) == (1, 0)
    following, _ = steps_of(mixed, 3, 1, state, 1, **options)
    assert [(r.key.epoch, r.key.position) for r in following] == [(1, 0), (1, 1), (1, 2)]


def test_what_is_left_of_an_epoch_and_fills_no_batch_on_all_ranks_is_dropped(mixed: Corpus) -> None:
    _, state = steps_of(mixed, 1, 2, None, 3)
    rest, state = steps_of(mixed, 2, 1, state, None)
    assert (rest, state["epoch"], state["position"]) == ([], 1, 0)


def test_a_state_of_version_1_is_taken_up_at_its_place(mixed: Corpus) -> None:
    with loader_of(mixed, "cpu") as loader:
        kept(loader, 2)
        state = loader.state_dict()
        following = requests_of(kept(loader, 1))
    old = {k: v for k, v in state.items() if k not in ("position", "reverse", "jitter")}
    old |= {"version": 1, "step": 2, "world_size": 1, "batch_size": 2}
    with loader_of(mixed, "cpu") as other:
        other.load_state_dict(old)
        assert requests_of(kept(other, 1)) == following
        with pytest.raises(DataError, match="step=None"):
            other.load_state_dict({k: v for k, v in old.items() if k != "step"})


def test_labels_are_places_among_the_sorted_distinct_speeds(mixed: Corpus) -> None:
    with loader_of(mixed, "cpu", speeds=(2, (0.5, 4), 2), label_speeds=True) as loader:
        assert loader.sampler.speed_classes == (0.5, 2.0, 4.0)
        for batch in kept(loader, 4):
            labels = batch.speed_labels
            assert labels is not None and labels.dtype == torch.int64 and labels.device == batch.clips.device
            assert torch.equal(torch.tensor([0.5, 2.0, 4.0])[labels], batch.speeds)
    with loader_of(mixed, "cpu") as loader:
        assert kept(loader, 1)[0].speed_labels is None


def test_pictures_follow_reverse_and_adjacent_windows(tmp_path: Path) -> None:
    corpus = corpus_of(make_plain(tmp_path, 4, 64))
    options: dict[str, Any] = {
        "augment": None,
        "dtype": "uint8",
        "size": 64,
        "window": "adjacent",
        "speeds": (1, 2, 0.5),
    }
    with loader_of(corpus, "cpu", reverse=0.5, **options) as loader:
        for batch in kept(loader, 4):
            for request, clips in zip(batch.requests, batch.clips, strict=True):
                last = None
                for view, clip in zip(request.views, clips, strict=True):
                    wanted = expected(view.start, view.speed, 4, corpus[request.video].frames)
                    shown = [number - 100 * request.video for number in numbers_shown(clip)]
                    assert shown == (wanted[::-1] if view.reverse else wanted)
                    assert last is None or view.start == last + 1
                    last = wanted[-1]


def test_jittered_clips_are_made_again_from_their_requests_alone(mixed: Corpus) -> None:
    with loader_of(mixed, "cpu", jitter=0.5, speeds=(4, 3), reverse=0.5) as loader:
        batch = kept(loader, 1)[0]
    with loader_of(mixed, "cpu", jitter=0.5, speeds=(4, 3), reverse=0.5, threads=2, prefetch=1) as loader:
        assert torch.equal(kept(loader, 1)[0].clips, batch.clips)
        assert loader.requests(0, 0) == list(batch.requests)


def test_a_loader_has_the_names_of_a_dataloader(mixed: Corpus) -> None:
    with loader_of(mixed, "cpu", threads=3) as loader:
        assert (len(loader), loader.batch_size, loader.num_workers, loader.drop_last) == (3, 2, 3, True)
        assert loader.dataset is mixed
        assert len(loader.sampler) == 7
        loader.set_epoch(4)
        assert loader.epoch == 4
