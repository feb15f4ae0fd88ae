"""One step of training a classifier, and the learning rate of each."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ascnet.errors import TrainingError
from ascnet.evaluate.recognise_config import RecogniseOptim, learning_rate
from ascnet.optim import rate_at
from ascnet.parallel.distributed import Elsewhere
from ascnet.precision import Precision
from dali_pipes import ClipBatch

if TYPE_CHECKING:
    from ascnet.evaluate.recognise_state import RecogniseState


def build_optimizer(classifier: nn.Module, config: RecogniseOptim) -> torch.optim.Optimizer:
    """SGD with momentum or AdamW over what is trained; the rate is set at every step."""
    trained = [parameter for parameter in classifier.parameters() if parameter.requires_grad]
    if config.name == "adamw":
        return torch.optim.AdamW(trained, lr=config.lr, weight_decay=config.weight_decay)
    return torch.optim.SGD(trained, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay)


def rate_of_step(step: int, steps_an_epoch: int, total: int, config: RecogniseOptim, peak: float) -> float:
    """Learning rate: a linear rise, then half a cosine, or falls by `factor` at the milestones.

    Args:
        step: Steps already made.
        steps_an_epoch: Steps of an epoch; milestones and the rise are counted in epochs.
        total: Steps of the whole run.
        config: Section `optim`.
        peak: Highest rate.
    """
    warmup = round(config.warmup_epochs * steps_an_epoch)
    if config.schedule == "cosine" or step < warmup:
        return rate_at(step, total, warmup, peak, config.final_lr_ratio)
    return peak * config.factor ** sum(step >= round(epoch * steps_an_epoch) for epoch in config.milestones)


class TrainStep:
    """Trains on one batch after another."""

    def __init__(
        self,
        state: RecogniseState,
        precision: Precision,
        layout: torch.memory_format,
        labels: NDArray[np.int64],
        total: int,
    ) -> None:
        """
        Args:
            state: Classifier, optimiser and place of the run.
            precision: Number format and device.
            layout: Order of the numbers of clips and filters.
            labels: Class numbers of all videos of the corpus.
            total: Steps of the whole run.
        """
        self.state, self.precision, self.world, self.total = state, precision, state.world, total
        self.parallel = state.world.parallel(state.classifier)
        self._layout = layout
        self._labels = torch.as_tensor(np.array(labels), device=precision.device)
        self._peak = learning_rate(state.config.optim, state.config.data.batch_size * state.world.size)
        self._losses: list[Tensor] = []

    def prepare(self, clips: Tensor) -> Tensor:
        """Clips in the number format and order that the encoder computes in."""
        return clips.to(self.precision.compute).contiguous(memory_format=self._layout)

    def __call__(self, batch: ClipBatch) -> float:
        """One step; the learning rate that it was made with."""
        state, optimizer, scaler = self.state, self.state.optimizer, self.state.scaler
        config = state.config.optim
        rate = rate_of_step(state.step, len(state.loader), self.total, config, self._peak)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
        with self.precision.autocast():
            logits = self.parallel(self.prepare(batch.clips[:, 0]))
        loss = F.cross_entropy(logits, self._labels[batch.videos])
        scaler.scale(loss).backward()
        if config.clip_norm is not None:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_([p for p in state.classifier.parameters() if p.requires_grad], config.clip_norm)
        scaler.step(optimizer)
        scaler.update()
        # The value stays on the device until it is asked for: reading it would wait for the step.
        self._losses.append(self.world.sum(loss.detach()) / self.world.size)
        return rate

    def finished(self) -> list[float]:
        """Mean losses of the steps since the last call, over all processes.

        Raises:
            TrainingError: If one is not a finite number, but for single ones that loss scaling (fp16) makes up for.
        """
        if not self._losses:
            return []
        values = torch.stack(self._losses).tolist()
        self._losses = []
        bad = [place for place, value in enumerate(values) if not math.isfinite(value)]
        if bad and (not self.state.scaler.is_enabled() or len(bad) == len(values) > 1):
            if not self.world.is_first:
                raise Elsewhere
            step = self.state.step - len(values) + bad[0] + 1
            raise TrainingError(
                f"loss is {values[bad[0]]} at step {step}: lower optim.lr (now {self._peak:.3g} at its peak), set "
                "optim.clip_norm, or use precision=fp32"
            )
        return values
