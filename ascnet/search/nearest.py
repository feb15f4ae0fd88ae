"""The k vectors of an index with the largest cosine similarity: by torch, exactly, or by FAISS.

Both only propose: the best few are compared again in double precision, so that who searched makes no difference to
scores and order. Equal scores are settled by place.
"""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ascnet.errors import UserError
from ascnet.search.feature_file import FeatureFile

Backend = Literal["auto", "torch", "faiss"]

# Vectors from which on FAISS is worth its start, and from which on it looks into a part of its lists only.
FAISS_FROM, LISTS_FROM = 100_000, 1_000_000
# Vectors that torch keeps in memory; more are read anew for each search.
MEMORY = 4 << 30
# Proposals beyond k, among which double precision decides.
_SPARE = 16
_RECALL, _SAMPLE, _SAMPLE_K = 0.95, 100, 10


class Nearest(Protocol):
    """Proposes neighbours.

    Attributes:
        told: What it is, in words.
    """

    told: str

    def propose(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Places ``(Q, k)``, -1 for none, and the vectors there, ``(Q, k, D)``, of queries ``(Q, D)`` of length 1."""


@dataclass(frozen=True)
class Found:
    """Neighbours, best first.

    Attributes:
        places: ``(Q, K)`` int64 places in the index; -1 where there are no more.
        scores: ``(Q, K)`` float32 cosine similarities; -inf where there are no more.
    """

    places: NDArray[np.int64]
    scores: NDArray[np.float32]


def choose(
    file: FeatureFile,
    backend: Backend = "auto",
    *,
    device: str | torch.device = "cpu",
    many: bool = True,
    faiss_from: int = FAISS_FROM,
    lists_from: int = LISTS_FROM,
    memory: int = MEMORY,
) -> Nearest:
    """Who searches an index.

    Args:
        file: The index.
        backend: ``auto``: on a GPU torch, else by size and by what is installed.
        many: Whether many queries are to come. For a few, ``auto`` takes torch: it begins to search at once.
        device: Where torch computes.
        faiss_from: Vectors from which on ``auto`` takes FAISS, where it is installed.
        lists_from: Vectors from which on FAISS searches some of its lists only (IVF), and tells its recall.
        memory: Bytes of vectors that torch keeps in memory.

    Raises:
        UserError: FAISS is asked for and not installed.
    """
    device = torch.device(device)
    wanted = backend == "faiss" or (backend == "auto" and many and file.count >= faiss_from and device.type == "cpu")
    faiss = _faiss() if wanted else None
    if faiss is None:
        if backend == "faiss":
            raise UserError("--backend faiss: it is not installed; pip install 'dali-pipes[faiss]', or --backend torch")
        return Exact(file, device, memory)
    if file.count >= lists_from:
        return Lists(file, faiss, Exact(file, device, memory=0))
    return Flat(file, faiss)


def nearest(index: Nearest, queries: NDArray[np.float32], k: int) -> Found:
    """Search.

    Args:
        index: From `choose`.
        queries: ``(Q, D)``, of any length.
        k: Neighbours of each.
    """
    queries = unit(queries)
    places, vectors = index.propose(queries, k + _SPARE)
    similarity = np.einsum("qd,qkd->qk", queries.astype(np.float64), vectors.astype(np.float64))
    scores = np.where(places < 0, -np.inf, similarity).astype(np.float32)
    order = np.lexsort((places, -scores), axis=1)[:, :k]
    return Found(np.take_along_axis(places, order, axis=1), np.take_along_axis(scores, order, axis=1))


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors ``(N, D)`` scaled to length 1; one of zeros is like nothing and stays."""
    wide = vectors.astype(np.float64)
    length = np.linalg.norm(wide, axis=1, keepdims=True)
    return np.asarray(wide / np.where(length > 0, length, 1.0), np.float32)


class Exact:
    """All vectors, by torch: from memory, or where there are too many from the file, a chunk at a time."""

    def __init__(self, file: FeatureFile, device: torch.device, memory: int = MEMORY) -> None:
        self.file, self.device = file, device
        self.chunks: list[torch.Tensor] | None = None
        if 4 * file.count * file.dim <= memory:
            self.chunks = [torch.from_numpy(unit(chunk)).to(device) for chunk in file.chunks()]
        self.told = f"torch, exact, {file.count} vectors {'on disk' if self.chunks is None else f'on {device}'}"

    def propose(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        asked = torch.from_numpy(queries).to(self.device)
        scores = torch.full((len(queries), 0), -torch.inf, device=self.device)
        places = torch.zeros((len(queries), 0), dtype=torch.int64, device=self.device)
        vectors = torch.zeros((len(queries), 0, queries.shape[1]), device=self.device)
        first = 0
        loaded = self.chunks or (torch.from_numpy(unit(chunk)).to(self.device) for chunk in self.file.chunks())
        for chunk in loaded:
            best, at = (asked @ chunk.T).topk(min(k, len(chunk)), dim=1)
            scores = torch.cat([scores, best], dim=1)
            places = torch.cat([places, at + first], dim=1)
            vectors = torch.cat([vectors, chunk[at]], dim=1)
            scores, kept = scores.topk(min(k, scores.shape[1]), dim=1)
            places = places.gather(1, kept)
            vectors = vectors.gather(1, kept[..., None].expand(-1, -1, vectors.shape[2]))
            first += len(chunk)
        return places.cpu().numpy(), vectors.cpu().numpy()


class Flat:
    """All vectors, by FAISS."""

    def __init__(self, file: FeatureFile, faiss: Any) -> None:
        self.index = faiss.IndexFlatIP(file.dim)
        for chunk in file.chunks():
            self.index.add(unit(chunk))
        self.told = f"FAISS, exact, {file.count} vectors"

    def propose(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        return _reconstructed(self.index, queries, min(k, self.index.ntotal))


class Lists:
    """Some of the lists into which k-means has divided the vectors, by FAISS; as many as the recall asks for.

    The recall is that of the ten nearest of a sample of the index's own vectors, against the exact search.
    """

    def __init__(self, file: FeatureFile, faiss: Any, exact: Exact) -> None:
        lists = max(1, min(file.count // 40, round(4 * math.sqrt(file.count))))
        self.index = faiss.index_factory(file.dim, f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT)
        # Enough for k-means: FAISS asks for 40 a list and uses 256.
        keep = min(1.0, 64 * lists / file.count)
        generator = np.random.default_rng(0)
        sample = np.concatenate([chunk[generator.random(len(chunk)) <= keep] for chunk in file.chunks()])
        self.index.train(unit(sample))
        for chunk in file.chunks():
            self.index.add(unit(chunk))
        self.index.make_direct_map()
        queries = sample[generator.permutation(len(sample))[:_SAMPLE]]
        k = min(_SAMPLE_K, file.count)
        truth = nearest(exact, queries, k).places
        probes, recall = 0, 0.0
        while recall < _RECALL and probes < lists:
            probes = min(max(1, 2 * probes), lists)
            self.index.nprobe = probes
            found = nearest(self, queries, k).places
            recall = float(np.mean([len(set(a) & set(b)) / k for a, b in zip(found, truth, strict=True)]))
        self.told = (
            f"FAISS, {probes} of {lists} lists of {file.count} vectors: "
            f"{100 * recall:.1f} % of the {k} nearest of {len(queries)} of them are found"
        )

    def propose(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        return _reconstructed(self.index, queries, min(k, self.index.ntotal))


def _reconstructed(index: Any, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    _, places, vectors = index.search_and_reconstruct(np.ascontiguousarray(queries), k)
    # Where a list has no more, FAISS fills up with NaN.
    return np.asarray(places, np.int64), np.where(places[..., None] < 0, 0, vectors).astype(np.float32)


def _faiss() -> Any:
    try:
        return importlib.import_module("faiss")
    except ImportError:
        return None
