"""Less memory for more time: the online encoder keeps what enters its blocks and computes the rest again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ascnet.errors import ConfigError


def checkpoint_blocks(encoder: nn.Module) -> int:
    """Checkpoints the activations of the blocks of an encoder, in place; returns how many blocks those are.

    A block is a stage's residual or Inception block, or any other part with parts of its own, such as the stem. What
    the encoder computes, its parameters and their names stay the same.

    Raises:
        ConfigError: If the encoder consists of single layers.
    """
    blocks = [block for child in encoder.children() for block in _blocks(child)]
    if not blocks:
        raise ConfigError(
            f"model.checkpoint_activations is true; {type(encoder).__name__} has no blocks to keep the inputs of"
        )
    for block in blocks:
        block.forward = partial(_forward, block, block.forward)
    return len(blocks)


def _blocks(child: nn.Module) -> list[nn.Module]:
    inside = list(child.children())
    if isinstance(child, nn.Sequential) and inside and all(list(part.children()) for part in inside):
        return inside
    return [child] if inside else []


def _forward(block: nn.Module, forward: Any, *inputs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*inputs)
    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=partial(_contexts, block))


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _statistics_kept(block)


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """The second pass over a batch must not count a second time in the running statistics."""
    layers = [layer for layer in block.modules() if isinstance(layer, _BatchNorm)]
    before = [(layer.momentum, layer.num_batches_tracked) for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
        if layer.num_batches_tracked is not None:
            layer.num_batches_tracked = layer.num_batches_tracked.clone()
    try:
        yield
    finally:
        for layer, (momentum, tracked) in zip(layers, before, strict=True):
            layer.momentum, layer.num_batches_tracked = momentum, tracked
