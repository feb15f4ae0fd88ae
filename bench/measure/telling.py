"""Say how far interleaved rounds are: a bar on a terminal, a line a measurement elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bench.measure.rounds import Figure


@contextmanager
def telling(log: Console, what: str, total: int) -> Iterator[Callable[[str, int, Figure], None]]:
    """Gives the function to call after each measurement, with the name, the round (negative: warm-up), the figure.

    Args:
        log: Where to say it.
        what: What is measured, in a word or two.
        total: Measurements to come.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[last]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    began, count = 0.0, 0
    with Progress(*columns, console=log, disable=not log.is_terminal) as progress:
        task = progress.add_task(f"{what}: timing", total=total, last="")

        def told(name: str, number: int, figure: Figure) -> None:
            nonlocal began, count
            count += 1
            if count == 1:  # what came before it was opening and comparing, which will not come again
                began = time.monotonic()
            line = f"{name} {figure.samples_per_second:.2f} pairs/s"
            progress.update(task, advance=1, last=line)
            if not log.is_terminal:
                left = (time.monotonic() - began) / max(1, count - 1) * max(0, total - count)
                soon = f", {left:.0f} s left" if count > 1 else ""
                log.print(f"{what}: {'warm-up' if number < 0 else f'round {number + 1}'}: {line}{soon}")

        yield told
