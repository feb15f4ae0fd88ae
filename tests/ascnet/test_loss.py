from __future__ import annotations

import pytest
import torch

from ascnet.loss import squared_distance


def test_raw_loss_is_the_squared_euclidean_distance_of_each_pair() -> None:
    prediction, target = torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[0.0, 0.0], [1.0, 2.0]])
    assert squared_distance(prediction, target, normalize=False).tolist() == [25.0, 4.0]


def test_normalised_loss_is_2_minus_2_cos_whatever_the_lengths() -> None:
    prediction = torch.tensor([[5.0, 0.0], [5.0, 0.0], [5.0, 0.0]])
    target = torch.tensor([[0.1, 0.0], [0.0, 7.0], [-3.0, 0.0]])
    assert squared_distance(prediction, target).tolist() == pytest.approx([0.0, 2.0, 4.0])


def test_no_gradient_reaches_the_target() -> None:
    prediction, target = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4, requires_grad=True)
    squared_distance(prediction, target).sum().backward()
    assert prediction.grad is not None and target.grad is None
