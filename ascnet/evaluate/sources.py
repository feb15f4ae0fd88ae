"""The encoder that a command line means, and the clip settings that go with it."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from ascnet.cli import find_config
from ascnet.config import Config
from ascnet.encoders import Encoder
from ascnet.errors import UserError
from ascnet.evaluate.protocols import Protocol
from ascnet.evaluate.run import untrained_encoder
from ascnet.weights import load_encoder


def encoder_of(args: argparse.Namespace) -> tuple[Any, dict[str, Any], str]:
    """The encoder of `--checkpoint`, or of `--config` with random weights; its settings; what to call it.

    Raises:
        UserError: If neither is given, or several processes would do the same.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(f"{os.environ['WORLD_SIZE']} processes would do the same; start this command without torchrun")
    if args.checkpoint is not None:
        encoder: Encoder = load_encoder(args.checkpoint, network=args.network)
        return encoder, encoder.config or {}, str(args.checkpoint)
    if args.config is None:
        raise UserError("say --checkpoint PATH, or --config NAME for an encoder with random weights")
    config = Config.load(find_config(args.config)).to_dict()
    return untrained_encoder(config, args.seed), config, f"random weights, seed {args.seed}"


def protocol_of_args(args: argparse.Namespace, config: dict[str, Any]) -> Protocol:
    """Clips as the encoder was pretrained on, with what the command line changes."""
    data = config["data"]
    return Protocol(
        frames=args.frames or data["frames"],
        size=args.size or data["size"],
        clips=args.clips,
        fps=data["fps"],
        short="pad" if data["short"] == "pad" else "loop",
        mean=tuple(data["augment"]["mean"]),
        std=tuple(data["augment"]["std"]),
    )


def folder_of(args: argparse.Namespace, name: str) -> Path:
    """Where results go: `--out`, or a folder of that name in the run's."""
    if args.out is not None:
        return Path(args.out)
    if args.checkpoint is None:
        return Path("runs") / "untrained" / name
    path = Path(args.checkpoint)
    folder = path if path.is_dir() else path.parent
    return (folder.parent if folder.name == "checkpoints" else folder) / name
