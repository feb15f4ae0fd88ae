"""Features on disk: made once for a set of weights, a corpus and a recipe, and found again by these three."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ascnet.files import written_whole

logger = logging.getLogger("ascnet")

VERSION = 1


class FeatureStore:
    """One file of features.

    A video that could not be decoded is not in it, and is tried again the next time.

    Args:
        folder: Where the files lie; made when the first is written.
        weights: From `weights_digest`.
        corpus: Fingerprint of the corpus.
        recipe: What else the features depend on.
    """

    def __init__(self, folder: str | os.PathLike[str], weights: str, corpus: str, recipe: dict[str, Any]) -> None:
        about = {"version": VERSION, "weights": weights, "corpus": corpus, "recipe": recipe}
        self.about = json.dumps(about, sort_keys=True)
        self.path = Path(folder) / f"{hashlib.sha256(self.about.encode()).hexdigest()[:16]}.npz"

    def load(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Row numbers ``(N,)`` and features ``(N, D)``; none where there is no such file, or a damaged one."""
        nothing = np.empty(0, np.int64), np.empty((0, 0), np.float32)
        if not self.path.is_file():
            return nothing
        try:
            with np.load(self.path, allow_pickle=False) as file:
                rows, vectors = file["rows"], file["vectors"]
                fits = str(file["about"]) == self.about and vectors.ndim == 2 and len(rows) == len(vectors)
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            logger.warning("%s: damaged, features are made anew (%s)", self.path, error)
            return nothing
        return (rows.astype(np.int64), vectors.astype(np.float32)) if fits else nothing

    def save(self, rows: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Write all features, sorted by row; a disk that takes none costs a warning and nothing else."""
        order = np.argsort(rows, kind="stable")
        try:
            with written_whole(self.path) as temporary, temporary.open("wb") as file:
                np.savez(file, rows=rows[order], vectors=vectors[order], about=np.array(self.about))
        except OSError as error:
            logger.warning("%s: features are not kept (%s)", self.path, error.strerror or error)


def weights_digest(encoder: nn.Module) -> str:
    """Sixteen hexadecimal digits that tell networks apart by layers and weights, wherever they were loaded from."""
    digest = hashlib.sha256(repr(encoder).encode())
    for name, tensor in encoder.state_dict().items():
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.flatten().view(torch.uint8).numpy() if values.numel() else b"")
    return digest.hexdigest()[:16]
