"""What a run tells: metrics.jsonl, TensorBoard, and progress on the screen.

Every step is recorded. Values that lie on the device stay there until `flush`, so that recording costs no waiting.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from ascnet.config import LogConfig
from ascnet.errors import TrainingError

# GradScaler halves its scale at every overflow; a run that overflows this often in a row has diverged.
OVERFLOWS = 50


class TrainLog:
    """Metrics and progress of one run.

    Attributes:
        last: Values of the last step that was written.
    """

    def __init__(self, run: Path, total: int, step: int, config: LogConfig, *, tolerate_overflow: bool = False) -> None:
        """
        Args:
            run: Folder of the run.
            total: Steps of the whole run.
            step: Steps already made; later lines of an earlier attempt are removed from metrics.jsonl.
            config: Section `log`.
            tolerate_overflow: Whether single losses that are not finite are expected (fp16 with loss scaling).
        """
        self.last: dict[str, Any] = {}
        self._config, self._total, self._first = config, total, step
        self._rows: list[dict[str, Any]] = []
        self._patience = OVERFLOWS if tolerate_overflow else 1
        self._overflows = 0
        self._collapsed = self._without_scp = False
        self._started = time.monotonic()
        path = run / "metrics.jsonl"
        _truncate(path, step)
        self._file: TextIO = open(path, "a", encoding="utf-8")  # noqa: SIM115 (closed by close)
        self._board = _open_board(run / "tensorboard", step) if config.tensorboard else None
        self._console = Console(stderr=True, highlight=False)
        self._bar: Progress | None = None
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
            TrainingError: If a loss is not a finite number.
        """
        if not self._rows:
            return
        rows, self._rows = self._fetched(), []
        for row in rows:
            clean = {name: None if _missing(value) else value for name, value in row.items()}
            self._file.write(json.dumps(clean) + "\n")
            if self._board is not None:
                for name, value in clean.items():
                    if name != "step" and value is not None:
                        self._board.add_scalar(name, value, row["step"])
            self._watch(row)
        self._file.flush()
        if self._board is not None:
            self._board.flush()
        self.last = clean
        self._show(rows)

    def say(self, text: str) -> None:
        """One line on the screen, above the progress bar where there is one."""
        (self._bar.console if self._bar is not None else self._console).print(text, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Ends the progress bar and closes the files; nothing is written that was not flushed."""
        if self._bar is not None:
            self._bar.stop()
        self._file.close()
        if self._board is not None:
            self._board.close()

    def _fetched(self) -> list[dict[str, Any]]:
        names = [name for name, value in self._rows[0].items() if isinstance(value, Tensor)]
        if not names:
            return self._rows
        # One transfer for all values of all steps.
        table = torch.stack([torch.stack([row[name].double() for name in names]) for row in self._rows]).tolist()
        pairs = zip(self._rows, table, strict=True)
        return [{**row, **dict(zip(names, values, strict=True))} for row, values in pairs]

    def _watch(self, row: dict[str, Any]) -> None:
        if math.isfinite(row["loss"]):
            self._overflows = 0
        else:
            self._overflows += 1
            if self._overflows >= self._patience:
                raise TrainingError(
                    f"loss is {row['loss']} at step {row['step']} (lr {row['lr']:.3g}, gradient norm "
                    f"{row['grad_norm']:.3g}): lower optim.lr, set optim.clip_norm, or use precision=fp32"
                )
        if (row["scp_share"] == 0) != self._without_scp:
            self._without_scp = not self._without_scp
            self.say(
                f"step {row['step']}: "
                + (
                    "no positives yet, the speed loss is left out"
                    if self._without_scp
                    else f"positives for {row['scp_share']:.0%} of the samples, the speed loss is in"
                )
            )
        if (row["feature_std"] < self._config.collapse_std) != self._collapsed:
            self._collapsed = not self._collapsed
            if self._collapsed:
                self.say(
                    f"warning: step {row['step']}: feature_std is {row['feature_std']:.3f}, below "
                    f"{self._config.collapse_std:g}: the features may be collapsing to a point"
                )

    def _show(self, rows: list[dict[str, Any]]) -> None:
        def mean(name: str, form: str) -> str:
            values = [row[name] for row in rows if not _missing(row[name])]
            return format(sum(values) / len(values), form) if values else "-"

        row = rows[-1]
        text = (
            f"loss {mean('loss', '.4f')} acp {mean('loss_acp', '.4f')} scp {mean('loss_scp', '.4f')} "
            f"lr {row['lr']:.3g} std {mean('feature_std', '.2f')} {mean('clips_per_second', '.1f')} clips/s "
            f"wait {mean('wait_share', '.0%')}"
        )
        if self._bar is not None:
            self._bar.update(self._task, text=text)
            return
        spent = time.monotonic() - self._started
        left = spent / (row["step"] - self._first) * (self._total - row["step"])
        clock = f"{int(left) // 3600}:{int(left) // 60 % 60:02d}:{int(left) % 60:02d}"
        place = f"step {row['step']}/{self._total} epoch {row['epoch']:.2f}"
        print(place, text, "left", clock, file=sys.stderr, flush=True)


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def _truncate(path: Path, step: int) -> None:
    # A run that was killed may have recorded steps after its last checkpoint; they will be made again.
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        try:
            row = json.loads(line)
        except ValueError:  # the last line of a killed run may be half a line
            continue
        if row["step"] <= step:
            kept.append(line if line.endswith("\n") else line + "\n")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text("".join(kept), encoding="utf-8")
    os.replace(temporary, path)


def _open_board(folder: Path, step: int) -> Any:
    # Imported here because it takes a second and pulls in the whole of TensorBoard.
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step + 1)
