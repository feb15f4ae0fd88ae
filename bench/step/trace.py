"""A trace of a few steps in which the loader's own threads are rows beside those of the step and the GPU."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ascnet.files import written_whole
from ascnet.logs.profile import REGIONS, Profiler
from dali_pipes.errors import DataError
from dali_pipes.stages import Span, listen

# Events of known time in the trace, by which the loader's clock and the profiler's are brought together.
CLOCK = "bench clock"
MARKS = 5


def trace(step: Callable[[], None], folder: Path, steps: int, device: torch.device) -> tuple[Path, dict[str, float]]:
    """Traces some steps, and adds what the loader's threads did meanwhile.

    Args:
        step: Makes one.
        folder: The trace is written to its folder `profile`.
        steps: How many.
        device: Where they compute; a GPU's kernels are in the trace, too.

    Returns:
        The file, and milliseconds a step of every region of the step and stage of the loader (threads added up).

    Raises:
        DataError: If no trace could be made or written.
    """
    spans: list[Span] = []
    marks: list[float] = []
    said: list[str] = []
    with listen(spans.append), Profiler(folder, (1, steps), device, say=said.append) as profiler:
        for number in range(steps):
            profiler.advance(number)
            if number == 0:
                for _ in range(MARKS):
                    with torch.profiler.record_function(CLOCK):
                        marks.append(time.perf_counter())
            step()
    path = folder / "profile" / f"steps_1-{steps}.rank0.json"
    lost = [line for line in said if line.startswith("warning")]
    if lost or not path.is_file():
        raise DataError(f"--trace {folder}: {'; '.join(lost) or 'no trace was made'}")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        found["traceEvents"] += rows(spans, offset(found["traceEvents"], marks), names)
        with written_whole(path) as temporary:
            temporary.write_text(json.dumps(found), encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from error
    return path, {name: total / steps for name, total in totals(found["traceEvents"]).items()}


def offset(events: Sequence[dict[str, Any]], marks: Sequence[float]) -> float:
    """Microseconds of the trace's clock at 0 of `time.perf_counter`.

    Args:
        events: Of the trace.
        marks: When perf_counter was read within each event named CLOCK, in order.

    Raises:
        DataError: If the trace has not those events.
    """
    found = sorted((event for event in events if event.get("name") == CLOCK and event.get("ph") == "X"), key=_begin)
    if len(found) != len(marks):
        raise DataError(f"the trace has {len(found)} of {len(marks)} marks of the clock")
    # The shortest was not interrupted, so its middle is when the clock was read.
    event, mark = min(zip(found, marks, strict=True), key=lambda pair: pair[0]["dur"])
    return float(event["ts"]) + float(event["dur"]) / 2 - 1e6 * mark


def rows(spans: Sequence[Span], zero: float, names: dict[int | None, str]) -> list[dict[str, Any]]:
    """Events of the loader's stages, a row for each thread, in the trace's clock.

    Args:
        spans: From `dali_pipes.stages.listen`.
        zero: From `offset`.
        names: Names of threads by their ident.
    """
    events: list[dict[str, Any]] = [
        {"ph": "M", "name": "process_name", "pid": "loader", "tid": 0, "args": {"name": "loader"}}
    ]
    numbers: dict[int, int] = {}
    for name, thread, begin, end in sorted(spans, key=lambda span: span[2]):
        if thread not in numbers:
            numbers[thread] = len(numbers) + 1
            label = {"name": names.get(thread, f"thread {numbers[thread]}")}
            events.append({"ph": "M", "name": "thread_name", "pid": "loader", "tid": numbers[thread], "args": label})
        place = {"pid": "loader", "tid": numbers[thread], "ts": zero + 1e6 * begin, "dur": 1e6 * (end - begin)}
        events.append({"ph": "X", "cat": "loader", "name": name, **place})
    return events


def totals(events: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Milliseconds in all of the regions of a step (on the host), and of the loader's stages without those within."""
    found: dict[str, float] = {}
    for event in events:
        if event.get("cat") == "user_annotation" and event.get("name") in REGIONS:
            found[event["name"]] = found.get(event["name"], 0.0) + float(event["dur"]) / 1000
    staged = [event for event in events if event.get("cat") == "loader" and event["ph"] == "X"]
    # Stages begin after the one they lie in; of two that begin together the longer one is outside.
    within: list[dict[str, Any]] = []
    for event in sorted(staged, key=lambda event: (event["tid"], event["ts"], -event["dur"])):
        while within and not (event["tid"] == within[-1]["tid"] and event["ts"] < within[-1]["ts"] + within[-1]["dur"]):
            within.pop()
        own, took = f"loader: {event['name']}", float(event["dur"]) / 1000
        found[own] = found.get(own, 0.0) + took
        if within:
            found[f"loader: {within[-1]['name']}"] -= took
        within.append(event)
    return found


def _begin(event: dict[str, Any]) -> float:
    return float(event["ts"])
