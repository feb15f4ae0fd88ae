"""The trainer against Algorithm 1 written out literally: float64, plain functions, no code shared with ascnet."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from training_data import MadeCorpus, MadeLoader, MadeStream, make_clip, open_made, tiny

from ascnet import checkpoint
from ascnet.build import build_bank, build_model
from ascnet.optim import build_optimizer
from ascnet.parallel.distributed import World
from ascnet.precision import Precision
from ascnet.pretrain import pretrain
from ascnet.retrieval import LookAhead, PositiveSearch
from ascnet.training.train_step import TrainStep

Weights = dict[str, Tensor]
Size = int | tuple[int, ...]
GAMMA, LR, MOMENTUM, DECAY, EMA, STEPS = 0.3, 0.05, 0.9, 0.01, 0.9, 5
CPU = torch.device("cpu")
SETTINGS = (
    f"gamma={GAMMA}", f"optim.lr={LR}", "optim.scale_lr=false", f"optim.momentum={MOMENTUM}",
    f"optim.weight_decay={DECAY}", "optim.final_lr_ratio=0.1", f"ema.momentum={EMA}", "ema.final=1",
    "retrieval.lookahead=0", "precision=fp64", f"steps={STEPS}", "checkpoint.interval=1", "checkpoint.keep=9", "seed=3",
)  # fmt: skip


class Literal:
    """State and single step of Algorithm 1."""

    def __init__(self, weights: Weights, normalize: bool) -> None:
        self.weights = {name: tensor.detach().clone() for name, tensor in weights.items()}
        self.normalize = normalize
        self.velocity: Weights = {}
        self.bank: dict[int, Tensor] = {}

    def batch_norm(self, name: str, x: Tensor) -> Tensor:
        axes = [axis for axis in range(x.ndim) if axis != 1]
        count = x.numel() // x.shape[1]
        shape = [1, -1] + [1] * (x.ndim - 2)
        mean = x.sum(axes) / count
        variance = ((x - mean.view(shape)) ** 2).sum(axes) / count
        running = (f"{name}.running_mean", mean), (f"{name}.running_var", variance * count / (count - 1))
        for key, value in running:
            self.weights[key] = 0.9 * self.weights[key] + 0.1 * value.detach()
        x = (x - mean.view(shape)) / (variance.view(shape) + 1e-5).sqrt()
        if f"{name}.weight" not in self.weights:
            return x
        return x * self.weights[f"{name}.weight"].view(shape) + self.weights[f"{name}.bias"].view(shape)

    def conv(self, name: str, x: Tensor, stride: Size = 1, padding: Size = 1) -> Tensor:
        return F.conv3d(x, self.weights[f"{name}.weight"], None, stride, padding)

    def f(self, which: str, x: Tensor) -> Tensor:
        at = f"{which}.encoder"
        x = self.batch_norm(f"{at}.stem.1", self.conv(f"{at}.stem.0", x, (1, 2, 2), (1, 3, 3))).clamp(min=0)
        for layer in (1, 2, 3, 4):
            block, stride = f"{at}.layer{layer}.0", 1 if layer == 1 else 2
            y = self.batch_norm(f"{block}.conv1.1", self.conv(f"{block}.conv1.0", x, stride)).clamp(min=0)
            y = self.batch_norm(f"{block}.conv2.1", self.conv(f"{block}.conv2.0", y))
            if layer > 1:
                x = self.batch_norm(f"{block}.downsample.1", self.conv(f"{block}.downsample.0", x, stride, 0))
            x = (x + y).clamp(min=0)
        return x.flatten(2).sum(2) / x[0, 0].numel()

    def head(self, name: str, x: Tensor) -> Tensor:
        x = self.batch_norm(f"{name}.1", x @ self.weights[f"{name}.0.weight"].T).clamp(min=0)
        x = x @ self.weights[f"{name}.3.weight"].T + self.weights[f"{name}.3.bias"]
        return self.batch_norm(f"{name}.4", x) if f"{name}.4.running_mean" in self.weights else x

    def unit(self, x: Tensor) -> Tensor:
        return torch.stack([row / sum(value**2 for value in row).sqrt() for row in x]) if self.normalize else x

    def distance(self, prediction: Tensor, target: Tensor) -> Tensor:
        pairs = zip(self.unit(prediction), self.unit(target), strict=True)
        return torch.stack([sum((p - z) ** 2 for p, z in zip(u, v, strict=True)) for u, v in pairs])

    def retrieve(self, videos: list[int], a_j: Tensor) -> list[int | None]:
        found: list[int | None] = []
        for video, query in zip(videos, self.unit(a_j), strict=True):
            gallery = {other: float(query @ feature) for other, feature in self.bank.items() if other != video}
            found.append(max(gallery, key=lambda other: gallery[other]) if gallery else None)
        return found

    def step(
        self, loader: MadeLoader, epoch: int, positions: list[int], lr: float, momentum: float
    ) -> dict[str, float]:
        requests = [loader.request(epoch, position) for position in positions]
        videos = [request.video for request in requests]
        c_i = torch.stack([make_clip(request, 0) for request in requests])
        c_j = torch.stack([make_clip(request, 1) for request in requests])
        trained = [name for name in self.weights if not name.startswith("target.") and not is_buffer(name)]
        for name in trained:
            self.weights[name].requires_grad_()

        x_i = self.f("online", c_i)
        with torch.no_grad():
            a_j = self.head("target.g_a", self.f("target", c_j))
        a_i = self.head("online.g_a", x_i)
        l_a = self.distance(self.head("h_a", a_i), a_j)
        loss = (1 - GAMMA) * l_a.sum() / len(videos)
        l_m = torch.full((len(videos),), math.nan)
        self.found = self.retrieve(videos, a_j)
        if self.found[0] is not None:
            c_k = []
            for video, position, request in zip(self.found, positions, requests, strict=True):
                assert video is not None
                asked = loader.sampler.single(video, request.views[0].speed, epoch=epoch, position=position, role=1)
                c_k.append(make_clip(asked, 0))
            with torch.no_grad():
                m_k = self.head("target.g_m", self.f("target", torch.stack(c_k)))
            l_m = self.distance(self.head("h_m", self.head("online.g_m", x_i)), m_k)
            loss = loss + GAMMA * l_m.sum() / len(videos)

        used = torch.autograd.grad(loss, [self.weights[name] for name in trained], allow_unused=True)
        self.gradients = {name: g for name, g in zip(trained, used, strict=True) if g is not None}
        for name in trained:
            self.weights[name] = self.weights[name].detach()
        for name, gradient in self.gradients.items():
            change = gradient + DECAY * self.weights[name]
            self.velocity[name] = MOMENTUM * self.velocity[name] + change if name in self.velocity else change
            self.weights[name] = self.weights[name] - lr * self.velocity[name]
        for name in self.weights:
            if name.startswith("target.") and not is_buffer(name):
                online = self.weights[name.replace("target.", "online.", 1)]
                self.weights[name] = momentum * self.weights[name] + (1 - momentum) * online
        self.bank.update(zip(videos, self.unit(a_i.detach()), strict=True))
        return {"loss": loss.item(), "loss_acp": l_a.mean().item(), "loss_scp": l_m.mean().item()}


def is_buffer(name: str) -> bool:
    return "running_" in name or name.endswith("num_batches_tracked")


def assert_weights(ours: Weights, literal: Literal) -> None:
    for name, expected in literal.weights.items():
        if name.endswith("num_batches_tracked"):
            continue
        torch.testing.assert_close(ours[name], expected, rtol=1e-9, atol=1e-11, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize(("normalize", "norm"), [(True, False), (True, True), (False, False)])
@pytest.mark.parametrize("channels_last", [True, False])
def test_every_step_of_a_run_equals_algorithm_1_to_the_letter(
    tmp_path: Path, normalize: bool, norm: bool, channels_last: bool
) -> None:
    model = f"model.normalize={normalize}", f"model.projector_norm={norm}"
    config = tiny(*SETTINGS, *model, f"channels_last={channels_last}")
    corpus = MadeCorpus(12)
    summary = pretrain(config, corpus, tmp_path, open_data=open_made)  # type: ignore[arg-type]
    assert summary["steps"] == STEPS

    torch.manual_seed(3)
    literal = Literal(build_model(config).double().state_dict(), normalize)
    loader = MadeLoader(config, corpus, CPU)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    for step in range(STEPS):
        lr = LR * (0.1 + 0.9 * (1 + math.cos(math.pi * step / STEPS)) / 2)
        momentum = 1 - (1 - EMA) * (math.cos(math.pi * step / STEPS) + 1) / 2
        epoch, place = divmod(step, 3)
        expected = literal.step(loader, epoch, list(range(4 * place, 4 * place + 4)), lr, momentum)
        written, saved = json.loads(lines[step]), checkpoint.load(tmp_path / f"checkpoints/step_{step + 1:08d}.pt")
        for name, value in expected.items():
            assert written[name] == (None if math.isnan(value) else pytest.approx(value, rel=1e-9)), (step, name)
        assert written["scp_share"] == (0 if step == 0 else 1)
        assert written["lr"] == pytest.approx(lr) and written["ema_momentum"] == pytest.approx(momentum)
        norm = math.sqrt(sum(float((g**2).sum()) for g in literal.gradients.values()))
        assert written["grad_norm"] == pytest.approx(norm, rel=1e-9)
        assert_weights(saved["model"], literal)
        assert saved["bank"]["valid"].nonzero()[:, 0].tolist() == sorted(literal.bank)
        for video, feature in literal.bank.items():
            torch.testing.assert_close(saved["bank"]["features"][video], feature, rtol=1e-9, atol=1e-11)


def test_gradients_of_one_step_with_a_filled_bank_equal_algorithm_1() -> None:
    config = tiny(*SETTINGS)
    corpus, precision = MadeCorpus(12), Precision("fp64", CPU)
    model = build_model(config).double().train()
    literal = Literal(model.state_dict(), True)
    bank = build_bank(config, corpus, CPU, precision)  # type: ignore[arg-type]
    features = torch.from_numpy(np.random.default_rng(0).normal(size=(12, 6)))
    bank.update(torch.arange(12), features)
    literal.bank = {video: feature / feature.norm() for video, feature in enumerate(features)}

    loader, stream = MadeLoader(config, corpus, CPU), MadeStream(CPU)
    search = PositiveSearch(bank, config.retrieval, config.seed)
    ahead = LookAhead(loader, stream, model.appearance_target, search, depth=0, total=1)
    optimizer = build_optimizer(model, config.optim)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    item = ahead.next()
    TrainStep(model, optimizer, scaler, bank, config, precision, World(CPU))(item, ahead, EMA)

    literal.step(loader, 0, [0, 1, 2, 3], LR, EMA)
    assert item.chosen[0].tolist() == literal.found
    parameters = dict(model.named_parameters())
    assert literal.gradients.keys() == {name for name, parameter in parameters.items() if parameter.requires_grad}
    for name, gradient in literal.gradients.items():
        torch.testing.assert_close(parameters[name].grad, gradient, rtol=1e-8, atol=1e-11)
    assert_weights(model.state_dict(), literal)
