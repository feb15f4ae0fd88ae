"""Files of weights as torchvision and RSPNet publish them, made small: exact names and shapes, random values.

Each maker lists (name in the file, name of the same tensor in this package, shape), spelled out once more here.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

Entry = tuple[str, str, tuple[int, ...]]
Names = tuple[str, str]

MIXED = {
    "3b": (64, 96, 128, 16, 32, 32), "3c": (128, 128, 192, 32, 96, 64), "4b": (192, 96, 208, 16, 48, 64),
    "4c": (160, 112, 224, 24, 64, 64), "4d": (128, 128, 256, 24, 64, 64), "4e": (112, 144, 288, 32, 64, 64),
    "4f": (256, 160, 320, 32, 128, 128), "5b": (256, 160, 320, 32, 128, 128), "5c": (384, 192, 384, 48, 128, 128),
}  # fmt: skip


def norm(theirs: str, ours: str, channels: int) -> Iterator[Entry]:
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"{theirs}.{part}", f"{ours}.{part}", (channels,)
    yield f"{theirs}.num_batches_tracked", f"{ours}.num_batches_tracked", ()


def kernel(theirs: str, ours: str, *shape: int) -> Iterator[Entry]:
    yield f"{theirs}.weight", f"{ours}.weight", shape


def torchvision_resnet(width: float, *, factored: bool) -> Iterator[Entry]:
    """r3d_18, or r2plus1d_18 where `factored`."""

    def conv(at: str, inputs: int, outputs: int, middle: int) -> Iterator[Entry]:
        if factored:
            yield from kernel(f"{at}.0", f"{at}.0", middle, inputs, 1, 3, 3)
            yield from norm(f"{at}.1", f"{at}.1", middle)
            yield from kernel(f"{at}.3", f"{at}.3", outputs, middle, 3, 1, 1)
        else:
            yield from kernel(at, at, outputs, inputs, 3, 3, 3)

    channels = [round(base * width) for base in (64, 64, 128, 256, 512)]
    if factored:
        middle = round(45 * width)
        yield from kernel("stem.0", "stem.0", middle, 3, 1, 7, 7)
        yield from norm("stem.1", "stem.1", middle)
        yield from kernel("stem.3", "stem.3", channels[0], middle, 3, 1, 1)
        yield from norm("stem.4", "stem.4", channels[0])
    else:
        yield from kernel("stem.0", "stem.0", channels[0], 3, 3, 7, 7)
        yield from norm("stem.1", "stem.1", channels[0])
    for layer in (1, 2, 3, 4):
        for block in (0, 1):
            inputs, outputs = channels[layer - 1 if block == 0 else layer], channels[layer]
            middle = inputs * outputs * 27 // (inputs * 9 + 3 * outputs)
            at = f"layer{layer}.{block}"
            yield from conv(f"{at}.conv1.0", inputs, outputs, middle)
            yield from norm(f"{at}.conv1.1", f"{at}.conv1.1", outputs)
            yield from conv(f"{at}.conv2.0", outputs, outputs, middle)
            yield from norm(f"{at}.conv2.1", f"{at}.conv2.1", outputs)
            if block == 0 and layer > 1:
                yield from kernel(f"{at}.downsample.0", f"{at}.downsample.0", outputs, inputs, 1, 1, 1)
                yield from norm(f"{at}.downsample.1", f"{at}.downsample.1", outputs)


def rspnet_resnet18(width: float) -> Iterator[Entry]:
    channels = [round(base * width) for base in (64, 64, 128, 256, 512)]
    yield from kernel("conv1", "stem.0", channels[0], 3, 7, 7, 7)
    yield from norm("bn1", "stem.1", channels[0])
    for layer in (1, 2, 3, 4):
        for block in (0, 1):
            inputs, outputs = channels[layer - 1 if block == 0 else layer], channels[layer]
            at = f"layer{layer}.{block}"
            for number, size in ((1, inputs), (2, outputs)):
                yield from kernel(f"{at}.conv{number}", f"{at}.conv{number}.0", outputs, size, 3, 3, 3)
                yield from norm(f"{at}.bn{number}", f"{at}.conv{number}.1", outputs)
            if block == 0 and layer > 1:
                yield from kernel(f"{at}.downsample.0", f"{at}.downsample.0", outputs, inputs, 1, 1, 1)
                yield from norm(f"{at}.downsample.1", f"{at}.downsample.1", outputs)


def rspnet_c3d(width: float) -> Iterator[Entry]:
    inputs = 3
    for name, base in zip(
        ("1", "2", "3a", "3b", "4a", "4b", "5a", "5b"), (64, 128, 256, 256, 512, 512, 512, 512), strict=True
    ):
        outputs = round(base * width)
        yield from kernel(f"conv{name}", f"conv{name}.conv", outputs, inputs, 3, 3, 3)
        yield f"conv{name}.bias", f"conv{name}.conv.bias", (outputs,)
        yield from norm(f"bn{name}", f"conv{name}.bn", outputs)
        inputs = outputs


def rspnet_r2plus1d(width: float) -> Iterator[Entry]:
    def factored(at: str, inputs: int, outputs: int, t: int, k: int) -> Iterator[Entry]:
        middle = t * k * k * inputs * outputs // (k * k * inputs + t * outputs)
        yield from kernel(f"{at}.spatial_conv", f"{at}.spatial_conv", middle, inputs, 1, k, k)
        yield from norm(f"{at}.bn", f"{at}.bn", middle)
        yield from kernel(f"{at}.temporal_conv", f"{at}.temporal_conv", outputs, middle, t, 1, 1)

    channels = [round(base * width) for base in (64, 64, 128, 256, 512)]
    yield from factored("conv1", 3, channels[0], 3, 7)
    yield from norm("bn1", "bn1", channels[0])
    for stage in (2, 3, 4, 5):
        inputs, outputs, at = channels[stage - 2], channels[stage - 1], f"conv{stage}.block1"
        if stage > 2:
            yield from factored(f"{at}.downsampleconv", inputs, outputs, 1, 1)
            yield from norm(f"{at}.downsamplebn", f"{at}.downsamplebn", outputs)
        yield from factored(f"{at}.conv1", inputs, outputs, 3, 3)
        yield from norm(f"{at}.bn1", f"{at}.bn1", outputs)
        yield from factored(f"{at}.conv2", outputs, outputs, 3, 3)
        yield from norm(f"{at}.bn2", f"{at}.bn2", outputs)


def s3d(width: float, *, rspnet: bool) -> Iterator[Entry]:
    """RSPNet's S3D-G, or torchvision's S3D without gates."""

    def unit(theirs: str, ours: str, inputs: int, outputs: int, t: int = 1, k: int = 1) -> Iterator[Entry]:
        conv, bn = ("conv3d", "bn") if rspnet else ("0", "1")
        yield from kernel(f"{theirs}.{conv}", f"{ours}.conv", outputs, inputs, t, k, k)
        yield from norm(f"{theirs}.{bn}", f"{ours}.bn", outputs)

    def separable(theirs: str, ours: str, inputs: int, outputs: int, k: int) -> Iterator[Entry]:
        inner = f"{theirs}.sep_conv" if rspnet else theirs
        yield from unit(f"{inner}.0", f"{ours}.spatial", inputs, outputs, 1, k)
        yield from unit(f"{inner}.1", f"{ours}.temporal", outputs, outputs, k, 1)
        if rspnet:
            yield from kernel(f"{theirs}.excitation", f"{ours}.gate.linear", outputs, outputs, 1, 1, 1)
            yield f"{theirs}.excitation.bias", f"{ours}.gate.linear.bias", (outputs,)

    first, second = round(64 * width), round(192 * width)
    start = (
        ("feature.sepConv1", "feature.basicConv3d", "feature.sep_conv2")
        if rspnet
        else ("features.0", "features.2", "features.3")
    )
    yield from separable(start[0], "conv_1a", 3, first, 7)
    yield from unit(start[1], "conv_2b", first, first)
    yield from separable(start[2], "conv_2c", first, second, 3)
    inputs = second
    for place, (name, base) in zip((5, 6, 8, 9, 10, 11, 12, 14, 15), MIXED.items(), strict=True):
        theirs, ours = f"feature.sepInc_{name}" if rspnet else f"features.{place}", f"mixed_{name}"
        a, b, c, d, e, f = (round(size * width) for size in base)
        yield from unit(f"{theirs}.branch0", f"{ours}.branch0.0", inputs, a)
        for branch, middle, outputs in ((1, b, c), (2, d, e)):
            yield from unit(f"{theirs}.branch{branch}.0", f"{ours}.branch{branch}.0", inputs, middle)
            yield from separable(f"{theirs}.branch{branch}.1", f"{ours}.branch{branch}.1", middle, outputs, 3)
        yield from unit(f"{theirs}.branch3.1", f"{ours}.branch3.1", inputs, f)
        inputs = a + c + e + f


def filled(entries: Iterator[Entry], seed: int = 0) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Random tensors by their names in the file, and the names here by those."""
    generator = torch.Generator().manual_seed(seed)
    state, names = {}, {}
    for theirs, ours, shape in entries:
        if theirs.endswith("num_batches_tracked"):
            state[theirs] = torch.tensor(7)
        elif len(shape) == 1:
            state[theirs] = torch.rand(shape, generator=generator) + 0.1
        else:
            kernels = torch.randn(shape, generator=generator)
            state[theirs] = kernels * (2 / kernels[0].numel()) ** 0.5
        names[theirs] = ours
    return state, names


def rspnet_file(arch: str, state: dict[str, Tensor], *, dim: int, dummy: str = "fc") -> dict[str, object]:
    """A pretraining checkpoint around a backbone: both encoders, heads, the queue, optimiser and schedule."""
    model: dict[str, Tensor] = {"queue": torch.rand(128, 8), "queue_ptr": torch.zeros(1, dtype=torch.long)}
    for encoder in ("encoder_q", "encoder_k"):
        # The momentum encoder differs, so that taking it by mistake shows.
        model |= {f"{encoder}.encoder.{name}": t + (encoder == "encoder_k") for name, t in state.items()}
        model |= {
            f"{encoder}.encoder.{dummy}.weight": torch.rand(1, dim),
            f"{encoder}.encoder.{dummy}.bias": torch.rand(1),
        }
        for head in ("fc1", "fc2"):
            model |= {f"{encoder}.{head}.2.weight": torch.rand(128, dim), f"{encoder}.{head}.2.bias": torch.rand(128)}
    optimizer = {"state": {0: {"momentum_buffer": torch.rand(3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    return {
        "epoch": 200, "arch": arch, "model": model, "best_loss": 1.5, "optimizer": optimizer,
        "scheduler": {"T_max": 200, "last_epoch": 200},
    }  # fmt: skip
