"""What a run will need, before it starts: parameters, arithmetic, memory, decoding, steps.

The model's own forward and backward pass is made on fake tensors, which have shapes and number formats but no numbers:
seconds and little memory, whatever the size of the clips. torch counts the operations, its hooks are shown what is
kept for the backward pass, and every tensor is followed from its making to its end, which gives the peak.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from ascnet.build import build_model, run_length
from ascnet.config import Config
from ascnet.errors import ConfigError
from ascnet.model import ASCNet
from ascnet.precision import Precision, pick_device

# Numbers that an optimiser keeps for each one that it trains.
STATES = {"sgd": 1, "adamw": 2, "lars": 1}
FORMATS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32, "fp64": torch.float64}
# `valid` and `groups` of a video in the memory bank (docs/bank.md).
BANK_MARKS = 9


class LiveMemory(TorchDispatchMode):
    """Follows the tensors that are made in its block: `peak` is the most bytes that were alive at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self._live = {key: entry for key, entry in self._live.items() if not entry[0].expired()}
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self._live.setdefault(_key(tensor), (StorageWeakRef(storage), storage.nbytes()))
        self.peak = max(self.peak, sum(size for _, size in self._live.values()))
        return result


def count_flops(function: Callable[[], object]) -> int:
    """Floating-point operations of the convolutions and matrix products in a call; a multiply-add counts as two."""
    with FlopCounterMode(display=False) as counter:
        function()
    return int(counter.get_total_flops())


def count_parameters(model: ASCNet) -> dict[str, int]:
    """Numbers by part: encoder, heads, all that are trained, and the copy that follows as a moving average."""
    size = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    encoder = sum(p.numel() for p in model.online.encoder.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {"encoder": encoder, "heads": trained - encoder, "trained": trained, "ema_copy": size["target"]}


def simulate_step(config: Config) -> dict[str, Any]:
    """One training step of one GPU on fake tensors.

    Returns:
        `parameters` as `count_parameters`; `flops` by pass, and `total`; `bytes` of weights and buffers, of what the
        backward pass needs (`activations`: one part of the batch, one direction), and of the `peak` of all tensors made
        in the step, gradients among them. With activation checkpointing the peak is an upper bound.

    Raises:
        ConfigError: If the encoder cannot take clips of this size, or the configuration has no such encoder.
    """
    data, name = config.data, number_format(config)
    weights = torch.float64 if name == "fp64" else torch.float32
    with torch.device("meta"):
        model = build_model(config).to(weights).train()
    parameters = count_parameters(model)
    if config.model.checkpoint_activations:
        from ascnet.training.activations import checkpoint_blocks

        checkpoint_blocks(model.online.encoder)
    part = math.ceil(data.batch_size / config.optim.accumulate)
    shape = (3, data.frames, data.size, data.size)
    with FakeTensorMode():
        _materialise(model)
        if config.device != "cpu":
            _pool_as_on_gpu(model)
        own = {_key(tensor) for tensor in [*model.parameters(), *model.buffers()]}
        clips = torch.empty(part, *shape, dtype=FORMATS[name])
        queries = torch.empty(part, config.model.projector_dim, dtype=weights)
        found = torch.arange(part)
        kept: dict[int, tuple[StorageWeakRef, int]] = {}
        losses: list[Tensor] = []

        def keep(tensor: Tensor) -> Tensor:
            if _key(tensor) not in own:
                storage = tensor.untyped_storage()
                # A weak reference, so that looking keeps nothing alive and the key is not used again.
                kept[_key(tensor)] = (StorageWeakRef(storage), storage.nbytes())
            return tensor

        def online() -> None:
            retrieve = (lambda: (clips, found)) if config.gamma > 0 else (lambda: (None, found))
            losses.append(_cast(name, lambda: model(clips, queries, retrieve)).loss)

        target = count_flops(lambda: _cast(name, lambda: model.appearance_target(clips)))
        # Without the speed task no third clip is read, and none goes through the target.
        positive = count_flops(lambda: _cast(name, lambda: model.motion_target(clips))) if config.gamma > 0 else 0
        with LiveMemory() as live:
            with saved_tensors_hooks(keep, lambda tensor: tensor):
                forward = count_flops(online) - positive
            backward = count_flops(lambda: losses.pop().backward())
    peak = live.peak
    if config.model.checkpoint_activations:
        # What is computed again lives longer among fake tensors than among real ones. The peak without checkpoints is
        # never exceeded, and is given instead.
        peak = simulate_step(replace(config, model=replace(config.model, checkpoint_activations=False)))["bytes"][
            "peak"
        ]
    # Everything but the average over the batch is linear in its size, and a direction is like the other.
    times = data.batch_size / part * (2 if config.symmetric else 1)
    flops = {"target": target + positive, "online_forward": forward, "backward": backward}
    flops = {key: round(value * times) for key, value in flops.items()}
    return {
        "parameters": parameters,
        "flops": {**flops, "total": sum(flops.values())},
        "bytes": {
            "weights": sum(
                tensor.numel() * tensor.element_size() for tensor in [*model.parameters(), *model.buffers()]
            ),
            "activations": sum(size for _, size in kept.values()),
            "peak": peak,
        },
    }


def memory(config: Config, step: dict[str, Any], *, gpus: int, videos: int | None) -> dict[str, int]:
    """Bytes that one GPU holds at the worst moment of a step, by what they are for, and their `total`.

    Args:
        config: The settings.
        step: From `simulate_step`.
        gpus: Processes of the run; DistributedDataParallel sends gradients from buckets of their own.
        videos: Rows of the memory bank; None leaves the bank out.
    """
    data, trained = config.data, step["parameters"]["trained"]
    name = number_format(config)
    number = 8 if name == "fp64" else 4
    clip = 3 * data.frames * data.size**2 * (2 if name in ("bf16", "fp16") else 4)
    ahead = config.retrieval.lookahead + 1
    pairs = 2 * data.batch_size * (data.prefetch + ahead)
    gradients, activations = trained * number, step["bytes"]["activations"]
    positives = (2 if config.symmetric else 1) * data.batch_size * ahead if config.gamma > 0 else 0
    parts = {
        "weights and EMA copy": step["bytes"]["weights"],
        "gradients": gradients,
        "optimiser": trained * number * STATES[config.optim.name],
        "activations": activations,
        # Thrown away within the step: what is computed on the way, or computed again.
        "working memory": max(0, step["bytes"]["peak"] - activations - gradients),
        "clips under way": clip * (pairs + positives),
    }
    if gpus > 1:
        parts["gradient buckets"] = gradients
    if videos is not None:
        row = config.model.projector_dim * (2 if config.retrieval.dtype == "fp16" else number)
        rows = math.ceil(videos / gpus) if config.retrieval.placement == "sharded" else videos
        parts["memory bank"] = rows * row + videos * BANK_MARKS
        if config.gamma > 0:
            parts["bank search"] = min(int(config.retrieval.budget_mb * 2**20), 4 * data.batch_size * videos)
    return {**parts, "total": sum(parts.values())}


def decoding(config: Config, *, gop: int, rate: float | None = None) -> dict[str, float]:
    """What a step of one GPU asks of the decoder.

    A clip needs the frames from the key frame before it to its last one: with a key frame every `gop` frames, that is
    (gop - 1) / 2 frames before its first one on average.

    Args:
        config: The settings.
        gop: Frames from one key frame to the next.
        rate: Frame rate of the videos; needed where `data.fps` is set, else each frame step is the speed.

    Returns:
        `clips` and `frames` delivered, and `frames_decoded`, in a step.
    """
    data = config.data
    factor = rate / data.fps if rate is not None and data.fps is not None else 1.0
    spans = [math.floor((data.frames - 1) * speed * factor + 0.5) + 1 for speed in data.speeds]
    lead = (gop - 1) / 2
    ranges = {"independent": sum(spans) + len(spans) * lead, "shared": max(spans) + lead}
    pair = ranges.get(data.window, sum(spans) + lead)
    directions = 2 if config.symmetric else 1
    # c_k has the speed of c_i, which is either of them.
    third = directions * (sum(spans) / len(spans) + lead) if config.gamma > 0 else 0.0
    clips = data.batch_size * (2 + (directions if config.gamma > 0 else 0))
    return {
        "clips": clips,
        "frames": clips * data.frames,
        "frames_decoded": data.batch_size * (pair + third),
    }


def length(config: Config, videos: int | None, gpus: int) -> dict[str, int | None]:
    """`steps_an_epoch`, `epochs` and `steps` of the run, as far as they can be told without the videos.

    Raises:
        ConfigError: If an epoch does not fill one batch.
    """
    if videos is None:
        return {"steps_an_epoch": None, "epochs": None, "steps": config.steps}
    samples, batch = videos * config.data.clips_per_video, config.data.batch_size * gpus
    steps = samples // batch
    if not steps:
        raise ConfigError(
            f"data.batch_size is {config.data.batch_size}: {samples} samples an epoch do not fill one batch of {batch} "
            f"on {gpus} GPU(s); lower it or raise data.clips_per_video"
        )
    total = run_length(config, steps)
    return {"steps_an_epoch": steps, "epochs": math.ceil(total / steps), "steps": total}


def number_format(config: Config) -> str:
    """The number format of the encoder; auto: that of the device of this machine."""
    return Precision("auto", pick_device(config.device)).name if config.precision == "auto" else config.precision


def _cast(name: str, function: Callable[[], Any]) -> Any:
    half = name in ("bf16", "fp16")
    autocast: AbstractContextManager[Any] = torch.autocast("cpu", FORMATS[name]) if half else nullcontext()
    with autocast:
        return function()


def _materialise(model: nn.Module) -> None:
    """Puts fake tensors of the CPU in the place of those of the meta device, which autocast does not know."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                made = torch.empty(parameter.shape, dtype=parameter.dtype)
                module._parameters[name] = nn.Parameter(made, requires_grad=parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


def _pool_as_on_gpu(model: nn.Module) -> None:
    """Max pooling in the type of its input: autocast makes it float32 on a CPU, but not on a GPU."""
    for module in model.modules():
        if isinstance(module, nn.MaxPool3d):
            module.forward = partial(_uncast, module.forward)  # type: ignore[method-assign]


def _uncast(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        return function(x)


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
