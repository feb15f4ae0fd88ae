"""Arguments of `ascnet embed` and `ascnet search`. Nothing heavy is imported before one of them runs."""

from __future__ import annotations

import argparse
from typing import Any

from ascnet import options

PORT = 8765


def add_commands(commands: Any) -> None:
    """Adds both commands to the parser's."""
    _add_embed(commands)
    _add_search(commands)


def _add_embed(commands: Any) -> None:
    command = commands.add_parser(
        "embed",
        help="write the features of all videos of a corpus into a file",
        description="Write the features of all videos of a corpus into a file: the mean over evenly spaced clips of "
        "the encoder's average-pooled last feature map, or a row for each clip. Decoding and the encoder overlap.",
        epilog="Example: ascnet embed --checkpoint runs/ucf101 --corpus ucf101.parquet -o features.parquet. When "
        "it is interrupted, the same command goes on. docs/search.md has the columns and arrays.",
    )
    options.add_encoder(command, required=True)
    options.add_corpus(command)
    command.add_argument(
        "-o",
        "--output",
        metavar="FEATURES",
        required=True,
        help="file to write: .parquet, or .npy with .json beside it",
    )
    options.add_network(command)
    command.add_argument("--split", metavar="SPLIT", default="all", help="only these videos; default: all")
    command.add_argument("--per-clip", action="store_true", help="a row for each clip, with its start and speed")
    command.add_argument("--clips", type=int, default=10, metavar="N", help="clips per video; default: 10")
    options.add_clip(command)
    options.add_speed(command)
    options.add_forward(command, "features")
    options.add_machine(command)
    command.add_argument("--again", action="store_true", help="make everything anew, whatever is there")
    command.set_defaults(command=_embed)


def _add_search(commands: Any) -> None:
    command = commands.add_parser(
        "search",
        help="find the videos of a corpus that are most like a given one",
        description="Find the videos of a corpus that are most like a given one, by cosine similarity of the features "
        "that `ascnet embed` wrote; on the command line, or with --serve in a local web page.",
        epilog="Example: ascnet search query.mp4 --index features.parquet -k 5. Example: ascnet search --serve --index "
        "features.parquet, then open the address that it prints. docs/search.md has the details.",
    )
    command.add_argument(
        "queries",
        nargs="*",
        metavar="QUERY",
        help="video files or addresses; one that the corpus has is looked up there",
    )
    command.add_argument("--index", metavar="FEATURES", required=True, help="file that `ascnet embed` wrote")
    command.add_argument(
        "--checkpoint", metavar="PATH", help="encoder of the queries; default: the file that the index was made with"
    )
    command.add_argument("--corpus", metavar="PATH", help="corpus file; default: the one that the index was made of")
    command.add_argument("-k", type=int, default=10, metavar="K", help="neighbours for each query; default: 10")
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.add_argument(
        "--backend",
        choices=("auto", "torch", "faiss"),
        default="auto",
        help="who searches; auto: with --serve FAISS for large indexes, else torch, exactly",
    )
    options.add_machine(command)
    command.add_argument("--serve", action="store_true", help="serve a web page, to this machine only")
    command.add_argument(
        "--host", default="127.0.0.1", metavar="NAME", help="address to serve at, with --serve; default: 127.0.0.1"
    )
    command.add_argument("--port", type=int, default=PORT, metavar="N", help=f"default: {PORT}; 0: any that is free")
    command.add_argument(
        "--upload-limit", type=int, default=64, metavar="MB", help="largest query sent by the page; default: 64 MB"
    )
    command.set_defaults(command=_search)


def _embed(args: argparse.Namespace) -> int:
    from ascnet.search.embed import embed_command

    return embed_command(args)


def _search(args: argparse.Namespace) -> int:
    from ascnet.search.command import search_command

    return search_command(args)
