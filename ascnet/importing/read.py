"""Foreign files of weights, read without running code from them."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ascnet.errors import CheckpointError

# Entries beside the weights in files of torchvision's reference scripts and of RSPNet.
_BESIDE = {
    "optimizer": "optimiser",
    "scheduler": "schedule",
    "lr_scheduler": "schedule",
    "scaler": "loss scale",
    "epoch": "bookkeeping",
    "arch": "bookkeeping",
    "best_loss": "bookkeeping",
    "best_acc1": "bookkeeping",
}


@dataclass(frozen=True)
class Foreign:
    """A file's content.

    Attributes:
        state: Tensors by name.
        arch: The architecture that the file names; None where it names none.
        epoch: Epochs of training that it names.
        beside: What else the file holds: a reason to leave it out, by entry.
    """

    state: dict[str, Tensor]
    arch: str | None
    epoch: int | None
    beside: dict[str, str]


def read_foreign(path: Path) -> Foreign:
    """Read a .pt, .pth or .safetensors file onto the CPU.

    Raises:
        CheckpointError: If it is missing, is no file of weights, or holds tensors in a place that is not known.
    """
    payload = _load(path)
    if not isinstance(payload, Mapping) or not payload:
        raise CheckpointError(f"{path}: holds no weights but a {type(payload).__name__}")
    inner = next((name for name in ("model", "state_dict") if isinstance(payload.get(name), Mapping)), None)
    state = dict(payload if inner is None else payload[inner])
    beside: dict[str, str] = {}
    for name in payload if inner is not None else ():
        if name == inner:
            continue
        if name not in _BESIDE and _has_tensors(payload[name]):
            raise CheckpointError(f"{path}: entry {name!r} holds tensors that are not accounted for")
        beside[str(name)] = _BESIDE.get(name, "not weights")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(f"{path}: {name!r} is a {type(value).__name__}; expected tensors by name")
    if all(name.startswith("module.") for name in state):  # saved from inside DistributedDataParallel
        state = {name.removeprefix("module."): value for name, value in state.items()}
    arch, epoch = (payload.get(name) if inner is not None else None for name in ("arch", "epoch"))
    return Foreign(state, arch if isinstance(arch, str) else None, epoch if isinstance(epoch, int) else None, beside)


def _load(path: Path) -> Any:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path}: damaged, or not a safetensors file: {error}") from None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # weights_only answers in many lines of advice on how to switch it off; the object's name is what matters.
        lines = [line.strip() for line in str(error).splitlines() if "GLOBAL" in line or "Unsupported" in line]
        reason = lines[0] if lines else str(error).strip().split("\n")[0]
        raise CheckpointError(
            f"{path}: not a file of weights, or one with Python objects, which are never loaded: {reason}"
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        reason = str(error).strip().split("\n")[0]
        raise CheckpointError(f"{path}: damaged, or not a file of weights: {reason}") from None


def _has_tensors(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_has_tensors(part) for part in value.values())
    if isinstance(value, list | tuple):
        return any(_has_tensors(part) for part in value)
    return isinstance(value, Tensor)
