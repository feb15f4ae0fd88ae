"""Progress of a long job: a bar with rate and time left on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")

# Seconds between plain lines: the log of an hour's job stays readable.
BETWEEN_LINES = 10.0


class Progress:
    """Counts items done and says so on standard error. A context manager.

    Args:
        what: What is being done.
        total: How many items there are.
        unit: What is counted, in the plural.
        enabled: False for silence.
    """

    def __init__(self, what: str, total: int, *, unit: str = "videos", enabled: bool = True) -> None:
        self.what, self.total, self.unit, self.done = what, total, unit, 0
        self._enabled = enabled and total > 0
        self._begun = self._said = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        if self._enabled and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[speed]}"),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task(self.what, total=self.total, speed="")
            self._bar.start()
        return self

    def advance(self, count: int = 1) -> None:
        """So many more items are done."""
        self.done += count
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, speed=f"{self._rate():.1f} {self.unit}/s")
        elif self._enabled and time.monotonic() - self._said >= BETWEEN_LINES and self.done < self.total:
            self._say()

    def _rate(self) -> float:
        return self.done / max(time.monotonic() - self._begun, 1e-9)

    def _say(self) -> None:
        self._said = time.monotonic()
        left = (self.total - self.done) / max(self._rate(), 1e-9)
        tail = f", {left:.0f} s left" if self.done < self.total else ""
        line = f"{self.what}: {self.done}/{self.total} {self.unit}, {self._rate():.1f} {self.unit}/s{tail}"
        print(line, file=sys.stderr, flush=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._enabled and self.done:
            self._say()


def track(items: Sequence[T], what: str, *, unit: str = "videos", enabled: bool = True) -> Iterator[T]:
    """Yields the items, showing how far the loop over them is."""
    with Progress(what, len(items), unit=unit, enabled=enabled) as progress:
        for item in items:
            yield item
            progress.advance()
