"""Votes of the nearest neighbours, against one query at a time, and as a monitor of training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from colour_videos import colour_corpus
from torch import nn
from training_data import tiny
from video_rows import row

from ascnet.build import build_model
from ascnet.cli import main
from ascnet.errors import UserError
from ascnet.evaluate.features import Features
from ascnet.evaluate.knn import KnnMonitor, classify, votes
from ascnet.evaluate.retrieve import neighbours
from ascnet.parallel.distributed import World
from dali_pipes import Corpus


def literal(
    query: np.ndarray, gallery: np.ndarray, labels: np.ndarray, classes: int, k: int, temperature: float
) -> tuple[np.ndarray, np.ndarray]:
    """Weighted sums and counts, one query and one neighbour at a time, as in DINO's knn evaluation."""
    weighted, counted = np.zeros((2, len(query), classes))
    for number, one in enumerate(query):
        cosine = np.array([one @ other / np.linalg.norm(one) / np.linalg.norm(other) for other in gallery])
        for place in np.argsort(-cosine)[:k]:
            weighted[number, labels[place]] += np.exp(cosine[place] / temperature)
            counted[number, labels[place]] += 1
    return weighted, counted


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (5, 0.07), (20, 0.07), (20, 1.0), (300, 0.2)])
def test_votes_are_those_counted_one_by_one(k: int, temperature: float) -> None:
    draws = np.random.default_rng(0)
    query, gallery, labels = draws.normal(size=(30, 8)), draws.normal(size=(200, 8)), draws.integers(7, size=200)
    found = neighbours(query, gallery, k)
    weighted, counted = votes(found, labels, 7, temperature=temperature)
    expected, numbers = literal(query, gallery, labels, 7, k, temperature)
    share = weighted / weighted.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(share, expected / expected.sum(axis=1, keepdims=True), rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(np.floor(counted + 1e-9 - 0.5 * share + 0.5), numbers)


def test_equal_numbers_of_votes_are_settled_by_weight() -> None:
    gallery = np.array([[1.0, 0.0], [0.0, 1.0]])
    _, counted = votes(neighbours([[0.6, 0.8]], gallery, 2), [0, 1], 2)
    assert counted.argmax(axis=1).tolist() == [1]


def test_a_low_temperature_does_not_overflow() -> None:
    weighted, _ = votes(neighbours([[1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]], 2), [1, 0], 2, temperature=1e-4)
    assert np.isfinite(weighted).all() and weighted.argmax() == 1


def test_neighbours_without_a_label_do_not_vote() -> None:
    weighted, counted = votes(neighbours([[1.0, 0.0]], [[1.0, 0.1], [0.0, 1.0]], 2), [-1, 1], 2)
    assert weighted[0, 0] == counted[0, 0] == 0 and weighted[0, 1] > 0


def test_a_split_compared_with_itself_leaves_out_a_videos_own_group() -> None:
    # Twins have one label and one feature; everything else is of the other class.
    rows = [row(n, 10, label="ab"[n // 2 % 2], group=f"g{n // 2}") for n in range(8)]
    corpus = Corpus.from_rows(rows)
    vectors = np.random.default_rng(0).normal(size=(4, 6)).repeat(2, axis=0).astype(np.float32)
    features = Features(np.arange(8), vectors)
    assert classify(features, features, corpus, k=1).top1 == 100
    alone = classify(features, features, corpus, k=1, apart=True)
    found = neighbours(vectors, vectors, 1, query_videos=corpus.groups, gallery_videos=corpus.groups)
    expected = 100 * (corpus.labels[found.places[:, 0]] == corpus.labels).mean()
    assert alone.top1 == expected < 100


class MeanColour(nn.Module):
    """The mean of each channel as the feature: tells these classes apart without learning."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm3d(3)
        self.draw = nn.Dropout()

    def features(self, x: torch.Tensor) -> torch.Tensor:
        assert not self.training
        return self.draw(self.norm(x))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return colour_corpus(tmp_path_factory.mktemp("colours"), train=4, test=2)


def test_the_monitor_scores_an_encoder_and_leaves_it_and_the_random_numbers_as_they_were(corpus: Corpus) -> None:
    encoder = MeanColour().train()
    before, state = encoder.norm.running_mean.clone(), torch.get_rng_state()
    monitor = KnnMonitor(corpus, tiny().to_dict(), world=World(torch.device("cpu")), query_split="test", k=3, threads=1)
    found = monitor(encoder)
    assert found == {"knn/top1": 100.0, "knn/majority": 100.0, "knn/queries": 6.0}
    assert encoder.training and torch.equal(encoder.norm.running_mean, before)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_monitor_does_not_look_at_the_test_split_unless_asked_to(corpus: Corpus) -> None:
    world = World(torch.device("cpu"))
    assert KnnMonitor(corpus, tiny().to_dict(), world=world, k=3, threads=1)(MeanColour())["knn/queries"] == 12
    few = KnnMonitor(corpus, tiny().to_dict(), world=world, k=3, videos=5, threads=1)(MeanColour())
    assert few["knn/queries"] == 5


def test_the_monitor_needs_labels(corpus: Corpus) -> None:
    unlabelled = Corpus.from_rows([row(0, 20, split="train")])
    with pytest.raises(UserError, match="label"):
        KnnMonitor(unlabelled, tiny().to_dict(), world=World(torch.device("cpu")))


def test_the_command_writes_scores_and_protocol(
    corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ascnet import checkpoint

    run = tmp_path / "run"
    config = tiny()
    checkpoint.save(run, 0, {"model": build_model(config).state_dict(), "config": config.to_dict()}, keep=1)
    words = ["knn", "--checkpoint", str(run), "--corpus", str(corpus.path), "--k", "3", "--clips", "2"]
    assert main([*words, "--threads", "1", "--device", "cpu"]) == 0
    kept = json.loads((run / "knn" / "knn.json").read_text())
    assert kept["queries"] == 6 and kept["gallery"] == 12 and kept["protocol"]["k"] == 3
    assert 0 <= kept["top1"] <= 100 and f"{kept['top1']:.2f} %" in capsys.readouterr().out
    assert main(["knn", "--corpus", str(corpus.path)]) == 2
    assert "--checkpoint" in capsys.readouterr().err
