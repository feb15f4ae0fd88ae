"""How torchvision and RSPNet name the tensors of the networks that this package has.

A layout is a list of rules: a pattern for a whole name in the file and the name here. A name that no rule fits is not
guessed at; `ascnet.importing.account` makes it an error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

Rules = tuple[tuple[str, str], ...]

# Kinetics-400 statistics that torchvision's video weights were trained with (its VideoClassification preset).
_KINETICS = {"mean": [0.43216, 0.394666, 0.37645], "std": [0.22803, 0.22145, 0.216989]}


@dataclass(frozen=True)
class Layout:
    """One network as one project writes it.

    Attributes:
        encoder: Name in the encoder registry.
        rules: Names in the file, and here.
        signature: A name that only this network has, within its project.
        first: Name of a convolution, and how many output channels it has at width 1.
        options: Of the encoder.
        data: Clips and normalisation that the weights were trained with, settings of `Config.data`.
    """

    encoder: str
    rules: Rules
    signature: str
    first: tuple[str, int]
    options: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)


def rename(name: str, rules: Rules) -> str | None:
    """The name here of a tensor in a file; None where no rule fits."""
    for pattern, replacement in rules:
        found = re.fullmatch(pattern, name)
        if found:
            return found.expand(replacement)
    return None


def _inception(
    blocks: dict[str, str], conv: str, norm: str, spatial: str, temporal: str, gate: str | None, branch0: str
) -> Rules:
    """Rules of S3D's convolutions, from how a file writes the parts of one.

    Args:
        blocks: Name of each block in the file (a pattern), and here.
        conv: Convolution inside a normalised one.
        norm: Its normalisation.
        spatial: First half inside a separable convolution.
        temporal: Second half.
        gate: Its gate; None: there is none.
        branch0: Normalised convolution inside branch 0.
    """
    rules: list[tuple[str, str]] = []
    for theirs, ours in blocks.items():
        if ours.startswith("mixed"):
            units = {rf"\.branch0{branch0}": ".branch0.0", r"\.branch3\.1": ".branch3.1"}
            units |= {rf"\.branch{i}\.0": f".branch{i}.0" for i in (1, 2)}
            separable = {rf"\.branch{i}\.1": f".branch{i}.1" for i in (1, 2)}
        else:
            units, separable = ({"": ""}, {}) if ours == "conv_2b" else ({}, {"": ""})
        for at, here in separable.items():
            units |= {at + spatial: f"{here}.spatial", at + temporal: f"{here}.temporal"}
            if gate is not None:
                rules.append((rf"{theirs}{at}{gate}\.(\w+)", rf"{ours}{here}.gate.linear.\1"))
        for at, here in units.items():
            rules.append((rf"{theirs}{at}{conv}\.(\w+)", rf"{ours}{here}.conv.\1"))
            rules.append((rf"{theirs}{at}{norm}\.(\w+)", rf"{ours}{here}.bn.\1"))
    return tuple(rules)


_SAME: Rules = ((r"(?:stem|layer[1-4])\..+", r"\g<0>"),)
_MIXED = ("3b", "3c", "4b", "4c", "4d", "4e", "4f", "5b", "5c")

TORCHVISION: dict[str, Layout] = {
    "r2plus1d18": Layout(
        "r2plus1d18", _SAME, "stem.3.weight", ("stem.3.weight", 64), data={"augment": _KINETICS, "size": 112}
    ),
    "r3d18": Layout(
        "r3d18", _SAME, "layer1.0.conv1.0.weight", ("stem.0.weight", 64), data={"augment": _KINETICS, "size": 112}
    ),
    "s3dg": Layout(
        "s3dg",
        _inception(
            {r"features\.0": "conv_1a", r"features\.2": "conv_2b", r"features\.3": "conv_2c"}
            | {
                rf"features\.{place}": f"mixed_{name}"
                for place, name in zip((5, 6, 8, 9, 10, 11, 12, 14, 15), _MIXED, strict=True)
            },
            *(r"\.0", r"\.1", r"\.0", r"\.1", None, ""),
        ),
        "features.0.0.0.weight",
        ("features.0.0.0.weight", 64),
        {"gating": False},
        {"augment": _KINETICS, "size": 224},
    ),
}
"""By encoder: torchvision's r2plus1d_18, r3d_18 and s3d."""

RSPNET: dict[str, Layout] = {
    "resnet18": Layout(
        "r3d18",
        (
            (r"conv1\.weight", "stem.0.weight"),
            (r"bn1\.(\w+)", r"stem.1.\1"),
            (r"(layer[1-4]\.\d)\.conv([12])\.weight", r"\1.conv\2.0.weight"),
            (r"(layer[1-4]\.\d)\.bn([12])\.(\w+)", r"\1.conv\2.1.\3"),
            (r"layer[1-4]\.\d\.downsample\.[01]\.\w+", r"\g<0>"),
        ),
        "layer1.0.bn1.weight",
        ("conv1.weight", 64),
        {"stem_kernel": [7, 7, 7], "stem_pool": True},
    ),
    "torchvision-resnet18": Layout("r3d18", _SAME, "layer1.0.conv1.0.weight", ("stem.0.weight", 64)),
    "c3d": Layout(
        "c3d",
        tuple((rf"{part}(1|2|3a|3b|4a|4b|5a|5b)\.(\w+)", rf"conv\1.{part}.\2") for part in ("conv", "bn")),
        "bn3a.weight",
        ("conv1.weight", 64),
    ),
    "r2plus1d-vcop": Layout(
        "r2plus1d10",
        ((r"bn1\.\w+|conv1\.(?:spatial_conv|bn|temporal_conv)\.\w+|conv[2-5]\.block1\..+", r"\g<0>"),),
        "conv1.spatial_conv.weight",
        ("bn1.weight", 64),
    ),
    "s3dg": Layout(
        "s3dg",
        _inception(
            {
                r"feature\.sepConv1": "conv_1a",
                r"feature\.basicConv3d": "conv_2b",
                r"feature\.sep_conv2": "conv_2c",
                **{rf"feature\.sepInc_{name}": f"mixed_{name}" for name in _MIXED},
            },
            *(r"\.conv3d", r"\.bn", r"\.sep_conv\.0", r"\.sep_conv\.1", r"\.excitation", ""),
        ),
        "feature.basicConv3d.conv3d.weight",
        ("feature.basicConv3d.conv3d.weight", 64),
        {"layout": "rspnet"},
        {"size": 224},
    ),
}
"""By the `arch` that the file names."""

# What a file holds besides the backbone, by full name, and what to call it. The first rule that fits counts.
DROPPED: dict[str, Rules] = {
    "torchvision": ((r"(?:fc|classifier)\..+", "classifier"),),
    "rspnet": (
        (r"encoder_k\..+", "momentum encoder"),
        (r"queue|queue_ptr", "queue"),
        (r"encoder_q\.fc[12]?\..+", "projection head"),
        (r"(?:encoder_q\.)?encoder\.(?:fc|linear)\..+", "unused classifier"),
        (r"(?:fc|linear)\..+", "classifier"),
    ),
}

PREFIXES = {"torchvision": ("",), "rspnet": ("encoder_q.encoder.", "encoder_q.", "encoder.", "")}
"""Where the backbone may begin: pretrained by RSPNet, by its one-headed form, fine-tuned, and alone."""

SOURCES: dict[str, dict[str, Layout]] = {"torchvision": TORCHVISION, "rspnet": RSPNET}
