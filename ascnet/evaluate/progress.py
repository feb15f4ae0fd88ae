"""Progress of a loop over videos: a bar with rate and time left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")

EVERY = 15.0
"""Seconds between lines where there is no terminal."""


class Meter:
    """Counts work done. A context manager; `advance` is called after each piece of it.

    Args:
        total: How much there is.
        title: What is being done.
        unit: What is counted.
        enabled: False shows nothing.
    """

    def __init__(self, total: int, title: str, *, unit: str = "videos", enabled: bool = True) -> None:
        self.total, self.title, self.unit, self.enabled = total, title, unit, enabled
        self.done = 0
        self._bar: Progress | None = None

    def __enter__(self) -> Meter:
        self._begin = self._said = time.monotonic()
        console = Console(stderr=True)
        if self.enabled and console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=console,
            )
            self._bar.start()
            self._task = self._bar.add_task(self.title, total=self.total, rate="")
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self.enabled and self.done:
            self._say()

    def advance(self, count: int = 1) -> None:
        """Count more work as done."""
        self.done += count
        if self._bar is not None:
            self._bar.update(self._task, advance=count, rate=f"{self._rate():.1f} {self.unit}/s")
        elif self.enabled and time.monotonic() - self._said >= EVERY and self.done < self.total:
            self._say()

    def _rate(self) -> float:
        return self.done / max(time.monotonic() - self._begin, 1e-9)

    def _say(self) -> None:
        self._said = time.monotonic()
        left = (self.total - self.done) / max(self._rate(), 1e-9)
        tail = f", {left:.0f} s left" if self.done < self.total else ""
        print(
            f"{self.title}: {self.done}/{self.total} {self.unit}, {self._rate():.1f} {self.unit}/s{tail}",
            file=sys.stderr,
            flush=True,
        )


def track(items: Sequence[T], title: str, *, unit: str = "videos", enabled: bool = True) -> Iterator[T]:
    """Yield the items, showing how far the loop over them is."""
    with Meter(len(items), title, unit=unit, enabled=enabled) as meter:
        for item in items:
            yield item
            meter.advance()
