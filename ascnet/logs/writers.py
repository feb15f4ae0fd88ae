"""Where a run's numbers go: JSON lines, TensorBoard, Weights & Biases, behind one interface."""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ascnet.config import LogConfig
from ascnet.errors import ConfigError
from ascnet.files import written_whole

Row = Mapping[str, Any]
"""Numbers by name; `step` tells when. None, or a number that is not finite, where a step has no such value."""


class Writer(Protocol):
    """Takes the rows of an interval at a time.

    Attributes:
        name: What a warning calls it.
        patient: Whether it keeps what it could not write and tries again; if not, it is left out after a failure.
    """

    name: str
    patient: bool

    def write(self, steps: Sequence[Row], interval: Row) -> None:
        """Writes the rows of all steps since the last call, oldest first, and the interval's row."""

    def close(self) -> None:
        """Nothing comes after this."""


def open_writers(run: Path, step: int, config: LogConfig, settings: Mapping[str, Any] | None = None) -> list[Writer]:
    """The writers that the configuration asks for.

    Args:
        run: Folder of the run.
        step: Steps already made; what an earlier attempt wrote about later ones is removed, or made again.
        config: Section `log`.
        settings: All settings of the run, for services that show them.

    Raises:
        ConfigError: If `log.wandb` is set and wandb is not installed or does not start.
    """
    writers: list[Writer] = [JsonLines(run, step)]
    if config.tensorboard:
        writers.append(TensorBoard(run / "tensorboard", step))
    if config.wandb is not None:
        writers.append(WeightsAndBiases(run, config.wandb, step, settings or {}))
    return writers


def known(row: Row) -> dict[str, Any]:
    """A row without `step` and without the values that it does not have."""
    return {name: value for name, value in row.items() if name != "step" and not missing(value)}


def missing(value: Any) -> bool:
    """Whether a value is None or not a finite number."""
    return value is None or (isinstance(value, float) and not math.isfinite(value))


class JsonLines:
    """metrics.jsonl, a line a step, and intervals.jsonl, a line an interval; null stands for a missing value."""

    name, patient = "metrics.jsonl", True

    def __init__(self, run: Path, step: int) -> None:
        self._steps, self._intervals = _Lines(run / "metrics.jsonl", step), _Lines(run / "intervals.jsonl", step)

    def write(self, steps: Sequence[Row], interval: Row) -> None:
        self._steps.take(steps)
        self._intervals.take([interval])
        self._steps.write()
        self._intervals.write()

    def close(self) -> None:
        for lines in (self._steps, self._intervals):
            # What a full disk did not take has been told about.
            with contextlib.suppress(OSError):
                lines.write()
            lines.file.close()


class _Lines:
    """A file of JSON lines that never holds half a line, not even on a full disk."""

    def __init__(self, path: Path, step: int) -> None:
        _truncate(path, step)
        self.file = open(path, "ab", buffering=0)  # noqa: SIM115 (closed by JsonLines.close)
        self._size = self.file.tell()
        self._waiting: list[bytes] = []

    def take(self, rows: Sequence[Row]) -> None:
        for row in rows:
            clean = {name: None if missing(value) else value for name, value in row.items()}
            self._waiting.append(json.dumps(clean).encode() + b"\n")

    def write(self) -> None:
        left = memoryview(b"".join(self._waiting))
        total = len(left)
        try:
            while left:
                left = left[self.file.write(left) :]
        except OSError:
            os.ftruncate(self.file.fileno(), self._size)
            raise
        self._size += total
        self._waiting = []


class TensorBoard:
    """Event files for `tensorboard --logdir`."""

    name, patient = "TensorBoard", False

    def __init__(self, folder: Path, step: int) -> None:
        # Imported here because it takes a second and pulls in the whole of TensorBoard.
        from torch.utils.tensorboard import SummaryWriter

        self._board: Any = SummaryWriter(str(folder), purge_step=step + 1)

    def write(self, steps: Sequence[Row], interval: Row) -> None:
        for row in [*steps, interval]:
            for name, value in known(row).items():
                self._board.add_scalar(name, value, row["step"])
        self._board.flush()

    def close(self) -> None:
        self._board.close()


class WeightsAndBiases:
    """A run at Weights & Biases, or with WANDB_MODE=offline in RUN/wandb, for `wandb sync`."""

    name, patient = "W&B", False

    def __init__(self, run: Path, project: str, step: int, settings: Mapping[str, Any]) -> None:
        try:
            wandb = importlib.import_module("wandb")
        except ImportError:
            wandb = None
        # A folder called wandb, which offline runs leave, passes for an empty package.
        if not hasattr(wandb, "init"):
            raise ConfigError(
                f"log.wandb is {project!r}, but wandb is not installed: "
                'pip install "dali-pipes[wandb]", or set log.wandb=null'
            )
        try:
            self._run: Any = wandb.init(  # type: ignore[union-attr]
                project=project,
                name=run.resolve().name,
                id=_identity(run / "wandb_id.txt", fresh=step == 0),
                resume="allow",
                dir=str(run),
                config=dict(settings),
                settings={"console": "off"},  # the progress bar would be recorded a line for each of its states
            )
            # Steps that are made again after a resume come twice; wandb's own counter may not go back.
            self._run.define_metric("step")
            self._run.define_metric("*", step_metric="step")
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ConfigError(
                f"log.wandb is {project!r}, but wandb does not start: {reason}; WANDB_MODE=offline needs no network"
            ) from None

    def write(self, steps: Sequence[Row], interval: Row) -> None:
        for row in steps:
            extra = known(interval) if row is steps[-1] else {}
            self._run.log({"step": row["step"], **known(row), **extra})

    def close(self) -> None:
        self._run.finish()


def _identity(path: Path, *, fresh: bool) -> str:
    """The run's name at the service, kept in the run's folder so that a resumed run goes on in the same one."""
    if not fresh and path.exists():
        return path.read_text(encoding="utf-8").strip()
    name = uuid.uuid4().hex[:12]
    with written_whole(path) as temporary:
        temporary.write_text(name + "\n", encoding="utf-8")
    return name


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
    with written_whole(path) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")
