"""Worker processes that hang, crash or want too much memory."""

from __future__ import annotations

import os
import signal
import time
from contextlib import closing
from pathlib import Path

import pytest

from dali_pipes.corpus.engine import Lost, run_all


def children() -> set[int]:
    """Processes that this one has started and not waited for."""
    found = set()
    for thread in Path("/proc/self/task").iterdir():
        found |= {int(word) for word in (thread / "children").read_text().split()}
    return found


def test_every_item_gets_its_result_once() -> None:
    results = dict(run_all(abs, [-3, -2, -1, 0, 1], workers=2))
    assert results == {0: 3, 1: 2, 2: 1, 3: 0, 4: 1}


def test_options_are_passed_on() -> None:
    assert list(run_all(int, ["ff"], options={"base": 16}, workers=1)) == [(0, 255)]


def test_an_item_that_takes_too_long_is_lost_and_the_others_are_not() -> None:
    results = dict(run_all(time.sleep, [0, 60, 0], workers=1, timeout=0.3))
    assert results == {0: None, 1: Lost("took longer than 0.3 s"), 2: None}


def test_a_crash_is_lost_and_the_others_are_not() -> None:
    results = dict(run_all(signal.raise_signal, [signal.SIGSEGV, signal.SIGABRT, signal.SIGURG], workers=1))
    # The default action of SIGURG is to be ignored.
    assert results == {0: Lost("crashed the decoder (SIGSEGV)"), 1: Lost("crashed the decoder (SIGABRT)"), 2: None}


def test_an_exit_is_lost() -> None:
    assert dict(run_all(os._exit, [3], workers=1)) == {0: Lost("ended the decoder (exit code 3)")}


def test_memory_beyond_the_limit_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    results = dict(run_all(bytearray, [100 << 20], workers=1, memory=50 << 20))
    assert results == {0: Lost("ended the decoder (exit code 1)")}
    assert "MemoryError" in capfd.readouterr().err


def test_no_process_is_left_when_the_caller_stops_early() -> None:
    before = children()
    with closing(run_all(time.sleep, [0, 60, 60, 60], workers=2)) as results:
        next(results)
        assert children() > before
    assert children() == before


def test_no_items_need_no_process() -> None:
    assert list(run_all(abs, [])) == []
