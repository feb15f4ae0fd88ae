"""Who searches the same rows: our memory bank, plain torch as one writes it, and FAISS."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ascnet.bank.memory_bank import MemoryBank

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Rows are made and checked in parts of this size, so that neither takes much memory beside the rows themselves.
PART = 64 << 20
# Of scores between rows of length 1. Rounding may exchange rows whose scores are this close, and no others.
TOLERANCE = 1e-5
# At least so many, for one alone may be answered right by luck.
QUERIES = 64


@dataclass(frozen=True)
class Setting:
    """The rows of a bank, and the most queries and neighbours that it is asked for.

    Attributes:
        rows: N.
        dim: D.
        dtype: Name of the number format of the rows.
        batch: Largest number of queries in a search, B.
        k: Neighbours of a query.
        device: Where the rows lie.
    """

    rows: int
    dim: int
    dtype: str
    batch: int
    k: int
    device: torch.device

    @property
    def name(self) -> str:
        return f"{self.rows} x {self.dim} {self.dtype}"

    @property
    def numbers(self) -> int:
        return self.rows * self.dim

    @property
    def bank_bytes(self) -> int:
        """Bytes of a bank: features, `valid`, `groups`."""
        return self.numbers * DTYPES[self.dtype].itemsize + 9 * self.rows


class Searcher(ABC):
    """One way to find the k rows with the largest dot product.

    Attributes:
        notes: What it does, in a line.
    """

    notes: ClassVar[str]

    def __init__(self, bank: MemoryBank) -> None:
        self.bank = bank

    @staticmethod
    def refuses(setting: Setting) -> str:
        """Why it cannot search these rows; empty where it can."""
        return ""

    @staticmethod
    @abstractmethod
    def needs(setting: Setting) -> tuple[int, int]:
        """Bytes that it keeps, and bytes that it takes for the time of a search, beside the bank itself."""

    @abstractmethod
    def search(self, query: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Scores and rows, (B, k) each, best first, of queries (B, D) of length 1."""


class Writer(Searcher):
    """One that can also write rows in place."""

    @abstractmethod
    def update(self, videos: Tensor, features: Tensor) -> None:
        """Writes features (B, D) to the rows of videos (B,), scaled to length 1."""


class Ours(Writer):
    """`MemoryBank.nearest`, by whichever search its plan chooses."""

    notes = "ascnet.MemoryBank"

    @staticmethod
    def needs(setting: Setting) -> tuple[int, int]:
        return 0, 256 << 20

    def search(self, query: Tensor, k: int) -> tuple[Tensor, Tensor]:
        return self.bank.nearest(query, k=k)

    def update(self, videos: Tensor, features: Tensor) -> None:
        self.bank.update(videos, features)


class Plain(Writer):
    """The line that one writes first. In half precision the scores are rounded to it, too, which exchanges rows."""

    notes = "(query.to(rows.dtype) @ rows.T).topk(k)"

    @staticmethod
    def needs(setting: Setting) -> tuple[int, int]:
        return 0, setting.rows * setting.batch * DTYPES[setting.dtype].itemsize

    def search(self, query: Tensor, k: int) -> tuple[Tensor, Tensor]:
        rows = self.bank.features
        scores, found = (query.to(rows.dtype) @ rows.T).topk(k)
        return scores, found

    def update(self, videos: Tensor, features: Tensor) -> None:
        rows = self.bank.features
        rows[videos] = F.normalize(features, dim=1).to(rows.dtype)


class PlainWide(Searcher):
    """The same with the scores in float32, for which all rows are converted."""

    notes = "(query @ rows.float().T).topk(k)"

    @staticmethod
    def refuses(setting: Setting) -> str:
        return "rows are float32: the same as torch" if setting.dtype == "fp32" else ""

    @staticmethod
    def needs(setting: Setting) -> tuple[int, int]:
        return 0, setting.rows * (setting.batch + setting.dim) * 4

    def search(self, query: Tensor, k: int) -> tuple[Tensor, Tensor]:
        scores, found = (query @ self.bank.features.float().T).topk(k)
        return scores, found


class Faiss(Searcher):
    """FAISS's exact indexes, which hold a copy of the rows."""

    notes = "IndexFlatIP; half precision: IndexScalarQuantizer, on a GPU GpuIndexFlat with useFloat16"

    def __init__(self, bank: MemoryBank) -> None:
        super().__init__(bank)
        faiss: Any = import_module("faiss")
        count, dim = bank.features.shape
        half = bank.features.dtype.itemsize == 2
        if bank.features.is_cuda:
            import_module("faiss.contrib.torch_utils")  # so that indexes take torch's tensors
            device = bank.features.device
            config = faiss.GpuIndexFlatConfig()
            config.useFloat16 = half
            config.device = torch.cuda.current_device() if device.index is None else device.index
            self._resources = faiss.StandardGpuResources()
            self._index = faiss.GpuIndexFlatIP(self._resources, dim, config)
        else:
            faiss.omp_set_num_threads(torch.get_num_threads())
            if half:
                number = "QT_fp16" if bank.features.dtype == torch.float16 else "QT_bf16"
                kind = getattr(faiss.ScalarQuantizer, number)
                self._index = faiss.IndexScalarQuantizer(dim, kind, faiss.METRIC_INNER_PRODUCT)
            else:
                self._index = faiss.IndexFlatIP(dim)
        for start in range(0, count, _part(dim)):
            rows = bank.features[start : start + _part(dim)].float()
            self._index.add(rows if rows.is_cuda else rows.numpy())

    @staticmethod
    def refuses(setting: Setting) -> str:
        try:
            faiss: Any = import_module("faiss")
        except ImportError as error:
            return f"cannot be imported: {error}"
        if setting.device.type == "cuda":
            if not hasattr(faiss, "StandardGpuResources") or not faiss.get_num_gpus():
                return f"faiss {faiss.__version__} as installed has no GPU index (faiss-gpu has)"
            if setting.dtype == "bf16":
                return "its GPU index holds float32 or float16"
        elif setting.dtype == "bf16" and not hasattr(faiss.ScalarQuantizer, "QT_bf16"):
            return f"faiss {faiss.__version__} has no bfloat16 rows"
        return ""

    @staticmethod
    def needs(setting: Setting) -> tuple[int, int]:
        # On a GPU it takes 1.5 GiB for its searches when it is made.
        scratch = 3 << 29 if setting.device.type == "cuda" else 0
        # Room for rows is doubled while they are added, and what is not needed is kept.
        return 2 * setting.numbers * DTYPES[setting.dtype].itemsize + scratch, PART

    def search(self, query: Tensor, k: int) -> tuple[Tensor, Tensor]:
        scores, rows = self._index.search(query if query.is_cuda else query.numpy(), k)
        return torch.as_tensor(scores), torch.as_tensor(rows)


SEARCHERS: dict[str, type[Searcher]] = {"ours": Ours, "torch": Plain, "torch-fp32": PlainWide, "faiss": Faiss}


def make_bank(setting: Setting, seed: int) -> tuple[MemoryBank, Tensor]:
    """A full bank of random directions, as in training, and queries for its largest batch and for comparing."""
    dtype = DTYPES[setting.dtype]
    bank = MemoryBank(setting.rows, setting.dim, device=setting.device, dtype=dtype)
    draws = torch.Generator(setting.device).manual_seed(seed)
    for start in range(0, setting.rows, _part(setting.dim)):
        rows = bank.features[start : start + _part(setting.dim)]
        rows.copy_(F.normalize(torch.randn(rows.shape, device=setting.device, generator=draws), dim=1))
    bank.valid.fill_(True)
    query = torch.randn(max(QUERIES, setting.batch), setting.dim, device=setting.device, generator=draws)
    return bank, F.normalize(query, dim=1)


def reference(rows: Tensor, query: Tensor, k: int) -> Tensor:
    """The k largest dot products of each query in float64, (B, k), best first."""
    best = torch.empty(len(query), 0, dtype=torch.float64, device=rows.device)
    wide = query.double()
    size = max(1, PART // (8 * (rows.shape[1] + len(query))))
    for start in range(0, len(rows), size):
        scores = wide @ rows[start : start + size].double().T
        best = torch.cat([best, scores], dim=1)
        best = best.topk(min(k, best.shape[1])).values
    return best


def differs(rows: Tensor, query: Tensor, expected: Tensor, found: Tensor) -> str:
    """What is wrong with rows found (B, k) for queries (B, D); empty where they are as good as the reference's.

    The found rows' own scores, in float64, are held against the reference's: which of two equal rows comes first is
    left open, as is the order of those that rounding cannot tell apart.
    """
    found = found.to(rows.device, torch.int64)
    if found.shape != expected.shape:
        return f"gives {tuple(found.shape)} rows for {tuple(expected.shape)}"
    if bool(((found < 0) | (found >= len(rows))).any()):
        return "gives numbers that are no rows"
    ordered = found.sort(dim=1).values
    if bool((ordered[:, 1:] == ordered[:, :-1]).any()):
        return "gives a row twice"
    scores = torch.einsum("bd,bkd->bk", query.double(), rows[found].double())
    away = (scores - expected).abs() > TOLERANCE
    wrong = int(away.any(dim=1).sum())
    return f"other rows for {wrong} of {len(query)} queries" if wrong else ""


def _part(dim: int) -> int:
    """Rows of float32 in a part."""
    return max(1, PART // (4 * dim))
