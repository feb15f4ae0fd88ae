"""Errors that a user can act on: each names the file or key, the value, and what would be right."""

from __future__ import annotations


def first_line(error: BaseException) -> str:
    """The first line of an error's text, to be put into a message of one line; the error's type where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class DataError(ValueError):
    """A mistake in what was asked for (a path, a key, a value); the command line prints it as one line."""


class VideoError(DataError):
    """A video that cannot be used.

    Attributes:
        uri: The video's path or address.
        reason: What is wrong with it, in words.
    """

    def __init__(self, uri: str, reason: str) -> None:
        super().__init__(f"{uri}: {reason}")
        self.uri = uri
        self.reason = reason

    def __reduce__(self) -> tuple[type[VideoError], tuple[str, str]]:
        # An exception with two arguments must say how to be rebuilt, or it cannot cross a process boundary.
        return (type(self), (self.uri, self.reason))
