"""`python -m bench COMMAND`: one sub-command a file, each with `add_arguments(parser)` and `run(args) -> exit code`."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from ascnet.errors import UserError
from bench.commands import COMMANDS
from dali_pipes.errors import DataError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one sub-command.

    Returns:
        0; 1 where a goal set with --require is missed; 2 for a user's mistake; 130 or 143 when stopped by a signal.
    """
    argv = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure this project's parts, check what they deliver, and set them beside other tools.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    chosen = next((word for word in argv if word in COMMANDS), None)
    for name, summary in COMMANDS.items():
        sub = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if name == chosen:
            importlib.import_module(f"bench.commands.{name}").add_arguments(sub)
    args = parser.parse_args(argv)
    stopped: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.append(number)
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    try:
        return int(importlib.import_module(f"bench.commands.{args.command}").run(args))
    except (DataError, UserError) as error:
        print(f"bench {args.command}: {error}", file=sys.stderr)
        return 2
    except RuntimeError:
        # A signal to the whole process group ends the workers too, which torch reports on top of it.
        if stopped:
            return 128 + stopped[0]
        raise
    except KeyboardInterrupt:
        print(f"bench {args.command}: stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
