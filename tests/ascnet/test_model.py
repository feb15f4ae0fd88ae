from __future__ import annotations

import pytest
import torch

from ascnet import ASCNet, build_encoder
from ascnet.loss import squared_distance


def make_model(**options: object) -> ASCNet:
    torch.manual_seed(0)
    encoder = build_encoder("r3d10", width=0.0625)
    sizes = {"projector_hidden": 12, "projector_dim": 6, "predictor_hidden": 10}
    return ASCNet(encoder, **{**sizes, **options}).train()  # type: ignore[arg-type]


def clips(count: int = 4) -> torch.Tensor:
    return torch.randn(count, 3, 4, 16, 16)


def nothing() -> tuple[None, torch.Tensor]:
    return None, torch.zeros(0, dtype=torch.int64)


def test_target_starts_as_a_copy_that_no_gradient_reaches_and_no_optimiser_trains() -> None:
    model = make_model()
    for name, tensor in model.target.state_dict().items():
        assert torch.equal(tensor, model.online.state_dict()[name])
    c_k, found = clips(), torch.arange(4)
    model(clips(), model.appearance_target(clips()), lambda: (c_k, found)).loss.backward()
    for name, parameter in model.named_parameters():
        target = name.startswith("target.")
        assert parameter.requires_grad != target and (parameter.grad is None) == target, name


def test_loss_weighs_speed_by_gamma_and_appearance_by_the_rest() -> None:
    for gamma in (0.0, 0.3, 1.0):
        model = make_model(gamma=gamma)
        c_k = clips()
        losses = model(clips(), model.appearance_target(clips()), lambda c_k=c_k: (c_k, torch.arange(4)))
        assert losses.loss.item() == pytest.approx(gamma * losses.scp.item() + (1 - gamma) * losses.acp.item())


def test_without_positives_the_speed_term_is_left_out() -> None:
    model = make_model(gamma=0.3)
    losses = model(clips(), model.appearance_target(clips()), nothing)
    losses.loss.backward()
    assert losses.loss.item() == pytest.approx(0.7 * losses.acp.item())
    assert losses.scp.isnan() and losses.m_i is None
    heads = [*model.h_m.parameters(), *model.online.g_m.parameters()]
    assert all(parameter.grad is None for parameter in heads)


def test_samples_without_a_positive_have_no_speed_term_and_the_others_keep_their_place() -> None:
    model = make_model(gamma=1.0)
    c_i, c_k, found = clips(5), clips(2), torch.tensor([1, 4])
    losses = model(c_i, model.appearance_target(clips(5)), lambda: (c_k, found))
    m_k = model.motion_target(c_k)
    with torch.no_grad():
        predicted = model.h_m(model.online.g_m(model.online.encoder(c_i)))
    expected = squared_distance(predicted[found], m_k)
    assert losses.scp.item() == pytest.approx(expected.mean().item(), rel=1e-5)
    assert losses.loss.item() == pytest.approx(expected.sum().item() / 5, rel=1e-5)


def test_positives_are_asked_for_after_the_online_encoder_has_run() -> None:
    model, order = make_model(), []
    model.online.encoder.register_forward_hook(lambda *_: order.append("encoder"))

    def retrieve() -> tuple[None, torch.Tensor]:
        order.append("retrieve")
        return nothing()

    model(clips(), model.appearance_target(clips()), retrieve)
    assert order == ["encoder", "retrieve"]


def test_target_normalises_with_the_statistics_of_its_own_batch() -> None:
    model = make_model()
    batch = clips()
    first = model.appearance_target(batch)
    model.target.encoder.stem[1].running_mean.fill_(100.0)  # type: ignore[index, union-attr]
    assert torch.equal(model.appearance_target(batch), first)


def test_heads_and_losses_stay_in_fp32_under_autocast() -> None:
    model = make_model()
    with torch.autocast("cpu", torch.bfloat16):
        a_j = model.appearance_target(clips())
        losses = model(clips(), a_j, lambda: (clips(), torch.arange(4)))
    assert {a_j.dtype, losses.loss.dtype, losses.a_i.dtype, losses.m_i.dtype} == {torch.float32}
