"""One step of training: lines 6 to 12 of Algorithm 1 for one batch, then the bank's rows of its videos.

A batch is trained on in `optim.accumulate` parts, in each direction, one backward pass for each. Of several processes
each has its share of the batch; they average gradients in the last of those passes. A step whose loss or gradient is
not finite in any of them changes nothing in any of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ascnet.bank.shards import Bank
from ascnet.build import build_bank, memory_format, place_model
from ascnet.config import Config
from ascnet.logs.profile import region
from ascnet.model import ASCNet, Losses
from ascnet.optim import build_optimizer
from ascnet.parallel.distributed import World
from ascnet.precision import Precision
from ascnet.retrieval import DIRECTIONS, Item, LookAhead, Positives
from ascnet.training.running_stats import RunningStats

if TYPE_CHECKING:
    from dali_pipes import Corpus


@dataclass
class Outcome:
    """What a step yields.

    Attributes:
        values: Scalars to record, over all processes; they may lie on the device.
        finite: Whether loss and gradient were finite in all processes; the step was skipped where not.
    """

    values: dict[str, Tensor]
    finite: bool


class TrainStep:
    """Trains on one item of the look-ahead after another."""

    def __init__(
        self,
        model: ASCNet,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        bank: Bank,
        config: Config,
        precision: Precision,
        world: World,
    ) -> None:
        self.model, self.optimizer, self.scaler, self.bank = model, optimizer, scaler, bank
        self.config, self.precision, self.world = config, precision, world
        self.running = RunningStats(model)
        self.parallel = world.parallel(model)
        self._layout = memory_format(config)

    @classmethod
    def fresh(cls, config: Config, corpus: Corpus, world: World, *, resumed: bool = False) -> TrainStep:
        """A step whose parts are all new: model, optimiser, scaler and an empty bank, as a run begins with them.

        What is `resumed` gets its weights from a checkpoint later, so `model.init` is not read.
        """
        precision = Precision(config.precision, world.device)
        with world.together():
            torch.manual_seed(config.seed)
            model = place_model(config, world, precision, resumed=resumed)
            optimizer = build_optimizer(model, config.optim)
        scaler = torch.amp.GradScaler(world.device.type, enabled=precision.name == "fp16")
        bank = build_bank(config, corpus, world.device, precision)
        return cls(model, optimizer, scaler, bank, config, precision, world)

    def prepare(self, clips: Tensor) -> Tensor:
        """Clips in the number format and order that the encoder computes in."""
        return clips.to(self.precision.compute).contiguous(memory_format=self._layout)

    def appearance_target(self, c_j: Tensor) -> Tensor:
        """a_j (B, D) of clips (B, 3, T, H, W), part by part as the batch is trained on."""
        parts = c_j.tensor_split(self.config.optim.accumulate)
        with region("target forward"), self.precision.autocast():
            return torch.cat([self.model.appearance_target(self.prepare(part)) for part in parts])

    def __call__(self, item: Item, ahead: LookAhead, momentum: float) -> Outcome:
        """One step.

        Args:
            item: The batch.
            ahead: Where its positives are waited for.
            momentum: Of the target's average.
        """
        self.optimizer.zero_grad(set_to_none=True)
        parts, outputs = self.config.optim.accumulate, []
        collected: list[list[Positives]] = [[] for _ in item.a_j]
        passes = [(direction, part) for direction in range(len(item.a_j)) for part in range(parts)]
        for number, (direction, part) in enumerate(passes):
            last = number == len(passes) - 1
            with self._gradients_averaged(last):
                output = self._forward(item, ahead, direction, part, collected[direction])
                outputs.append(output)
                if last:
                    # Fetched while the device is busy with the backward pass, which nothing then waits for.
                    flag = self._spoilt(outputs)
                with region("backward"):
                    self.scaler.scale(output.loss / len(passes)).backward()
            output.loss = output.loss.detach()
        norm, finite = self._gradients(lost=flag())
        if finite:
            self._update(momentum)
        self.running.keep()
        by_direction = [outputs[start : start + parts] for start in range(0, len(outputs), parts)]
        if finite:
            self._remember(item, by_direction)
        return Outcome({**self._values(outputs, by_direction[0]), "grad_norm": norm}, finite)

    def _forward(self, item: Item, ahead: LookAhead, direction: int, part: int, collected: list[Positives]) -> Losses:
        anchor, _ = DIRECTIONS[direction]
        rows = np.array_split(np.arange(len(item.videos)), self.config.optim.accumulate)[part]
        here = slice(int(rows[0]), int(rows[-1]) + 1)

        def retrieve() -> tuple[Tensor | None, Tensor]:
            # The positives of all parts of a batch arrive together.
            if not collected:
                collected.extend(ahead.collect(item, direction))
            own = collected[part]
            return (None if own.clips is None else self.prepare(own.clips)), own.found

        with region("online forward"), self.precision.autocast():
            return self.parallel(self.prepare(item.batch.clips[here, anchor]), item.a_j[direction][here], retrieve)

    def _gradients_averaged(self, last: bool) -> AbstractContextManager[None]:
        if last or not isinstance(self.parallel, nn.parallel.DistributedDataParallel):
            return nullcontext()
        return self.parallel.no_sync()

    def _spoilt(self, outputs: list[Losses]) -> Callable[[], bool]:
        """Asks whether a loss of any process is not finite; the answer is there when the device has come so far."""
        losses = torch.stack([output.loss.detach() for output in outputs])
        spoilt = self.world.sum((~losses.isfinite()).any().float()).to("cpu", non_blocking=True)
        if losses.device.type != "cuda":
            return lambda: bool(spoilt)
        arrived = torch.cuda.Event()
        arrived.record()

        def answer() -> bool:
            arrived.synchronize()
            return bool(spoilt)

        return answer

    def _gradients(self, *, lost: bool) -> tuple[Tensor, bool]:
        """Norm of the gradients, which are clipped then, and whether the step is to be made.

        Args:
            lost: Whether the loss is not finite, so that the gradients are not looked at.
        """
        self.scaler.unscale_(self.optimizer)
        if lost:
            # The loss may have overflowed: lower its scale, as for gradients that do.
            self.scaler.update()
            return torch.full((), math.nan, device=self.world.device), False
        trained = [parameter for parameter in self.model.parameters() if parameter.grad is not None]
        norm = nn.utils.get_total_norm([parameter.grad for parameter in trained])  # type: ignore[misc]
        if self.config.optim.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(trained, self.config.optim.clip_norm, norm)
        # Gradients of fp16 overflow now and then, and its scaler sees to that. They are the same in all processes.
        return norm, self.scaler.is_enabled() or bool(norm.isfinite())

    def _update(self, momentum: float) -> None:
        with region("step"):
            self.scaler.step(self.optimizer)
            self.scaler.update()
        with region("ema"):
            self.model.update_target(momentum)

    def _remember(self, item: Item, by_direction: list[list[Losses]]) -> None:
        features = item.a_j
        if self.config.retrieval.source == "online":
            features = [torch.cat([output.a_i for output in outputs]) for outputs in by_direction]
        if len(features) > 1 and self.config.model.normalize:
            features = [F.normalize(feature, dim=1) for feature in features]
        self.bank.update(torch.as_tensor(item.videos), torch.stack(features).mean(dim=0))

    def _values(self, outputs: list[Losses], first: list[Losses]) -> dict[str, Tensor]:
        positives = [output.positives for output in outputs]
        weighted = [
            output.scp * count if count else torch.zeros_like(output.scp)
            for output, count in zip(outputs, positives, strict=True)
        ]
        sums = torch.stack(
            [
                torch.stack([output.loss for output in outputs]).mean(),
                torch.stack([output.acp for output in outputs]).mean(),
                torch.stack(weighted).sum(),
                weighted[0].new_full((), sum(positives)),
            ]
        )
        loss, acp, scp, count = self.world.sum(sums).unbind()
        speed = [output.m_i for output in first if output.m_i is not None]
        return {
            "loss": loss / self.world.size,
            "loss_acp": acp / self.world.size,
            "loss_scp": scp / count,
            "feature_std": spread(self.world.stack(torch.cat([output.a_i for output in first]))),
            "motion_std": spread(self.world.stack(torch.cat(speed))) if speed else loss.new_full((), math.nan),
        }


def spread(features: Tensor) -> Tensor:
    """Standard deviation over the batch of features (B, D) of unit length, times sqrt(D).

    1 for features all over the sphere, 0 when all have collapsed to one point (SimSiam, Chen and He 2021, section 4.1).
    """
    return F.normalize(features, dim=1).std(dim=0).mean() * math.sqrt(features.shape[1])
