"""Retrieval against a literal slow reading of its definition, and its rules for the awkward cases."""

from __future__ import annotations

import numpy as np
import pytest

from ascnet.errors import UserError
from ascnet.evaluate.retrieve import neighbours, recall, recall_at


def slow_recall(query, gallery, query_labels, gallery_labels, ks, center):
    """R@k as its definition reads: for each query, sort the gallery by cosine, look at the first k."""
    if center:
        mean = sum(gallery) / len(gallery)
        query = [q - mean for q in query]
        gallery = [g - mean for g in gallery]
    hits = dict.fromkeys(ks, 0)
    for q, label in zip(query, query_labels, strict=True):
        cosine = [float(q @ g) / float(np.sqrt(q @ q) * np.sqrt(g @ g)) for g in gallery]
        order = sorted(range(len(gallery)), key=lambda i: -cosine[i])
        for k in ks:
            hits[k] += any(gallery_labels[i] == label for i in order[:k])
    return {k: 100.0 * n / len(query) for k, n in hits.items()}


@pytest.mark.parametrize("center", [False, True])
def test_recall_is_that_of_a_literal_loop(center: bool) -> None:
    rng = np.random.default_rng(3)
    query, gallery = rng.normal(0.7, 1, (23, 6)), rng.normal(0.7, 1, (41, 6))
    query_labels, gallery_labels = rng.integers(0, 7, 23), rng.integers(0, 7, 41)
    ks = (1, 2, 5, 20)
    expected = slow_recall(query, gallery, query_labels, gallery_labels, ks, center)
    assert recall(query, gallery, query_labels, gallery_labels, ks, center=center) == pytest.approx(expected)
    assert 0 < expected[1] < expected[20] <= 100


def test_the_answer_does_not_depend_on_how_many_queries_are_compared_at_a_time() -> None:
    rng = np.random.default_rng(0)
    query, gallery = rng.normal(size=(17, 5)), rng.normal(size=(31, 5))
    whole = neighbours(query, gallery, 7)
    parts = neighbours(query, gallery, 7, budget=31 * 2)
    np.testing.assert_array_equal(whole.places, parts.places)
    np.testing.assert_array_equal(whole.scores, parts.scores)


def test_equal_scores_are_settled_by_place_in_the_gallery() -> None:
    same = np.tile(np.random.default_rng(1).normal(size=(1, 64)), (9, 1))
    found = neighbours(same[:2], same, 4)
    np.testing.assert_array_equal(found.places, [[0, 1, 2, 3]] * 2)


def test_ties_at_the_last_place_keep_the_better_and_then_the_earlier() -> None:
    gallery = np.array([[0.0, 1], [1, 1], [1, 0], [1, 1], [1, 1]])
    found = neighbours(np.array([[1.0, 0]]), gallery, 3)
    np.testing.assert_array_equal(found.places, [[2, 1, 3]])


def test_a_video_is_never_its_own_neighbour() -> None:
    features = np.random.default_rng(2).normal(size=(6, 4))
    found = neighbours(features, features, 6, query_videos=range(6), gallery_videos=range(6))
    for video, places in enumerate(found.places):
        assert video not in places
        # Five others exist: the sixth place stays empty.
        assert places[-1] == -1 and (places[:-1] >= 0).all()
    assert np.isneginf(found.scores[:, -1]).all()


def test_an_excluded_video_is_no_hit_even_when_k_reaches_the_whole_gallery() -> None:
    features = np.eye(3)
    scores = recall(features, features, [0, 1, 2], [0, 1, 2], (1, 3), query_videos=range(3), gallery_videos=range(3))
    assert scores == {1: 0.0, 3: 0.0}


def test_a_k_beyond_the_gallery_counts_the_whole_gallery() -> None:
    query, gallery = np.eye(3), np.eye(3)[:2]
    assert recall(query, gallery, [0, 1, 2], [1, 0], (1, 2, 50)) == pytest.approx({1: 0, 2: 200 / 3, 50: 200 / 3})


def test_unknown_labels_neither_ask_nor_answer() -> None:
    query, gallery = np.eye(3), np.eye(3)
    assert recall(query, gallery, [0, -1, 2], [0, -1, -1], (1,)) == {1: 50.0}


def test_centring_uses_the_gallery_alone() -> None:
    rng = np.random.default_rng(4)
    query, gallery = rng.normal(5, 1, (4, 3)), rng.normal(5, 1, (8, 3))
    alone = neighbours(query[:1], gallery, 8, center=True)
    together = neighbours(query, gallery, 8, center=True)
    np.testing.assert_array_equal(alone.places[0], together.places[0])


@pytest.mark.parametrize(
    ("query", "gallery", "message"),
    [
        (np.ones((2, 3)), np.ones((2, 4)), "3 numbers and gallery features 4"),
        (np.array([[1.0], [np.nan]]), np.ones((2, 1)), "query features of 1 videos are not finite"),
        (np.ones((2, 3)), np.ones((0, 3)), "gallery features have shape"),
    ],
)
def test_features_that_cannot_be_compared_are_named(query: np.ndarray, gallery: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        neighbours(query, gallery, 1)


def test_recall_without_labels_is_refused() -> None:
    with pytest.raises(UserError, match="needs labels"):
        recall(np.eye(2), np.eye(2), [-1, -1], [0, 1], (1,))


def test_recall_at_more_than_was_searched_is_refused() -> None:
    found = neighbours(np.eye(3), np.eye(3), 1)
    with pytest.raises(UserError, match="R@2 needs 2 neighbours"):
        recall_at(found, [0, 1, 2], [0, 1, 2], (1, 2))
