"""What a checkpoint of a fine-tuning or linear classification holds, and whether a run may go on from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ascnet import checkpoint
from ascnet.errors import CheckpointError, TrainingError
from ascnet.evaluate.classifier import Classifier
from ascnet.evaluate.recognise_config import RecogniseConfig
from ascnet.files import written_whole
from ascnet.parallel.distributed import World
from ascnet.settings import flatten
from dali_pipes import Corpus, SpeedLoader

FREE = (
    "log_interval", "checkpoint_interval", "keep", "data.corpus", "data.threads", "data.prefetch", "device",
    "model.checkpoint", "test.batch_size",
)  # fmt: skip
"""Settings that a resumed run may change: none of them changes what is computed."""


@dataclass
class RecogniseState:
    """The parts of a run that change.

    Attributes:
        config: All settings, resolved.
        pretrained: Settings of the run that the encoder comes from; None for random weights.
        corpus: The videos, with what is held out.
        step: Steps made.
        validated: Epochs behind the last validation.
        best: `epoch` and `top1` of the best validation so far; empty before the first.
        history: A row for each validation.
    """

    config: RecogniseConfig
    pretrained: dict[str, Any] | None
    corpus: Corpus
    world: World
    classifier: Classifier
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    loader: SpeedLoader
    step: int = 0
    validated: int = 0
    best: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)

    def save(self, run: Path) -> Path | None:
        """Writes a checkpoint; all processes call it, and the first one writes and returns the path.

        Raises:
            TrainingError: If the weights are not finite; no such state is ever saved.
            OSError: If it cannot be written.
        """
        if not torch.stack([p.isfinite().all() for p in self.classifier.parameters()]).all():
            raise TrainingError(
                f"the weights are not finite after step {self.step}, so they are not saved: lower optim.lr, set "
                "optim.clip_norm, or use precision=fp32"
            )
        states = self.world.gather(_random_state(self.world.device))
        if not self.world.is_first:
            return None
        payload = {
            **self._contents(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "loader": self.loader.state_dict(),
            "rng": states,
            "batch": self._whole_batch,
            "validated": self.validated,
            "best": self.best,
            "history": self.history,
        }
        with self.world.writing():
            return checkpoint.save(run, self.step, payload, keep=self.config.keep)

    def save_best(self, run: Path) -> None:
        """Writes the weights to checkpoints/best.pt, on the first process."""
        if self.world.is_first:
            with self.world.writing(), written_whole(run / "checkpoints" / "best.pt") as path:
                torch.save({"format": checkpoint.FORMAT, **self._contents(), "best": self.best}, path)

    def restore(self, saved: dict[str, Any]) -> None:
        """Takes up a checkpoint.

        Raises:
            CheckpointError: If it is of another total batch, or does not fit.
        """
        if saved["batch"] != self._whole_batch:
            raise CheckpointError(
                f"the checkpoint was made with {saved['batch']} videos a step on all processes, this run has "
                f"{self._whole_batch}; set data.batch_size so that the total is the same"
            )
        self.classifier.load_weights(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        if bool(saved["scaler"]) == self.scaler.is_enabled():
            self.scaler.load_state_dict(saved["scaler"])
        self.loader.load_state_dict(saved["loader"])
        if len(saved["rng"]) == self.world.size:
            _set_random_state(saved["rng"][self.world.rank], self.world.device)
        self.step, self.validated = saved["step"], saved["validated"]
        self.best, self.history = saved["best"], saved["history"]

    @property
    def _whole_batch(self) -> int:
        return self.config.data.batch_size * self.world.size

    def _contents(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "model": self.classifier.weights(),
            "config": self.config.to_dict(),
            "pretrained": self.pretrained,
            "classes": self.corpus.classes,
            "corpus": {"fingerprint": self.corpus.fingerprint, "videos": len(self.corpus)},
        }


def check_same(saved: dict[str, Any], config: RecogniseConfig, corpus: Corpus, path: Path) -> None:
    """Whether a run may go on from a checkpoint.

    Args:
        saved: The checkpoint.
        config: Settings to go on with, resolved.
        corpus: Videos to go on with, with what is held out.
        path: Of the checkpoint.

    Raises:
        CheckpointError: If it was made with other settings or other videos.
    """
    if "pretrained" not in saved:
        raise CheckpointError(f"{path}: a checkpoint of `ascnet pretrain`; give another --out")
    # Keys that are younger than the checkpoint had no effect when it was made.
    then, now = flatten(RecogniseConfig().to_dict()) | flatten(saved["config"]), flatten(config.to_dict())
    changed = [n for n in sorted(now.keys() | then.keys()) if now.get(n) != then.get(n) and n not in FREE]
    if changed:
        shown = ", ".join(f"{name} {then.get(name)!r} -> {now.get(name)!r}" for name in changed)
        raise CheckpointError(
            f"{path} was made with other settings ({shown}); resume with those, or give another --out"
        )
    if saved["corpus"]["fingerprint"] != corpus.fingerprint:
        raise CheckpointError(
            f"{path} was made with another corpus ({saved['corpus']['videos']} videos, fingerprint "
            f"{saved['corpus']['fingerprint']}); this one has {len(corpus)} and {corpus.fingerprint}"
        )


def _random_state(device: torch.device) -> dict[str, torch.Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def _set_random_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
