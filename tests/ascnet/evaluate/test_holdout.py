"""What is held out of training to choose a model by."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from video_rows import corpus_of_lengths, row

from ascnet.errors import UserError
from ascnet.evaluate.holdout import HELD_OUT, hold_out, with_holdout
from dali_pipes import Corpus


def ucf_like(classes: int = 20, groups: int = 18) -> tuple[np.ndarray, np.ndarray]:
    """Recordings of one class each, of 4 to 7 clips."""
    draws = np.random.default_rng(0)
    labels, names = [], []
    for label in range(classes):
        for group in range(groups):
            count = int(draws.integers(4, 8))
            labels += [label] * count
            names += [label * groups + group] * count
    return np.array(labels), np.array(names)


@pytest.mark.parametrize("seed", [0, 1])
def test_every_class_loses_about_the_same_share_and_no_group_is_on_both_sides(seed: int) -> None:
    labels, groups = ucf_like()
    chosen = hold_out(labels, groups, 0.1, seed)
    assert not set(groups[chosen]) & set(groups[~chosen])
    shares = np.bincount(labels[chosen], minlength=20) / np.bincount(labels)
    assert shares.min() > 0.03 and shares.max() < 0.17
    assert abs(chosen.mean() - 0.1) < 0.03


def test_groups_that_span_classes_are_held_out_whole() -> None:
    # Six persons, each of whom does all ten actions once.
    labels, groups = np.tile(np.arange(10), 6), np.repeat(np.arange(6), 10)
    chosen = hold_out(labels, groups, 0.1)
    assert len(set(groups[chosen])) == 1 and chosen.sum() == 10


def test_the_choice_depends_on_the_seed_alone() -> None:
    labels, groups = ucf_like()
    assert (hold_out(labels, groups, 0.1, 3) == hold_out(labels, groups, 0.1, 3)).all()
    assert (hold_out(labels, groups, 0.1, 3) != hold_out(labels, groups, 0.1, 4)).any()


def test_a_small_class_has_one_video_held_out_and_keeps_the_others() -> None:
    labels = np.array([0] * 40 + [1] * 3 + [2])
    chosen = hold_out(labels, np.arange(44), 0.1)
    assert Counter(labels[chosen].tolist()) == {0: 4, 1: 1}


def test_nothing_can_be_held_out_of_classes_of_one_group() -> None:
    with pytest.raises(UserError, match=r"validation\.share"):
        hold_out(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1]), 0.5)
    assert not hold_out(np.array([0, 0]), np.array([0, 0]), 0.0).any()


def test_a_corpus_without_what_is_held_out_keeps_its_row_numbers() -> None:
    rows = [row(n, 20, label="" if n == 5 else "ab"[n % 2], split="test" if n > 7 else "train") for n in range(10)]
    corpus = Corpus.from_rows(rows)
    changed, held = with_holdout(corpus, "train", 0.25)
    assert len(held) == 2 and set(corpus.labels[held]) == {0, 1}
    assert sorted([*changed.select("train"), *held]) == [0, 1, 2, 3, 4, 6, 7]
    assert sorted(changed.select(HELD_OUT)) == sorted([*held, 5])
    assert [video.uri for video in changed] == [video.uri for video in corpus]
    assert changed.select("test").tolist() == [8, 9] and changed.fingerprint != corpus.fingerprint


def test_a_split_without_labels_is_a_mistake() -> None:
    with pytest.raises(UserError, match="label"):
        with_holdout(corpus_of_lengths(20, split="train"), "train", 0.1)
