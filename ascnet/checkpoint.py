"""Checkpoints of a run: written whole or not at all, read without running code from the file.

RUN/checkpoints/step_00001000.pt    everything needed to go on exactly: see `ascnet.pretrain`
RUN/checkpoints/last.pt             the newest of them, the same file under a second name
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ascnet.encoders import build_encoder
from ascnet.errors import CheckpointError

FORMAT = 1


def save(run: Path, step: int, payload: dict[str, Any], *, keep: int) -> Path:
    """Writes RUN/checkpoints/step_N.pt, makes last.pt the same file, and removes all but the newest `keep`.

    Args:
        run: Folder of the run.
        step: Steps made, for the name.
        payload: Tensors and plain values.
        keep: Checkpoints to keep.

    Returns:
        The path written.
    """
    folder = run / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step_{step:08d}.pt"
    temporary = folder / f".{path.name}.{os.getpid()}"
    try:
        with open(temporary, "wb") as file:
            torch.save({"format": FORMAT, **payload}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        try:
            os.link(path, temporary)
        except OSError:  # a file system without hard links
            shutil.copyfile(path, temporary)
        os.replace(temporary, folder / "last.pt")
    finally:
        # Renaming one of two names of the same file onto the other leaves both: then the temporary one is still there.
        temporary.unlink(missing_ok=True)
    for old in sorted(folder.glob("step_*.pt"))[:-keep]:
        old.unlink()
    return path


def find(path: str | os.PathLike[str]) -> Path:
    """The checkpoint that a path means: the file itself, or last.pt of a run's folder.

    Raises:
        CheckpointError: If there is none.
    """
    path = Path(path)
    for candidate in (path, path / "last.pt", path / "checkpoints" / "last.pt"):
        if candidate.is_file():
            return candidate
    what = "holds no checkpoint (checkpoints/last.pt)" if path.is_dir() else "no such checkpoint"
    raise CheckpointError(f"{path}: {what}")


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a checkpoint of a run onto the CPU, with `weights_only=True`.

    Raises:
        CheckpointError: If it is missing, damaged, or of another kind or format.
    """
    path = find(path)
    try:
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        reason = str(error).strip().split("\n")[0]
        raise CheckpointError(f"{path}: damaged, or not a checkpoint: {reason}") from None
    if not isinstance(payload, dict) or "format" not in payload or "model" not in payload:
        raise CheckpointError(f"{path}: not a checkpoint of `ascnet pretrain`")
    if payload["format"] != FORMAT:
        raise CheckpointError(f"{path}: checkpoint format {payload['format']}; this version reads format {FORMAT}")
    return payload


def load_encoder(path: str | os.PathLike[str], *, network: str = "online") -> tuple[nn.Module, dict[str, Any]]:
    """The pretrained encoder of a run, ready to use.

    Args:
        path: A checkpoint, a run's folder, or a file that `export_encoder` wrote (.safetensors).
        network: "online" or "target", the copy to take from a checkpoint.

    Returns:
        The encoder in evaluation mode on the CPU, and the configuration of the run as nested dictionaries.

    Raises:
        CheckpointError: If the file is missing, damaged, or holds no such encoder.
    """
    if network not in ("online", "target"):
        raise ValueError(f"network is {network!r}; allowed: online, target")
    path = find(path)
    if path.suffix == ".safetensors":
        weights, config = _read_safetensors(path)
    else:
        payload = load(path)
        config, prefix = payload["config"], f"{network}.encoder."
        weights = {name.removeprefix(prefix): t for name, t in payload["model"].items() if name.startswith(prefix)}
    model = config["model"]
    encoder = build_encoder(model["encoder"], width=model["width"], **model["options"])
    try:
        encoder.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: its weights do not fit encoder {model['encoder']!r}: {reason}") from None
    return encoder.eval(), config


def export_encoder(
    checkpoint: str | os.PathLike[str], output: str | os.PathLike[str], *, network: str = "online"
) -> None:
    """Writes the encoder alone as safetensors, its configuration in the header, whole or not at all."""
    from safetensors.torch import save_file

    encoder, config = load_encoder(checkpoint, network=network)
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f".{output.name}.{os.getpid()}")
    weights = {name: tensor.contiguous() for name, tensor in encoder.state_dict().items()}
    save_file(weights, temporary, metadata={"format": "pt", "ascnet": json.dumps(config)})
    os.replace(temporary, output)


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
