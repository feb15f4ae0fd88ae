"""`python -m bench COMMAND`: one sub-command a file, each with `add_arguments(parser)` and `run(args) -> exit code`."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from dali_pipes.errors import DataError

# Name -> what it measures. The module of that name in this package is imported only when it is asked for.
COMMANDS = {
    "ablation": "the method without each of its parts: retrieval and playback speed from frozen features, over seeds",
    "bank": "searching and updating the memory bank beside plain torch and FAISS, as a share of the memory's bandwidth",
    "cache": "epochs of a loader with and without the cache that fills itself",
    "compare": "two results of one benchmark: what is better, worse or within noise; fails on a loss past a threshold",
    "decode": "clips per second of every decoder that is installed, outputs compared first",
    "embed": "clips per second of `ascnet embed` beside those of the loader alone, for the same requests",
    "fuzz": "damaged variants of real videos through index and loader: none may crash, hang or harm its neighbours",
    "loader": "clips per second of the loader beside PyTorch DataLoaders over other decoders, outputs compared first",
    "lookahead": "what searching for positives some steps ahead saves, and what it changes",
    "overhead": "CPU time a request of planning frames and cutting packets, on one core",
    "report": "the results of a folder as one page with charts and tables, and as pictures",
    "size": "a corpus of a million videos: opening it, drawing from it, and the memory of a long run",
    "stages": "what binds the loader and the training behind it, what would bind next, and what would help",
    "step": "the training step with data on the device and with the loader: what is lost to data, and what binds",
    "suite": "all that is measured on a machine, in one command, with a page of the results",
    "sweep": "threads, prefetch, decoder and look-ahead that are quickest on this machine and corpus, as a file",
}


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
            importlib.import_module(f"bench.{name}").add_arguments(sub)
    args = parser.parse_args(argv)
    stopped: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.append(number)
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    try:
        return int(importlib.import_module(f"bench.{args.command}").run(args))
    except DataError as error:
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
