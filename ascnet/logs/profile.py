"""A trace of a few steps with their parts named, for chrome://tracing and ui.perfetto.dev.

    with region("backward"):    # costs next to nothing while no trace is made
        loss.backward()

Under Nsight Systems the same regions are NVTX ranges.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from ascnet.errors import ConfigError
from ascnet.files import written_whole

REGIONS = ("wait", "target forward", "retrieval", "online forward", "backward", "step", "ema")
"""Names of the parts of a training step."""

_OFF: AbstractContextManager[None] = nullcontext()
# NVTX's own way to know that a tool listens.
_listened = "NVTX_INJECTION64_PATH" in os.environ
_tracing = False


def region(name: str) -> AbstractContextManager[Any]:
    """Names what happens within the block in the trace that is being made; without one it does nothing."""
    if not (_tracing or _listened):
        return _OFF
    return _named(name)


@contextmanager
def _named(name: str) -> Any:
    nvtx = _listened and torch.cuda.is_available()
    if nvtx:
        torch.cuda.nvtx.range_push(name)
    try:
        with torch.profiler.record_function(name):
            yield
    finally:
        if nvtx:
            torch.cuda.nvtx.range_pop()


class Profiler:
    """Traces a window of steps and writes it to RUN/profile. A context manager around the training loop.

        with Profiler(run, config.log.profile, device) as profiler:
            while step < total:
                profiler.advance(step)
                ...

    A profiler that does not work, or a full disk, costs the trace and a warning, never the run.
    """

    def __init__(
        self,
        run: Path,
        window: tuple[int, int] | None,
        device: torch.device,
        *,
        rank: int = 0,
        say: Callable[[str], None] = print,
    ) -> None:
        """
        Args:
            run: Folder of the run.
            window: First and last step of the trace, counted from 1 as in metrics.jsonl; None: no trace.
            device: Where the training runs; on a GPU the trace has its kernels, too.
            rank: Number of this process; every one has a trace of its own.
            say: Shows a line.
        """
        self._run, self._window, self._device, self._rank, self._say = run, window, device, rank, say
        self._profile: Any = None
        self._first = self._last = 0

    def __enter__(self) -> Profiler:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def advance(self, step: int) -> None:
        """Begins or ends the trace where it is time for it.

        Args:
            step: Steps already made; call it before each.
        """
        if self._window is None:
            return
        if step >= self._window[1]:
            self.close()
        elif self._profile is not None:
            self._last = step + 1
        elif step + 1 >= self._window[0]:
            self._begin(step + 1)

    def close(self) -> None:
        """Writes a trace that is still being made: the run ended within the window."""
        self._end()
        self._window = None

    def _begin(self, step: int) -> None:
        global _tracing
        self._first = self._last = step
        try:
            activities = [torch.profiler.ProfilerActivity.CPU]
            if self._device.type == "cuda":
                activities.append(torch.profiler.ProfilerActivity.CUDA)
            profile = torch.profiler.profile(activities=activities)
            profile.start()
        except Exception as error:
            self._window = None
            self._say(f"warning: no trace is made: {' '.join(str(error).split())}")
            return
        self._profile, _tracing = profile, True

    def _end(self) -> None:
        global _tracing
        if self._profile is None:
            return
        profile, self._profile, _tracing = self._profile, None, False
        path = self._run / "profile" / f"steps_{self._first}-{self._last}.rank{self._rank}.json"
        try:
            if self._device.type == "cuda":
                # Kernels of the last step that are still to run belong to it.
                torch.cuda.synchronize(self._device)
            profile.stop()
            with written_whole(path) as temporary:
                profile.export_chrome_trace(str(temporary))
        except Exception as error:
            reason = " ".join(str(error).split())
            self._say(f"warning: the trace of steps {self._first} to {self._last} is lost: {reason}")
            return
        self._say(f"trace of steps {self._first} to {self._last}: {path}")


def window(text: str) -> tuple[int, int]:
    """First and last step from `A:B`, as `--profile` takes them.

    Raises:
        ConfigError: If it is not that, A is below 1, or B is below A.
    """
    first, colon, last = text.partition(":")
    if not (colon and first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
        raise ConfigError(f"--profile {text}: expected the first and the last step, such as 100:110")
    return int(first), int(last)


def as_override(text: str) -> str:
    """`--profile A:B` as the override `log.profile=A,B`."""
    first, last = window(text)
    return f"log.profile={first},{last}"
