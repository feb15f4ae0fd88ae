"""From a foreign file to a checkpoint that `ascnet retrieve`, `ascnet export` and `load_encoder` read."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from ascnet.checkpoint import FORMAT
from ascnet.config import Config
from ascnet.encoders import build_encoder
from ascnet.errors import CheckpointError, ConfigError
from ascnet.files import written_whole
from ascnet.importing.account import Account, settle
from ascnet.importing.layouts import DROPPED, PREFIXES, SOURCES, Layout
from ascnet.importing.read import Foreign, read_foreign

Source = Literal["torchvision", "rspnet"]


@dataclass(frozen=True)
class Imported:
    """What `import_weights` did.

    Attributes:
        path: The checkpoint.
        encoder: Name in the registry.
        width: Factor on its channel counts.
        options: Its other options.
        account: What became of each tensor.
        beside: What else the file held, with the reason to leave it out.
    """

    path: Path
    encoder: str
    width: float
    options: dict[str, Any]
    account: Account
    beside: dict[str, str]


def import_weights(file: str | os.PathLike[str], source: Source, output: str | os.PathLike[str]) -> Imported:
    """Write a checkpoint whose encoder has the weights of a published file.

    Online and target encoder are the same; heads, bank and optimiser are absent.

    Args:
        file: .pt, .pth or .safetensors.
        source: Whose names it uses.
        output: The checkpoint (.pt).

    Raises:
        CheckpointError: If the file is no such file; naming tensors that are missing, have another shape, or that no
            rule accounts for.
    """
    if source not in get_args(Source):
        raise ConfigError(f"source is {source!r}; allowed: {', '.join(get_args(Source))}")
    path, output = Path(file), Path(output)
    if output.suffix == ".safetensors":
        raise CheckpointError(f"{output}: a checkpoint is written, not safetensors; give a name that ends in .pt")
    if output.resolve() == path.resolve():
        raise CheckpointError(f"{output} is the file to import; give the checkpoint another name")
    foreign = read_foreign(path)
    try:
        prefix, layout = _recognise(foreign, source)
        name, channels = layout.first
        width = foreign.state[prefix + name].shape[0] / channels
        with torch.device("meta"):
            encoder = build_encoder(layout.encoder, width=width, **layout.options)
        account = settle(foreign.state, prefix, layout, DROPPED[source], encoder.state_dict())
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    model = {"encoder": layout.encoder, "width": width, "options": layout.options}
    config = Config.from_dict({"model": model, "data": layout.data}).to_dict()
    weights = {name: _own(tensor) for name, tensor in account.weights.items()}
    payload = {
        "format": FORMAT,
        "step": 0,
        # Both names of a tensor share its memory, and torch.save writes shared memory once.
        "model": {f"{network}.encoder.{name}": t for network in ("online", "target") for name, t in weights.items()},
        "config": config,
        "imported": {
            "source": source,
            "file": path.name,
            "sha256": _digest(path),
            "arch": foreign.arch,
            "epoch": foreign.epoch,
            "used": len(account.used),
            "dropped": dict(Counter([*account.dropped.values(), *foreign.beside.values()])),
        },
    }
    with written_whole(output) as temporary:
        torch.save(payload, temporary)
    return Imported(output, layout.encoder, width, layout.options, account, foreign.beside)


def _recognise(foreign: Foreign, source: str) -> tuple[str, Layout]:
    layouts = SOURCES[source]
    if source == "rspnet" and foreign.arch is not None:
        if foreign.arch not in layouts:
            raise CheckpointError(f"its arch is {foreign.arch!r}; known: {', '.join(sorted(layouts))}")
        layouts = {foreign.arch: layouts[foreign.arch]}
    for layout in layouts.values():
        for prefix in PREFIXES[source]:
            if all(prefix + name in foreign.state for name in (layout.signature, layout.first[0])):
                return prefix, layout
    first = ", ".join(list(foreign.state)[:3])
    raise CheckpointError(
        f"not a network of {source} that is known here ({', '.join(sorted(layouts))}); its first tensors are {first}"
    )


def _own(tensor: torch.Tensor) -> torch.Tensor:
    # A view would be saved with all the memory that it looks into.
    return (tensor.float() if tensor.is_floating_point() else tensor).clone(memory_format=torch.contiguous_format)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
