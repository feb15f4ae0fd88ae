"""Scores of a classifier, against torchmetrics and against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ascnet.errors import UserError
from ascnet.evaluate.metrics import confusion, per_class, ranks, standard_error, summary, top_k

torchmetrics = pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")


def made(videos: int = 400, classes: int = 11, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draws = np.random.default_rng(seed)
    labels = draws.integers(classes, size=videos)
    return draws.normal(size=(videos, classes)) + 1.5 * np.eye(classes)[labels], labels


@pytest.mark.parametrize("k", [1, 2, 5, 11])
def test_top_k_is_that_of_torchmetrics(k: int) -> None:
    scores, labels = made()
    theirs = torchmetrics.Accuracy(task="multiclass", num_classes=11, top_k=k, average="micro")
    expected = 100 * float(theirs(torch.from_numpy(scores), torch.from_numpy(labels)))
    assert top_k(scores, labels, [k])[k] == pytest.approx(expected, abs=1e-4)


def test_the_confusion_matrix_and_accuracy_by_class_are_those_of_torchmetrics() -> None:
    scores, labels = made(seed=1)
    predicted = scores.argmax(axis=1)
    counts = confusion(predicted, labels, 11)
    theirs = torchmetrics.ConfusionMatrix(task="multiclass", num_classes=11)
    np.testing.assert_array_equal(counts, theirs(torch.from_numpy(predicted), torch.from_numpy(labels)).numpy())
    by_class = torchmetrics.Accuracy(task="multiclass", num_classes=11, average="none")
    expected = 100 * by_class(torch.from_numpy(predicted), torch.from_numpy(labels)).numpy()
    np.testing.assert_allclose(np.array(per_class(counts), float), expected, atol=1e-4)


def test_equal_scores_are_settled_by_class_number_as_argmax_does() -> None:
    assert ranks(np.zeros((3, 3)), [0, 1, 2]).tolist() == [0, 1, 2]
    draws = np.random.default_rng(2)
    scores, labels = draws.integers(3, size=(200, 6)).astype(float), draws.integers(6, size=200)
    assert ((ranks(scores, labels) == 0) == (scores.argmax(axis=1) == labels)).all()


def test_a_class_without_videos_has_no_accuracy_and_is_not_in_the_mean() -> None:
    found = summary([[1, 0, 0], [0, 1, 0], [1, 0, 0]], [0, 1, 1], ["a", "b", "c"])
    assert found["per_class"] == {"a": 100.0, "b": 50.0, "c": None}
    assert found["mean_class"] == 75.0 and found["top1"] == pytest.approx(200 / 3)
    assert "top5" not in found  # of three classes


def test_the_standard_error_is_the_spread_of_repeated_tests() -> None:
    draws = np.random.default_rng(3).binomial(50, 0.7, size=20000) / 50 * 100
    assert standard_error(70, 50) == pytest.approx(draws.std(), rel=0.02)


@pytest.mark.parametrize(
    ("scores", "labels", "word"),
    [([[0.0, np.nan]], [0], "not numbers"), ([[0.0, 1.0]], [2], "labels"), ([[0.0, 1.0]], [0, 1], "shape")],
)
def test_what_cannot_be_scored_is_refused(scores: list[list[float]], labels: list[int], word: str) -> None:
    with pytest.raises(UserError, match=word):
        top_k(scores, labels)
