"""R@k against implementations of others, on random features."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ascnet.evaluate.retrieve import KS, neighbours, recall


def problem(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    middles = rng.normal(size=(12, 16))
    labels, gallery_labels = rng.integers(0, 12, 60), rng.integers(0, 12, 150)
    query = middles[labels] + 2 * rng.normal(size=(60, 16))
    gallery = middles[gallery_labels] + 2 * rng.normal(size=(150, 16))
    return query, gallery, labels, gallery_labels


@pytest.mark.parametrize("seed", range(3))
def test_recall_is_the_hit_rate_of_torchmetrics(seed: int) -> None:
    retrieval = pytest.importorskip("torchmetrics.retrieval")
    functional = pytest.importorskip("torchmetrics.functional")
    query, gallery, labels, gallery_labels = problem(seed)
    scores = functional.pairwise_cosine_similarity(torch.from_numpy(query), torch.from_numpy(gallery))
    right = torch.from_numpy(labels[:, None] == gallery_labels[None])
    number = torch.arange(len(labels))[:, None].expand_as(right)
    found = recall(query, gallery, labels, gallery_labels)
    for k in KS:
        metric = retrieval.RetrievalHitRate(top_k=k, empty_target_action="neg")
        assert found[k] == pytest.approx(100 * float(metric(scores.flatten(), right.flatten(), number.flatten())))
    assert 0 < found[1] < found[50] <= 100


@pytest.mark.parametrize("seed", range(3))
def test_neighbours_are_those_of_scikit_learn(seed: int) -> None:
    sklearn = pytest.importorskip("sklearn.neighbors")
    query, gallery, _, _ = problem(seed)
    search = sklearn.NearestNeighbors(n_neighbors=20, metric="cosine", algorithm="brute").fit(gallery)
    distances, places = search.kneighbors(query)
    found = neighbours(query, gallery, 20)
    np.testing.assert_array_equal(found.places, places)
    np.testing.assert_allclose(found.scores, 1 - distances, atol=1e-6)
