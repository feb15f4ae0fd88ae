"""What the speed task itself needs to know of speed: its loss for positives of the same speed, and of the other one.

SCP predicts the motion feature of another video's clip at the same playback speed. Whether that takes any knowledge of
speed is not said by the loss alone: a feature that knows nothing of speed may be as easy to predict. Then the loss is
the same for clips at the other speed, and nothing of it trains speed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.ablation.speed_probe import ClipFeatures, at_speeds, clip_features, probe, samples

if TYPE_CHECKING:
    from ascnet.evaluate.protocols import Protocol
    from ascnet.model import ASCNet
    from dali_pipes import Corpus


class Heads(nn.Module):
    """All features that the speed task is made of, side by side: (B, 2 D + 2 D) of clips (B, 3, T, H, W)."""

    PARTS = ("motion", "predicted", "target", "appearance")

    def __init__(self, model: ASCNet) -> None:
        super().__init__()
        self.model = model

    def features(self, clips: Tensor) -> Tensor:
        """As a feature map of one place, which is what `clip_features` averages over."""
        model = self.model
        seen = model.target.encoder(clips)
        motion = model.online.g_m(model.online.encoder(clips))
        parts = (motion, model.h_m(motion), model.target.g_m(seen), model.target.g_a(seen))
        return torch.cat(parts, dim=1)[..., None, None, None]


def speed_task(run: Path, corpus: Corpus, protocol: Protocol, *, seed: int, threads: int | None) -> dict[str, float]:
    """Of a finished run with a speed loss, over the evenly spaced clips of the training videos.

    Args:
        run: Its folder.
        corpus: The videos.
        protocol: Clips of a video.
        seed: Of the random positives.
        threads: Decoding threads.

    Returns:
        The speed loss (0 to 4) by positive: "nearest, same speed", "nearest, other speed", "random, same speed" and
        "random, other speed"; "motion": accuracy of the speed probe on the motion feature, percent.
    """
    from ascnet import checkpoint
    from ascnet.build import build_model
    from ascnet.config import Config

    config = Config.load(run / "config.yaml")
    model = build_model(config)
    model.load_state_dict(checkpoint.load(run)["model"])
    train, test = corpus.select("train"), corpus.select("test")
    cpu = torch.device("cpu")
    rows = np.concatenate([train, test])
    whole = [
        clip_features(Heads(model), corpus, rows, at, device=cpu, threads=threads, progress=False)
        for at in at_speeds(protocol)
    ]
    width = config.model.projector_dim
    parts: dict[str, list[ClipFeatures]] = {
        name: [ClipFeatures(one.rows, one.vectors[..., at * width : (at + 1) * width], one.failed) for one in whole]
        for at, name in enumerate(Heads.PARTS)
    }
    probed = probe(samples(parts["motion"], train), samples(parts["motion"], test))
    known = [int(row) for row in train if all(row in one.rows for one in whole)]
    named: dict[str, list[Tensor]] = {name: [_of(one, known) for one in several] for name, several in parts.items()}
    return {**losses(named, seed), "motion": probed["accuracy"]}


def losses(parts: dict[str, list[Tensor]], seed: int) -> dict[str, float]:
    """The speed loss for four kinds of positives, averaged over both speeds and all pairs of clips.

    Args:
        parts: For each of `Heads.PARTS`, at 1x and at 2x: (N, V, D), V clips of N videos.
        seed: Of the random positives.
    """
    mean = F.normalize(parts["appearance"][0].mean(dim=1), dim=1)
    likeness = mean @ mean.T
    nearest = likeness.fill_diagonal_(-2).argmax(dim=1)
    count = len(mean)
    # Any video but the sample's own.
    others = torch.randint(count - 1, (count,), generator=torch.Generator().manual_seed(seed)) + 1
    random = (torch.arange(count) + others) % count
    found = {}
    for name, positives in (("nearest", nearest), ("random", random)):
        for kind, other in (("same speed", 0), ("other speed", 1)):
            both = [_distance(parts["predicted"][s], parts["target"][(s + other) % 2][positives]) for s in (0, 1)]
            found[f"{name}, {kind}"] = float(sum(both) / 2)
    return found


def _distance(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared distance of unit vectors over all pairs of clips of a video and its positive; (N, V, D) both."""
    a, b = F.normalize(predicted, dim=-1), F.normalize(target, dim=-1)
    return (2 - 2 * torch.einsum("nvd,nwd->nvw", a, b)).mean()


def _of(features: ClipFeatures, rows: list[int]) -> Tensor:
    place: dict[int, Any] = {int(row): at for at, row in enumerate(features.rows)}
    return torch.from_numpy(features.vectors[[place[row] for row in rows]])
