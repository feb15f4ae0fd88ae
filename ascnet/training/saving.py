"""Checkpoints of a run in time, and what becomes of the run when one cannot be written."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from ascnet.errors import CheckpointError
from ascnet.training.run_state import RunState


class Saver:
    """Writes checkpoints of a run; a disk that is full does not end it.

    Attributes:
        path: The newest checkpoint; None while there is none.
        seconds: How long the last attempt took.
    """

    def __init__(self, state: RunState, run: Path, say: Callable[[str], None], path: Path | None) -> None:
        """
        Args:
            state: What is saved.
            run: Folder of the run.
            say: Shows a line.
            path: The checkpoint that the run goes on from.
        """
        self.path, self.seconds = path, 0.0
        self._state, self._run, self._say = state, run, say
        self._step = state.step if path is not None else -1
        self._advise()

    def save(self, *, last: bool = False) -> None:
        """Writes a checkpoint of the state, unless that of its step is there; all processes call it.

        Args:
            last: Whether the run ends here.

        Raises:
            CheckpointError: If the last one cannot be written; an earlier failure is only shown.
            TrainingError: If the weights are not finite.
        """
        step = self._state.step
        if self._step == step:
            return
        started = time.monotonic()
        try:
            self.path = self._state.save(self._run)
            self._step = step
        except OSError as error:
            newest = f"the newest one is {self.path}" if self.path is not None else "there is none yet"
            reason = error.strerror or error
            if last:
                raise CheckpointError(
                    f"{self._run / 'checkpoints'}: the checkpoint of step {step} cannot be written: {reason}; {newest}"
                ) from None
            self._say(f"warning: the checkpoint of step {step} cannot be written: {reason}; {newest}. The run goes on")
        self.seconds = time.monotonic() - started
        self._advise()

    def _advise(self) -> None:
        lifeline = self._state.world.lifeline
        if lifeline is not None:
            newest = self._run / "checkpoints" / "last.pt"
            lifeline.advice = (
                f"; --resume goes on from {newest}" if self._step >= 0 else "; no checkpoint is written yet"
            )
