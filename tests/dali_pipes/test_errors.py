"""Errors are one line each, and survive the way from one process to another."""

from __future__ import annotations

import pickle

import pytest

from dali_pipes.errors import DataError, VideoError, first_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError("disk full"), "disk full"),
        (ValueError("\n  first\nsecond\n"), "first"),
        (KeyError(), "KeyError"),
        (RuntimeError(" \n"), "RuntimeError"),
        (DataError("a.mp4: no such file"), "a.mp4: no such file"),
    ],
)
def test_the_first_line_is_never_empty_and_never_two(error: Exception, line: str) -> None:
    assert first_line(error) == line


def test_a_video_error_names_the_video_and_can_be_sent_to_another_process() -> None:
    error = pickle.loads(pickle.dumps(VideoError("a.mp4", "ends early")))
    assert isinstance(error, DataError)
    assert (str(error), error.uri, error.reason) == ("a.mp4: ends early", "a.mp4", "ends early")
