"""An object in its own process: what it does there reaches the caller, whatever becomes of it."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.measure.isolated import Isolated, Lost, Raised, without_folders


class Thing:
    def __init__(self, start: int) -> None:
        if start < 0:
            raise OSError(f"{start} is below zero")
        self.value = start

    def add(self, amount: int) -> tuple[int, int]:
        self.value += amount
        print("this must not reach the caller's output")
        return self.value, os.getpid()

    def fail(self) -> None:
        raise KeyError("/a/b/file name")

    def lambdas(self) -> object:
        return lambda: None

    def crash(self) -> None:
        print("first\ncannot map /usr/lib/libx.so", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGABRT)

    def leave(self) -> None:
        os._exit(3)

    def hang(self) -> None:
        time.sleep(1000)


@pytest.fixture()
def thing() -> Iterator[Isolated]:
    made = Isolated(Thing, 5)
    yield made
    made.close()


def test_state_stays_from_call_to_call_in_another_process(thing: Isolated, capfd: pytest.CaptureFixture[str]) -> None:
    value, process = thing.call("add", 2, timeout=60)
    assert (value, thing.call("add", 2, timeout=60)) == (7, (9, process))
    assert process != os.getpid()
    assert capfd.readouterr() == ("", "")


def test_an_error_there_is_raised_here_in_one_line_and_the_process_goes_on(thing: Isolated) -> None:
    with pytest.raises(Raised, match=r"^KeyError: 'file name'$"):
        thing.call("fail", timeout=60)
    with pytest.raises(Raised, match="AttributeError"):
        thing.call("no_such_method", timeout=60)
    with pytest.raises(Raised, match="pickle"):
        thing.call("lambdas", timeout=60)
    assert thing.call("add", 1, timeout=60)[0] == 6


def test_a_crash_is_told_with_its_signal_and_what_was_said_last(thing: Isolated) -> None:
    with pytest.raises(Lost, match=r"^killed by SIGABRT, after it said: cannot map libx\.so$"):
        thing.call("crash", timeout=60)
    with pytest.raises(Lost, match="SIGABRT"):  # and again, whenever it is asked
        thing.call("add", 1, timeout=60)


def test_an_end_without_an_answer_is_told_with_its_code(thing: Isolated) -> None:
    with pytest.raises(Lost, match=r"^ended with exit code 3$"):
        thing.call("leave", timeout=60)


def test_one_that_hangs_is_ended_after_its_time(thing: Isolated) -> None:
    _, process = thing.call("add", 0, timeout=60)
    with pytest.raises(Lost, match=r"^no answer within 0.5 s$"):
        thing.call("hang", timeout=0.5)
    assert not Path(f"/proc/{process}").exists()


def test_one_that_cannot_be_made_says_why_at_every_call() -> None:
    made = Isolated(Thing, -1)
    try:
        for _ in range(2):
            with pytest.raises(Raised, match=r"^OSError: -1 is below zero$"):
                made.call("add", 1, timeout=60)
    finally:
        made.close()


def test_closing_ends_the_process_and_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    made = Isolated(Thing, 1)
    _, process = made.call("add", 1, timeout=60)
    assert list(tmp_path.iterdir())
    made.close()
    assert not Path(f"/proc/{process}").exists()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("cannot open /data/videos/a.mp4: gone", "cannot open a.mp4: gone"),
        ("'/a.mp4' and \"/b/c.avi\"", "'a.mp4' and \"c.avi\""),
        ("3 clips/s and 1/2 of a/b.mp4", "3 clips/s and 1/2 of a/b.mp4"),
    ],
)
def test_only_the_last_part_of_an_absolute_path_is_told(text: str, plain: str) -> None:
    assert without_folders(text) == plain
