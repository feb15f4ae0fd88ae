"""A small corpus, a checkpoint and their index, for tests of `ascnet embed` and `ascnet search`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from make_videos import make_video
from training_data import tiny

from ascnet import build_encoder
from ascnet.evaluate.command import protocol_of
from ascnet.search.embed import recipe_of
from ascnet.search.recipe import Recipe
from ascnet.weights import load_encoder
from dali_pipes import Corpus


def make_corpus(root: Path, videos: int = 7) -> Path:
    """Videos of 14 frames in two classes; each shows numbers of its own."""
    for number in range(videos):
        make_video(
            root / "ab"[number % 2] / f"{number}.mkv", codec="mjpeg", frames=14, size=(64, 48), first=997 * number
        )
    Corpus.build(root, output=root / "corpus.parquet", progress=False, workers=1)
    return root / "corpus.parquet"


def make_checkpoint(path: Path, seed: int = 0) -> Path:
    """A checkpoint of a very small encoder that has learnt nothing."""
    config = tiny().to_dict()
    torch.manual_seed(seed)
    encoder = build_encoder(config["model"]["encoder"], width=config["model"]["width"], **config["model"]["options"])
    weights = {f"online.encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
    torch.save({"format": 1, "config": config, "model": weights}, path)
    return path


def make_recipe(checkpoint: Path, corpus: Path, *, clips: int = 2, **changes: object) -> Recipe:
    """What `ascnet embed --device cpu` would say."""
    encoder = load_encoder(checkpoint)
    protocol = protocol_of(encoder.config or {}, clips=clips)
    recipe = recipe_of(encoder, checkpoint, Corpus.open(corpus), corpus, protocol, device="cpu")
    return replace(recipe, **changes)  # type: ignore[arg-type]
