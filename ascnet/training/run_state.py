"""What a checkpoint of a run holds, and how a run takes it up again.

All that the next step depends on: weights and average, optimiser, scaler, bank, the place of the loader, the batches
that are under way with their features and positives, and the states of the random generators of every process. The
schedules depend on the step alone.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ascnet import checkpoint, optim
from ascnet.bank.shards import Bank
from ascnet.config import Config
from ascnet.errors import CheckpointError, TrainingError
from ascnet.model import ASCNet
from ascnet.parallel.distributed import World
from ascnet.retrieval import Loader, LookAhead

if TYPE_CHECKING:
    from dali_pipes import Corpus


@dataclass
class RunState:
    """The parts of a run that change with every step.

    Attributes:
        step: Steps made.
        skipped: How many of them were skipped.
    """

    config: Config
    corpus: Corpus
    world: World
    model: ASCNet
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    bank: Bank
    loader: Loader
    ahead: LookAhead
    step: int = 0
    skipped: int = 0

    def save(self, run: Path) -> Path | None:
        """Writes a checkpoint; all processes call it, and the first one writes.

        Returns:
            Its path; None on the others.

        Raises:
            TrainingError: If the weights are not finite; no such state is ever saved.
            OSError: On the first process, if it cannot be written. What was there before is still there.
        """
        weights = [parameter.isfinite().all() for parameter in self.model.parameters()]
        if not torch.stack(weights).all():
            raise TrainingError(
                f"the weights are not finite after step {self.step}, so they are not saved: lower optim.lr, set "
                "optim.clip_norm, or use precision=fp32"
            )
        ahead = self.ahead.state_dict()
        parts = self.world.gather({"under_way": ahead["under_way"], "rng": _rng(self.world.device)})
        bank = self.bank.state_dict()
        if not self.world.is_first:
            return None
        payload = {
            "step": self.step,
            "skipped": self.skipped,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "bank": bank,
            "ahead": {"loader": ahead["loader"], "under_way": _joined([part["under_way"] for part in parts])},
            "rng": [part["rng"] for part in parts],
            "batch": self._whole_batch,
            "config": self.config.to_dict(),
            "versions": _versions(),
            "corpus": {"fingerprint": self.corpus.fingerprint, "videos": len(self.corpus)},
        }
        with self.world.writing():
            return checkpoint.save(run, self.step, payload, keep=self.config.checkpoint.keep)

    def restore(self, saved: dict[str, Any], changed: Sequence[str], total: int) -> list[str]:
        """Takes up a checkpoint.

        Args:
            saved: The checkpoint.
            changed: Names of settings that differ from it.
            total: Steps of the whole run.

        Returns:
            What could not be taken up as it was, in sentences for the user.

        Raises:
            CheckpointError: If weights or optimiser state do not fit the changed settings.
        """
        notes = []
        self.step, self.skipped = saved["step"], saved.get("skipped", 0)
        before = saved.get("batch", self._whole_batch)
        if before != self._whole_batch:
            # A run that is as long as its epochs has as many steps fewer or more.
            if total == self.config.epochs * len(self.loader):
                self.step = round(self.step * before / self._whole_batch)
            notes.append(
                f"the batch is of {self._whole_batch} videos now and was of {before}; step {saved['step']} counts as "
                f"{self.step}"
            )
        try:
            self.model.load_state_dict(saved["model"])
            self.bank.load_state_dict(saved["bank"])
        except (RuntimeError, ValueError) as error:
            raise CheckpointError(f"the checkpoint does not fit the changed settings: {_line(error)}") from None
        if "optim.name" in changed:
            notes.append("the optimiser is another one and starts afresh")
        else:
            optim.load_state(self.optimizer, saved["optimizer"])
        # Empty where the run computed in another format.
        if bool(saved["scaler"]) == self.scaler.is_enabled():
            self.scaler.load_state_dict(saved["scaler"])
        notes += self._restore_ahead(saved["ahead"], changed, total)
        states = saved["rng"] if isinstance(saved["rng"], list) else [saved["rng"]]
        if len(states) == self.world.size:
            _restore_rng(states[self.world.rank], self.world.device)
        return notes

    @property
    def _whole_batch(self) -> int:
        return self.config.data.batch_size * self.world.size

    def _restore_ahead(self, ahead: dict[str, Any], changed: Sequence[str], total: int) -> list[str]:
        notes, place, under_way = [], ahead["loader"], ahead["under_way"]
        fresh = self.loader.state_dict()
        if any(name.startswith("data.") or name == "seed" for name in changed) and _clips(fresh) != _clips(place):
            notes.append(f"the clips are others now, so epoch {place['epoch']} begins again")
            place, under_way = {**fresh, "epoch": place["epoch"]}, []
        directions = 2 if self.config.symmetric else 1
        if any((len(item["videos"]), len(item["a_j"])) != (self._whole_batch, directions) for item in under_way):
            under_way = []
        if len(under_way) < len(ahead["under_way"]):
            notes.append("the positives that were under way are searched for again")
        size, rank = self.config.data.batch_size, self.world.rank
        own = [_part(item, slice(rank * size, (rank + 1) * size)) for item in under_way]
        self.ahead.load_state_dict({"loader": place, "under_way": own}, left=max(0, total - self.step))
        return notes


def _joined(parts: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The batches under way of all processes, each as one whole batch in the order of positions."""
    return [
        {
            "videos": [video for item in items for video in item["videos"]],
            "a_j": [torch.cat(features) for features in zip(*(item["a_j"] for item in items), strict=True)],
            "chosen": [list(chain(*rows)) for rows in zip(*(item["chosen"] for item in items), strict=True)],
        }
        for items in zip(*parts, strict=True)
    ]


def _clips(state: dict[str, Any]) -> dict[str, Any]:
    """What of a loader's state says which clips there are, not how far it has come."""
    return {name: value for name, value in state.items() if name not in ("epoch", "position")}


def _part(item: dict[str, Any], rows: slice) -> dict[str, Any]:
    return {
        "videos": item["videos"][rows],
        "a_j": [features[rows] for features in item["a_j"]],
        "chosen": [chosen[rows] for chosen in item["chosen"]],
    }


def _rng(device: torch.device) -> dict[str, Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def _restore_rng(state: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": str(torch.__version__),
        "cuda": str(torch.version.cuda),
    }


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
