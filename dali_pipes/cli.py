"""The `dali-pipes` command: one sub-command per module of `dali_pipes.commands`."""

from __future__ import annotations

import argparse
import errno
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from dali_pipes.commands import demo_corpus, doctor, index, inspect, preview, transcode, verify
from dali_pipes.errors import DataError, VideoError, first_line

COMMANDS = (index, demo_corpus, verify, inspect, preview, transcode, doctor)


class _Terminated(BaseException):
    """SIGTERM, raised so that everything open is closed on the way out."""


def parser() -> argparse.ArgumentParser:
    """The parser with all sub-commands."""
    top = argparse.ArgumentParser(
        prog="dali-pipes", description="Raw videos in, training clips out: the corpus and what concerns it."
    )
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: Arguments without the program's name; None for those of the process.

    Returns:
        Exit code: 0 done, 1 failed or done without a usable result, 2 a mistake in what was asked for, 130 or 143
        interrupted.
    """
    arguments = parser().parse_args(argv)
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        return int(arguments.run(arguments))
    except DataError as error:
        remedy = _remedy(error.__cause__)
        print(f"dali-pipes: {error}{remedy}", file=sys.stderr)
        # A disk that is full or a server that does not answer is no mistake in what was asked for.
        lost = isinstance(error, VideoError) and error.reason.startswith("server lost")
        return 1 if remedy or lost else 2
    except KeyboardInterrupt:
        print("dali-pipes: interrupted", file=sys.stderr)
        return 130
    except _Terminated:
        print("dali-pipes: terminated", file=sys.stderr)
        return 143
    except BrokenPipeError:
        # Whoever read the output has seen enough.
        sys.stderr.close()
        return 1
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print(f"dali-pipes: {place}{error.strerror or first_line(error)}{_remedy(error)}", file=sys.stderr)
        return 1
    finally:
        signal.signal(signal.SIGTERM, before)


def _remedy(error: BaseException | None) -> str:
    """What to do about a disk that is full; "" about all else."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return "; make room, then run it again" if full else ""


def _terminate(number: int, frame: FrameType | None) -> None:
    raise _Terminated


if __name__ == "__main__":
    sys.exit(main())
