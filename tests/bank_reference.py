"""What a search of the memory bank must answer, in float64 and one row after the other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Case:
    """A bank's rows and queries."""

    features: Tensor
    valid: Tensor
    groups: Tensor
    query: Tensor
    exclude: Tensor
    exclude_groups: Tensor

    def to(self, device: str) -> Case:
        return Case(**{name: tensor.to(device) for name, tensor in vars(self).items()})


def reference(case: Case, k: int, *, own: bool = True, groups: bool = True) -> tuple[Tensor, Tensor]:
    """Scores (B, k) float64 and rows (B, k): every row looked at, then sorted by score and number."""
    case = case.to("cpu")
    scores = torch.full((len(case.query), k), -torch.inf, dtype=torch.float64)
    rows = torch.full((len(case.query), k), -1)
    table = (case.query.double() @ case.features.double().T).tolist()
    valid, members = case.valid.tolist(), case.groups.tolist()
    for place, line in enumerate(table):
        out = int(case.exclude_groups[place])
        left = [
            row
            for row in range(len(line))
            if valid[row]
            and not (own and row == int(case.exclude[place]))
            and not (groups and out != -1 and members[row] == out)
        ]
        for column, row in enumerate(sorted(left, key=lambda row: (-line[row], row))[:k]):
            scores[place, column], rows[place, column] = line[row], row
    return scores, rows


def exact_case(
    count: int, dim: int, queries: int, dtype: torch.dtype, *, bits: int = 3, valid: float = 0.8, seed: int = 0
) -> Case:
    """Small whole numbers: float32 sums are exact in any order, so that ties are ties, and there are many of them.

    Args:
        count: N.
        dim: D.
        queries: B.
        dtype: Of the rows.
        bits: Of a number in a query; more than the rows' format holds ask for all of its parts.
        valid: Share of rows that hold something.
        seed: Of the numbers.
    """
    torch.manual_seed(seed)
    most = 2**bits - 1
    return Case(
        features=torch.randint(-2, 3, (count, dim)).to(dtype),
        valid=torch.rand(count) < valid,
        groups=torch.arange(count) // 4,
        query=torch.randint(-most, most + 1, (queries, dim)).float(),
        exclude=torch.randint(-1, max(1, count), (queries,)),
        exclude_groups=torch.randint(-1, max(1, count // 4), (queries,)),
    )


def unit_case(count: int, dim: int, queries: int, dtype: torch.dtype, seed: int = 0) -> Case:
    """Random directions, as in training."""
    case = exact_case(count, dim, queries, dtype, seed=seed)
    case.features = torch.nn.functional.normalize(torch.randn(count, dim), dim=1).to(dtype)
    case.query = torch.nn.functional.normalize(torch.randn(queries, dim), dim=1)
    return case
