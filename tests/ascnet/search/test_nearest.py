"""Exact search against a slow literal one; memory, disk and FAISS give the same."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from search_index import make_checkpoint, make_corpus, make_recipe

from ascnet.errors import UserError
from ascnet.search import nearest as searching
from ascnet.search.feature_file import FeatureFile, write
from ascnet.search.nearest import choose, nearest, unit
from ascnet.search.parts import PLACE, Part, Parts
from dali_pipes import Corpus

needs_faiss = pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="faiss is not installed")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("sources")
    return make_corpus(folder / "videos", 2), make_checkpoint(folder / "encoder.pt")


def file_of(vectors: np.ndarray, target: Path, sources: tuple[Path, Path], size: int = 100) -> FeatureFile:
    """Vectors as a file of features, in parts of `size`."""
    recipe = make_recipe(sources[1], sources[0], per_clip=True)
    parts = Parts(target, recipe, np.arange(len(vectors)), size)
    for number in range(len(parts)):
        rows = parts.of(number)
        places = np.zeros(len(rows), PLACE)
        places["start"] = rows
        parts.save(number, Part(places, vectors[rows].astype(np.float32), {}))
    return write(target, recipe, Corpus.open(sources[0]), parts)


def literal(queries: np.ndarray, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    scores = np.array([[float(np.dot(q, v) / np.linalg.norm(q) / np.linalg.norm(v)) for v in vectors] for q in queries])
    places = np.argsort(-scores.round(6), axis=1, kind="stable")[:, :k]
    return places, np.take_along_axis(scores, places, axis=1)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    drawn = np.random.default_rng(0).normal(size=(450, 24)).astype(np.float32)
    drawn[200:220] = 4 * drawn[:20]  # the same directions to the last bit: ties, settled by place
    return drawn


@pytest.mark.parametrize("name", ["f.parquet", "f.npy"])
@pytest.mark.parametrize("memory", [1 << 20, 0], ids=["memory", "disk"])
def test_torch_finds_what_a_literal_search_finds(
    name: str, memory: int, vectors: np.ndarray, sources: tuple[Path, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("ascnet.search.feature_file.CHUNK_BYTES", 4 * 24 * 70)
    index = choose(file_of(vectors, tmp_path / name, sources), "torch", memory=memory)
    assert ("on disk" in index.told) == (memory == 0)
    found = nearest(index, vectors[:30], 9)
    places, scores = literal(vectors[:30], vectors, 9)
    np.testing.assert_array_equal(found.places, places)
    np.testing.assert_allclose(found.scores, scores, atol=1e-6)
    assert found.places[3, :2].tolist() == [3, 203]


def test_more_neighbours_than_vectors_are_all_vectors(sources: tuple[Path, Path], tmp_path: Path) -> None:
    index = choose(file_of(np.eye(3), tmp_path / "f.npy", sources), "torch")
    found = nearest(index, np.array([[0, 2, 0.5]]), 10)
    assert found.places.tolist() == [[1, 2, 0]]


def test_a_vector_of_zeros_is_like_nothing(sources: tuple[Path, Path], tmp_path: Path) -> None:
    assert unit(np.zeros((1, 4), np.float32)).tolist() == [[0, 0, 0, 0]]
    index = choose(file_of(np.array([[0.0, 0], [0, -1]]), tmp_path / "f.npy", sources), "torch")
    found = nearest(index, np.array([[0, 1.0]]), 2)
    assert found.places.tolist() == [[0, 1]] and found.scores.tolist() == [[0, -1]]


def test_faiss_that_is_not_there_is_a_mistake_only_where_it_was_asked_for(
    vectors: np.ndarray, sources: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "_faiss", lambda: None)
    file = file_of(vectors, tmp_path / "f.npy", sources)
    assert choose(file, "auto", faiss_from=10).told.startswith("torch")
    with pytest.raises(UserError, match=r"pip install 'dali-pipes\[faiss\]'"):
        choose(file, "faiss")


@needs_faiss
def test_faiss_finds_the_same_as_torch(vectors: np.ndarray, sources: tuple[Path, Path], tmp_path: Path) -> None:
    file = file_of(vectors, tmp_path / "f.parquet", sources)
    assert choose(file, "auto").told.startswith("torch")
    index = choose(file, "auto", faiss_from=400)
    assert index.told == "FAISS, exact, 450 vectors"
    one, two = (nearest(way, vectors, 12) for way in (choose(file, "torch"), index))
    np.testing.assert_array_equal(one.places, two.places)
    np.testing.assert_array_equal(one.scores, two.scores)


@needs_faiss
def test_faiss_in_lists_tells_a_recall_that_is_true(sources: tuple[Path, Path], tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    centres = generator.normal(size=(30, 16))
    drawn = (centres[generator.integers(30, size=4000)] + 0.4 * generator.normal(size=(4000, 16))).astype(np.float32)
    file = file_of(drawn, tmp_path / "f.npy", sources, size=1000)
    index = choose(file, "faiss", lists_from=4000)
    assert "lists" in index.told and "% of the 10 nearest" in index.told
    truth, found = (nearest(way, drawn[:300], 10) for way in (choose(file, "torch"), index))
    hits = [len(set(a) & set(b)) / 10 for a, b in zip(truth.places, found.places, strict=True)]
    assert np.mean(hits) > 0.9
    assert torch.isfinite(torch.from_numpy(found.scores)).all()
