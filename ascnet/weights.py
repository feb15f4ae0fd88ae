"""An encoder with its weights, from whatever this package writes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ascnet import checkpoint
from ascnet.encoders import Encoder, build_encoder
from ascnet.errors import CheckpointError


def load_encoder(
    path: str | os.PathLike[str], *, network: str = "online", device: str | torch.device = "cpu"
) -> Encoder:
    """A pretrained encoder, ready to use.

    Example:
        >>> encoder = load_encoder("runs/ucf101")
        >>> features = encoder(clips)         # (B, encoder.dim) of clips (B, 3, T, H, W)
        >>> maps = encoder.features(clips)    # (B, encoder.dim, t, h, w)

    Args:
        path: A run's folder, a checkpoint (of a run or of `ascnet import-weights`), or a .safetensors file that
            `ascnet export` wrote.
        network: "online" or "target", the copy to take from a checkpoint; an exported file holds one only.
        device: Where to put it.

    Returns:
        The encoder in evaluation mode; its `config` has the settings of the run, clip size and normalisation among
        them.

    Raises:
        CheckpointError: If the file is missing, damaged, or holds no such encoder.
    """
    if network not in ("online", "target"):
        raise ValueError(f"network is {network!r}; allowed: online, target")
    found = checkpoint.find(path)
    if found.suffix == ".safetensors":
        weights, config = _read_safetensors(found)
    else:
        payload = checkpoint.load(found)
        config, prefix = payload["config"], f"{network}.encoder."
        weights = {name.removeprefix(prefix): t for name, t in payload["model"].items() if name.startswith(prefix)}
    model = config["model"]
    encoder = build_encoder(model["encoder"], width=model["width"], **model["options"])
    try:
        encoder.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{found}: its weights do not fit encoder {model['encoder']!r}: {reason}") from None
    encoder.config = config
    return encoder.eval().to(device)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get("ascnet")
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: damaged, or not a safetensors file: {error}") from None
    if header is None:
        raise CheckpointError(f"{path}: not written by `ascnet export`: its header holds no configuration")
    return weights, json.loads(header)
