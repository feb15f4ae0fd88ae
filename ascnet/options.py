"""Arguments that several commands have, so that they are called the same and mean the same everywhere."""

from __future__ import annotations

import argparse


def add_encoder(command: argparse.ArgumentParser, *, required: bool = False, default: str = "") -> None:
    """`--checkpoint`: where the encoder comes from.

    Args:
        command: The command's parser.
        required: Whether it must be given.
        default: What is used without it, for the help text.
    """
    places = "a run's folder, a checkpoint (.pt) or an exported encoder (.safetensors)"
    told = f"{places}; default: {default}" if default else places
    command.add_argument("--checkpoint", metavar="PATH", required=required, help=told)


def add_corpus(command: argparse.ArgumentParser) -> None:
    """`--corpus`, which must be given."""
    command.add_argument("--corpus", metavar="PATH", required=True, help="corpus file, from `dali-pipes index`")


def add_network(command: argparse.ArgumentParser) -> None:
    """`--network`: which of the two networks of a run."""
    command.add_argument("--network", choices=("online", "target"), default="online", help="default: online")


def add_clip(command: argparse.ArgumentParser) -> None:
    """`--frames` and `--size` of a clip."""
    command.add_argument("--frames", type=int, metavar="N", help="frames per clip; default: as pretrained")
    command.add_argument("--size", type=int, metavar="PIXELS", help="edge of a clip; default: as pretrained")


def add_speed(command: argparse.ArgumentParser) -> None:
    """`--speed`: at which all clips are shown."""
    command.add_argument(
        "--speed", type=float, default=1.0, metavar="X", help="playback speed of the clips; default: 1"
    )


def add_forward(command: argparse.ArgumentParser, unchanged: str) -> None:
    """`--precision` and `--batch-size` of the forward pass.

    Args:
        command: The command's parser.
        unchanged: What the batch size has no effect on.
    """
    command.add_argument(
        "--precision", choices=("fp32", "bf16", "fp16"), default="fp32", help="of the forward pass; default: fp32"
    )
    told = f"clips in a forward pass; changes speed, not {unchanged}"
    command.add_argument("--batch-size", type=int, default=40, metavar="N", help=told)


def add_machine(command: argparse.ArgumentParser) -> None:
    """`--device` and `--threads`."""
    command.add_argument("--device", default="auto", metavar="NAME", help="cuda, cuda:1, cpu; default: a GPU if any")
    command.add_argument("--threads", type=int, metavar="N", help="decoding threads; default: chosen by the loader")


def add_run(command: argparse.ArgumentParser) -> None:
    """`--resume`, `--max-minutes` and `--print-config` of whatever trains."""
    command.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in OUT, if any")
    command.add_argument(
        "--max-minutes", type=float, metavar="M", help="stop, with a checkpoint, before M minutes are over"
    )
    command.add_argument("--print-config", action="store_true", help="print the resolved configuration and exit")
