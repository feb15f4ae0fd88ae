"""The consistency loss of both tasks: squared distance between a prediction and a target feature."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def squared_distance(prediction: Tensor, target: Tensor, *, normalize: bool = True) -> Tensor:
    """||prediction - target||^2 of each pair (METHOD: Algorithm 1, lines 7 and 10).

    No gradient flows into the target. Both sides are scaled to length 1 by default, which makes it 2 - 2 cos, between 0
    and 4; the paper prints no normalisation, `normalize=False` takes the features as they are.

    Args:
        prediction: a'_i or m'_i, (B, D).
        target: a_j or m_k, (B, D).
        normalize: Scale both to length 1 first.

    Returns:
        (B,).
    """
    target = target.detach()
    if normalize:
        prediction, target = F.normalize(prediction, dim=-1), F.normalize(target, dim=-1)
    return (prediction - target).square().sum(dim=-1)
