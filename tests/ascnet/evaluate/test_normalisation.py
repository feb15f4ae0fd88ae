"""Encoders trained with other colours than ImageNet's are scored with theirs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from make_videos import make_video
from torch import nn

from ascnet.config import Config
from ascnet.evaluate.command import protocol_of
from ascnet.evaluate.features import extract
from ascnet.evaluate.protocols import IMAGENET, Protocol
from dali_pipes import Augment, Corpus


class Colours(nn.Module):
    """Its features are the mean values of the channels."""

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3, 4), keepdim=True)


def test_clips_are_normalised_as_the_protocol_says(tmp_path: Path) -> None:
    make_video(tmp_path / "a" / "one.mkv", codec="mjpeg", frames=12, size=(48, 48), first=500)
    corpus = Corpus.build(tmp_path, output=tmp_path / "corpus.parquet", progress=False, workers=1)
    raw = Protocol(frames=4, size=32, clips=2, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    kinetics = Protocol(frames=4, size=32, clips=2, mean=(0.43, 0.39, 0.37), std=(0.22, 0.23, 0.24))
    shown, usual, other = (
        extract(Colours(), corpus, [0], protocol, threads=1, progress=False).vectors[0]
        for protocol in (raw, Protocol(frames=4, size=32, clips=2), kinetics)
    )
    assert (shown >= 0).all() and (shown <= 1).all() and shown.max() > 0.05
    np.testing.assert_allclose(usual, (shown - IMAGENET[0]) / IMAGENET[1], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(other, (shown - kinetics.mean) / np.array(kinetics.std), rtol=1e-4, atol=1e-5)


def test_the_protocol_takes_the_colours_of_the_run_and_its_card_names_them_where_they_are_not_the_usual() -> None:
    augment = Augment()
    assert (augment.mean, augment.std) == IMAGENET  # what the stream applies by itself
    usual = protocol_of(Config().to_dict())
    assert (usual.mean, usual.std) == IMAGENET and "normalised by" not in usual.card()
    config = Config.load(None, ["data.augment.mean=[0.5, 0.5, 0.5]"])
    other = protocol_of(config.to_dict())
    assert other.mean == (0.5, 0.5, 0.5) and "normalised by [0.5, 0.5, 0.5]" in other.card()
