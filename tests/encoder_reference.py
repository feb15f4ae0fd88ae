"""Encoders' arithmetic once more, as functions of a plain dictionary of weights: no module of the package is used."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = dict[str, Tensor]


def scrambled(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """The module in evaluation mode, every weight and statistic random, so that no two terms can be exchanged."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2.0, generator=generator)
        elif tensor.is_floating_point() and tensor.dim() == 1:
            tensor.normal_(0.5, 0.3, generator=generator)
        elif tensor.is_floating_point():
            tensor.normal_(0.0, (2 / tensor[0].numel()) ** 0.5, generator=generator)
    return module.eval()


def norm(x: Tensor, w: Weights, at: str, eps: float = 1e-5) -> Tensor:
    mean, var, scale, shift = (w[f"{at}.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
    shape = (1, -1, 1, 1, 1)
    return (x - mean.view(shape)) / torch.sqrt(var.view(shape) + eps) * scale.view(shape) + shift.view(shape)


def conv(x: Tensor, w: Weights, at: str, stride: tuple[int, int, int] = (1, 1, 1)) -> Tensor:
    kernel = w[f"{at}.weight"]
    padding = tuple(size // 2 for size in kernel.shape[2:])
    return F.conv3d(x, kernel, w.get(f"{at}.bias"), stride, padding)


def residual_network(
    x: Tensor, w: Weights, *, pool: bool = False, stem_stride: tuple[int, int, int] = (1, 2, 2)
) -> Tensor:
    """torchvision's R3D-18 or R(2+1)D-18, by whether a block's convolution has two parts; `pool` after the stem."""
    x = torch.relu(norm(conv(x, w, "stem.0", stem_stride), w, "stem.1"))
    if "stem.3.weight" in w:
        x = torch.relu(norm(conv(x, w, "stem.3"), w, "stem.4"))
    if pool:
        x = F.max_pool3d(x, 3, 2, 1)
    for layer in (1, 2, 3, 4):
        for block in (0, 1):
            s = 2 if layer > 1 and block == 0 else 1
            at = f"layer{layer}.{block}"
            y = x
            for name, stride in (("conv1", s), ("conv2", 1)):
                if f"{at}.{name}.0.weight" in w:
                    y = conv(y, w, f"{at}.{name}.0", (stride, stride, stride))
                else:
                    y = torch.relu(norm(conv(y, w, f"{at}.{name}.0.0", (1, stride, stride)), w, f"{at}.{name}.0.1"))
                    y = conv(y, w, f"{at}.{name}.0.3", (stride, 1, 1))
                y = norm(y, w, f"{at}.{name}.1")
                y = torch.relu(y) if name == "conv1" else y
            if s == 2:
                x = norm(conv(x, w, f"{at}.downsample.0", (2, 2, 2)), w, f"{at}.downsample.1")
            x = torch.relu(x + y)
    return x


def c3d(x: Tensor, w: Weights) -> Tensor:
    for name, pool in (
        ("1", (1, 2, 2)), ("2", (2, 2, 2)), ("3a", None), ("3b", (2, 2, 2)), ("4a", None), ("4b", (2, 2, 2)),
        ("5a", None), ("5b", None),
    ):  # fmt: skip
        x = torch.relu(norm(conv(x, w, f"conv{name}.conv"), w, f"conv{name}.bn"))
        x = F.max_pool3d(x, pool, pool) if pool else x
    return x


def vcop(x: Tensor, w: Weights) -> Tensor:
    def factored(x: Tensor, at: str, s: int, d: int) -> Tensor:
        x = torch.relu(norm(conv(x, w, f"{at}.spatial_conv", (1, d, d)), w, f"{at}.bn"))
        return conv(x, w, f"{at}.temporal_conv", (s, 1, 1))

    x = torch.relu(norm(factored(x, "conv1", 1, 2), w, "bn1"))
    for stage in (2, 3, 4, 5):
        at, s = f"conv{stage}.block1", 1 if stage == 2 else 2
        y = torch.relu(norm(factored(x, f"{at}.conv1", s, s), w, f"{at}.bn1"))
        y = norm(factored(y, f"{at}.conv2", 1, 1), w, f"{at}.bn2")
        if s == 2:
            x = norm(factored(x, f"{at}.downsampleconv", 2, 2), w, f"{at}.downsamplebn")
        x = torch.relu(x + y)
    return x


def s3dg(x: Tensor, w: Weights, *, stem: tuple[tuple[int, int, int], tuple[int, int, int]]) -> Tensor:
    """S3D-G; `stem` are the strides of the first two convolutions, gates are wherever their weights are."""

    def unit(x: Tensor, at: str, stride: tuple[int, int, int] = (1, 1, 1)) -> Tensor:
        return torch.relu(norm(conv(x, w, f"{at}.conv", stride), w, f"{at}.bn", eps=1e-3))

    def gate(x: Tensor, at: str) -> Tensor:
        kernel = w.get(f"{at}.linear.weight")
        if kernel is None:
            return x
        scores = torch.einsum("oi,bi->bo", kernel.flatten(1), x.flatten(2).mean(2))
        scores = scores + w.get(f"{at}.linear.bias", torch.zeros(1))
        return x / (1 + torch.exp(-scores))[:, :, None, None, None]

    def separable(x: Tensor, at: str, strides: tuple[tuple[int, int, int], ...] = ((1, 1, 1), (1, 1, 1))) -> Tensor:
        return gate(unit(unit(x, f"{at}.spatial", strides[0]), f"{at}.temporal", strides[1]), f"{at}.gate")

    x = F.max_pool3d(separable(x, "conv_1a", stem), (1, 3, 3), (1, 2, 2), (0, 1, 1))
    x = F.max_pool3d(separable(unit(x, "conv_2b"), "conv_2c"), (1, 3, 3), (1, 2, 2), (0, 1, 1))
    for name in ("3b", "3c", "4b", "4c", "4d", "4e", "4f", "5b", "5c"):
        if name == "4b":
            x = F.max_pool3d(x, 3, 2, 1)
        if name == "5b":
            x = F.max_pool3d(x, 2, 2)
        at = f"mixed_{name}"
        x = torch.cat(
            [
                gate(unit(x, f"{at}.branch0.0"), f"{at}.branch0.1"),
                separable(unit(x, f"{at}.branch1.0"), f"{at}.branch1.1"),
                separable(unit(x, f"{at}.branch2.0"), f"{at}.branch2.1"),
                gate(unit(F.max_pool3d(x, 3, 1, 1), f"{at}.branch3.1"), f"{at}.branch3.2"),
            ],
            dim=1,
        )
    return x
