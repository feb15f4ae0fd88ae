"""Where in space and time a network looks: class activation maps, or without a classifier the activation energy.

A linear classifier on the averaged feature map is an average of its own values at every place of the map, so that they
say exactly how much each place adds to a class (Zhou et al., CVPR 2016).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from html import escape

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ascnet.encoders import Encoder
from ascnet.evaluate.classifier import Classifier
from ascnet.evaluate.clips import requests_of
from ascnet.evaluate.protocols import Protocol
from ascnet.report.described import by_class, evenly
from ascnet.report.gallery import label_of, picture, video_name
from ascnet.report.moving import Level, Moving
from dali_pipes import ClipStream, Corpus, track

COLOURS = "inferno"


@dataclass(frozen=True)
class Shown:
    """One clip, its map laid over it, and what the classifier says of it (None: there is none)."""

    row: int
    clip: Moving
    overlay: Moving
    predicted: str | None
    probability: float


@dataclass(frozen=True)
class Maps:
    """Clips with their maps."""

    corpus: Corpus
    shown: list[Shown]
    by_classifier: bool

    @property
    def title(self) -> str:
        """What the maps are."""
        return "Class activation maps" if self.by_classifier else "Activation energy of the encoder"

    def html(self, level: Level) -> str:
        """The section's content."""
        cards = []
        for one in self.shown:
            name, label = video_name(self.corpus, one.row), label_of(self.corpus, one.row)
            told, kind = "", "unknown"
            if one.predicted is not None:
                kind = "right" if one.predicted == label else "wrong"
                mark = "✓" if kind == "right" else "✗"
                told = f"<span>{mark} {escape(one.predicted)}, {one.probability:.0%}</span>"
            cards.append(
                f'<li class="{kind}"><figure><div class="pair">{picture(one.clip, level, f"Clip of {name}, {label}")}'
                f"{picture(one.overlay, level, f'{self.title} of {name}')}</div><figcaption>"
                f'<b title="{escape(name)}">{escape(label)}</b>{told}</figcaption></figure></li>'
            )
        return f'<ul class="maps">{"".join(cards)}</ul>'


def class_map(classifier: Classifier, feature_map: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """What each place adds to a class.

    Args:
        classifier: In evaluation mode.
        feature_map: ``(B, D, t, h, w)``, the encoder's last.
        classes: ``(B,)`` class numbers.

    Returns:
        Maps ``(B, t, h, w)`` and offsets ``(B,)``: a map's mean plus its offset is the logit of the class.
    """
    weight, offset = classifier.head.weight[classes], classifier.head.bias[classes]
    if isinstance(classifier.norm, nn.BatchNorm1d):
        mean, var = classifier.norm.running_mean, classifier.norm.running_var
        assert mean is not None and var is not None
        weight = weight / (var + classifier.norm.eps).sqrt()
        offset = offset - weight @ mean
    return torch.einsum("bdthw,bd->bthw", feature_map, weight), offset


def energy_map(feature_map: Tensor) -> Tensor:
    """Root mean square over the channels at each place, ``(B, t, h, w)``."""
    return feature_map.square().mean(dim=1).sqrt()


def build(
    corpus: Corpus,
    rows: NDArray[np.int64],
    encoder: Encoder,
    protocol: Protocol,
    *,
    classifier: Classifier | None = None,
    classes: list[str] | None = None,
    count: int = 6,
    device: torch.device | None = None,
    progress: bool = True,
) -> Maps:
    """The middle clip of some videos, evenly spaced over the classes, with its map.

    Args:
        corpus: The videos.
        rows: Row numbers to choose from.
        encoder: Used where there is no classifier.
        protocol: Clips, colours and size.
        classifier: With its own encoder.
        classes: Names of the classifier's outputs.
        count: Clips shown.
        device: Where to compute; None: the CPU.
        progress: Whether to show progress.
    """
    device = device or torch.device("cpu")
    one = replace(protocol, clips=1)
    chosen = evenly(by_class(corpus, rows), count)
    network: nn.Module = encoder
    if classifier is not None:
        network, encoder = classifier, classifier.encoder
    network.to(device).eval()
    shown = []
    stream = ClipStream(
        corpus, frames=one.frames, size=one.size, batch_size=1, device=str(device), dtype="uint8", short=one.short,
        fps=one.fps, max_bad=1.0,
    )  # fmt: skip
    with stream, torch.inference_mode():
        for row in track(chosen.tolist(), "maps", unit="clips", enabled=progress):
            requests = requests_of(corpus, [row], one, "query")
            stream.submit(requests)
            batch = stream.get()
            if batch.requests[0].video != row:  # another stands in for a video that cannot be decoded
                continue
            clip = batch.clips[0].to(device)
            maps, said, probability = _maps(clip, encoder, one, classifier, classes or [])
            pictures = clip[0].permute(1, 2, 3, 0).cpu().numpy().astype(np.uint8)
            seconds = one.frames * one.speed / (one.fps or max(float(corpus.rate[row]), 1e-6))
            shown.append(
                Shown(row, Moving(pictures, seconds), Moving(_overlay(pictures, maps), seconds), said, probability)
            )
    return Maps(corpus, shown, classifier is not None)


def _maps(
    clip: Tensor, encoder: Encoder, protocol: Protocol, classifier: Classifier | None, classes: list[str]
) -> tuple[NDArray[np.float32], str | None, float]:
    """Map (T, H, W) from 0 to 1 of a clip (1, C, T, H, W) of bytes, and what the classifier says."""
    mean, std = (torch.tensor(values, device=clip.device).view(3, 1, 1, 1) for values in (protocol.mean, protocol.std))
    feature_map = encoder.features((clip.float() / 255 - mean) / std).float()
    said, probability = None, 0.0
    if classifier is not None:
        logits = classifier.head(classifier.norm(feature_map.mean(dim=(2, 3, 4))))
        likeliest = logits.argmax(dim=1)
        said, probability = classes[int(likeliest)], float(logits.softmax(dim=1).max())
        found = class_map(classifier, feature_map, likeliest)[0].clamp(min=0)
    else:
        found = energy_map(feature_map)
        found = found - found.min()
    large = nn.functional.interpolate(found[None], size=tuple(clip.shape[2:]), mode="trilinear", align_corners=False)
    return (large / large.max().clamp(min=1e-12))[0, 0].cpu().numpy(), said, probability


def _overlay(pictures: NDArray[np.uint8], maps: NDArray[np.float32]) -> NDArray[np.uint8]:
    grey = pictures.mean(axis=3, keepdims=True)
    colour = 255 * matplotlib.colormaps[COLOURS](maps)[..., :3]
    share = 0.25 + 0.5 * maps[..., None]
    return ((1 - share) * grey + share * colour).round().astype(np.uint8)
