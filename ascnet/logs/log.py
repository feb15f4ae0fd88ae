"""What a run tells: a row for every step, one for every interval, progress on the screen, and what looks wrong.

Every step is recorded. Values that lie on the device stay there until `flush`, so that recording costs no waiting.
docs/logging.md lists the names; `ascnet.logs.writers` has the places they are written to.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from ascnet.config import LogConfig
from ascnet.errors import TrainingError
from ascnet.logs.writers import Writer, missing, open_writers

# GradScaler halves its scale at every overflow; a run that overflows this often in a row has diverged.
OVERFLOWS = 50
# Values of the steps whose mean an interval's row has, as mean/NAME.
AVERAGED = (
    *("loss", "loss_acp", "loss_scp", "grad_norm", "feature_std", "motion_std"),
    *("scp_share", "positive_same_label", "retrieval_agreement"),
)


class TrainLog:
    """Metrics and progress of one run.

    Attributes:
        last: Values of the last step that was written.
        interval: Values of the last interval that was written.
    """

    def __init__(
        self,
        run: Path,
        total: int,
        step: int,
        config: LogConfig,
        *,
        tolerate_overflow: bool = False,
        watch_loss: bool = True,
        world_size: int = 1,
        sources: Sequence[Callable[[], Mapping[str, float]]] = (),
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """
        Args:
            run: Folder of the run.
            total: Steps of the whole run.
            step: Steps already made; what an earlier attempt wrote about later ones is removed.
            config: Section `log`.
            tolerate_overflow: Whether single losses that are not finite are expected (fp16 with loss scaling).
            watch_loss: Whether losses that are not finite end the run here; False where the caller sees to it.
            world_size: Processes, one a GPU, that `clips_per_second` is counted over.
            sources: Each gives further values of an interval; one that fails is told about once.
            settings: All settings of the run, for services that show them.
        """
        self.last: dict[str, Any] = {}
        self.interval: dict[str, Any] = {}
        self._config, self._total, self._first = config, total, step
        self._world_size, self._sources = world_size, list(sources)
        self._rows: list[dict[str, Any]] = []
        patience = OVERFLOWS if tolerate_overflow else 1
        self._watch = Watch(self.say, config.collapse_std, patience if watch_loss else None)
        self._told: set[str] = set()
        self._started = time.monotonic()
        self._console = Console(stderr=True, highlight=False)
        self._bar: Progress | None = None
        self._writers: list[Writer] = open_writers(run, step, config, settings)
        if self._console.is_terminal:
            columns = (
                TextColumn("pretrain"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[text]}"),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=self._console)
            self._task = self._bar.add_task("pretrain", total=total, completed=step, text="")
            self._bar.start()

    def add_source(self, source: Callable[[], Mapping[str, float]]) -> None:
        """Asks a function for further values at every interval from now on."""
        self._sources.append(source)

    def record(self, row: dict[str, Any]) -> None:
        """Keeps the values of a step (numbers, or scalars on the device); writes at every `log.interval`-th step."""
        self._rows.append(row)
        if self._bar is not None:
            self._bar.update(self._task, completed=row["step"])
        if row["step"] % self._config.interval == 0 or row["step"] == self._total:
            self.flush()

    def flush(self) -> None:
        """Writes what has been recorded.

        Raises:
            TrainingError: If a loss is not a finite number; the steps up to that one are written.
        """
        if not self._rows:
            return
        rows, self._rows = _fetched(self._rows), []
        wrong = None
        for number, row in enumerate(rows, start=1):
            wrong = self._watch(row)
            if wrong is not None:
                rows = rows[:number]
                break
        self.last = {name: None if missing(value) else value for name, value in rows[-1].items()}
        self.interval = self._summary(rows)
        for writer in list(self._writers):
            self._write(writer, rows)
        if wrong is not None:
            raise wrong
        self._show(rows)

    def say(self, text: str) -> None:
        """One line on the screen, above the progress bar where there is one."""
        (self._bar.console if self._bar is not None else self._console).print(text, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Ends the progress bar and closes the files; nothing is written that was not flushed."""
        if self._bar is not None:
            self._bar.stop()
        for writer in self._writers:
            try:
                writer.close()
            except Exception as error:
                self._say_once(writer.name, f"{writer.name} was not closed: {_line(error)}")

    def _write(self, writer: Writer, rows: list[dict[str, Any]]) -> None:
        # A full disk, or a service out of reach, must not end the training.
        try:
            writer.write(rows, self.interval)
        except Exception as error:
            if not writer.patient:
                self._writers.remove(writer)
            after = "it is kept and tried again" if writer.patient else "the run goes on without it"
            self._say_once(writer.name, f"{writer.name} cannot be written: {_line(error)}; {after}")
        else:
            self._told.discard(writer.name)

    def _summary(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """The interval's row: means, rates by the time of the steps, and what the sources have."""
        found: dict[str, Any] = {"step": rows[-1]["step"]}
        for name in AVERAGED:
            values = [row[name] for row in rows if not missing(row.get(name))]
            if values:
                found[f"mean/{name}"] = sum(values) / len(values)
        timed = [row for row in rows if row.get("step_seconds")]
        seconds = sum(row["step_seconds"] for row in timed)
        if seconds > 0:
            found["rate/steps_per_second"] = len(timed) / seconds
            clips = sum(row.get("clips_per_second", 0.0) * row["step_seconds"] for row in timed) / seconds
            found["rate/clips_per_second"] = clips
            found["rate/clips_per_second_per_gpu"] = clips / self._world_size
            found["rate/wait_share"] = sum(row.get("wait_share", 0.0) * row["step_seconds"] for row in timed) / seconds
        for number, source in enumerate(self._sources):
            try:
                found.update(source())
            except Exception as error:
                self._say_once(f"source {number}", f"some values are not recorded: {_line(error)}")
        return found

    def _show(self, rows: list[dict[str, Any]]) -> None:
        def mean(name: str, form: str) -> str:
            values = [row[name] for row in rows if not missing(row.get(name))]
            return format(sum(values) / len(values), form) if values else "-"

        row = rows[-1]
        text = (
            f"loss {mean('loss', '.4f')} acp {mean('loss_acp', '.4f')} scp {mean('loss_scp', '.4f')} "
            f"lr {row['lr']:.3g} std {mean('feature_std', '.2f')} {mean('clips_per_second', '.1f')} clips/s "
            f"wait {mean('wait_share', '.0%')}"
        )
        for name, short in (("gpu/sm_load", "gpu"), ("gpu/decoder_load", "dec")):
            if name in self.interval:
                text += f" {short} {self.interval[name]:.0%}"
        if self._bar is not None:
            self._bar.update(self._task, text=text)
            return
        spent = time.monotonic() - self._started
        left = spent / (row["step"] - self._first) * (self._total - row["step"])
        clock = f"{int(left) // 3600}:{int(left) // 60 % 60:02d}:{int(left) % 60:02d}"
        place = f"step {row['step']}/{self._total} epoch {row['epoch']:.2f}"
        print(place, text, "left", clock, file=sys.stderr, flush=True)

    def _say_once(self, about: str, text: str) -> None:
        if about not in self._told:
            self._told.add(about)
            self.say(f"warning: {text}")


class Watch:
    """Looks at every step for what goes wrong, and says it when it begins."""

    def __init__(self, say: Callable[[str], None], collapse_std: float, patience: int | None) -> None:
        """
        Args:
            say: Shows a line.
            collapse_std: The features may be collapsing where `feature_std` is below this.
            patience: Losses in a row that are not finite and end the run; None: any number of them.
        """
        self._say, self._collapse_std, self._patience = say, collapse_std, patience
        self._overflows = 0
        self._collapsed = self._without_scp = False

    def __call__(self, row: Mapping[str, Any]) -> TrainingError | None:
        """Looks at a step; the error that ends the run, where one does."""
        if math.isfinite(row["loss"]):
            self._overflows = 0
        else:
            self._overflows += 1
            if self._patience is not None and self._overflows >= self._patience:
                return TrainingError(
                    f"loss is {row['loss']} at step {row['step']} (lr {row['lr']:.3g}, gradient norm "
                    f"{row['grad_norm']:.3g}): lower optim.lr, set optim.clip_norm, or use precision=fp32"
                )
        if (row["scp_share"] == 0) != self._without_scp:
            self._without_scp = not self._without_scp
            self._say(
                f"step {row['step']}: "
                + (
                    "no positives yet, the speed loss is left out"
                    if self._without_scp
                    else f"positives for {row['scp_share']:.0%} of the samples, the speed loss is in"
                )
            )
        if (row["feature_std"] < self._collapse_std) != self._collapsed:
            self._collapsed = not self._collapsed
            if self._collapsed:
                self._say(
                    f"warning: step {row['step']}: feature_std is {row['feature_std']:.3f}, below "
                    f"{self._collapse_std:g}: the features may be collapsing to a point"
                )
        return None


def _fetched(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of numbers; scalars on the device come in one transfer for all values of all steps."""
    scalars = [value for row in rows for value in row.values() if isinstance(value, Tensor)]
    if not scalars:
        return rows
    device = next((value.device for value in scalars if value.is_cuda), scalars[0].device)
    stacked = torch.stack([value.detach().to(device, torch.float64).reshape(()) for value in scalars])
    numbers = iter(stacked.tolist())
    return [
        {name: next(numbers) if isinstance(value, Tensor) else value for name, value in row.items()} for row in rows
    ]


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
