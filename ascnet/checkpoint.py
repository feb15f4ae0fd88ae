"""Checkpoints of a run: written whole or not at all, read without running code from the file.

RUN/checkpoints/step_00001000.pt    everything needed to go on exactly: see `ascnet.pretrain`
RUN/checkpoints/last.pt             the newest of them, the same file under a second name
"""

from __future__ import annotations

import os
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch

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

    Raises:
        OSError: If it cannot be written, such as on a full disk; the earlier ones are still there.
    """
    folder = run / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step_{step:08d}.pt"
    temporary = folder / f".{path.name}.{os.getpid()}"
    for left in folder.glob(".step_*.pt.*"):  # by a process that was killed while writing
        left.unlink()
    try:
        with open(temporary, "wb") as file:
            _write({"format": FORMAT, **payload}, file)
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


def _write(payload: dict[str, Any], file: BinaryIO) -> None:
    try:
        torch.save(payload, file)
    except RuntimeError as error:
        # On a full disk torch finds its archive in disorder while it closes it; the cause is what came before.
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


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
