"""From a checkpoint to a file for others, which is run and compared before it gets its name."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch

from ascnet import checkpoint
from ascnet.errors import UserError
from ascnet.exporting.card import make_card, markdown
from ascnet.exporting.formats import RUNNERS, SUFFIXES, WRITERS, Format, require
from ascnet.files import written_whole
from ascnet.weights import load_encoder

TOLERANCE = 1e-4
"""Largest difference from the eager encoder, relative to its largest value."""


@dataclass(frozen=True)
class Exported:
    """What `export_encoder` wrote.

    Attributes:
        path: The encoder.
        card: Its card for people.
        format: Of the encoder's file.
        difference: Largest difference from the eager encoder, relative to its largest value.
        tolerance: What it had to stay below.
    """

    path: Path
    card: Path
    format: Format
    difference: float
    tolerance: float


def export_encoder(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    form: Format | None = None,
    network: str = "online",
    frames: int | None = None,
    size: int | None = None,
    tolerance: float = TOLERANCE,
) -> Exported:
    """Write the encoder alone, and a card beside it; run what was written, and compare it with the encoder in memory.

    Args:
        source: A run's folder, a checkpoint, or an exported .safetensors file.
        output: The file; its suffix says the format (.safetensors, .onnx, .pt2) where `form` does not.
        form: "safetensors", "onnx" or "torch".
        network: "online" or "target".
        frames: Frames of a clip; None: as pretrained. ONNX and torch files take this length only.
        size: Edge of a clip in pixels; None: as pretrained. ONNX and torch files take this size only.
        tolerance: Allowed difference, relative to the largest feature. Weights in safetensors are equal bit for bit.

    Raises:
        CheckpointError: If the checkpoint cannot be read.
        UserError: If the format is not known or its packages are absent, if weights are not finite, or if what was
            written computes something else; then nothing is left behind.
    """
    path, form = _target(Path(output), form)
    require(form)
    found = checkpoint.find(source)
    if found.resolve() == path.resolve():
        raise UserError(f"{path} is what is to be exported; give another name")
    encoder = load_encoder(found, network=network)
    for name, tensor in encoder.state_dict().items():
        if not tensor.isfinite().all():
            raise UserError(f"{found}: weights {name} are not finite; nothing was written")
    config: dict[str, Any] = encoder.config or {}
    clip = (_setting("frames", frames, config), _setting("size", size, config))
    card = make_card(encoder, found, network, clip)
    generator = torch.Generator().manual_seed(0)
    # Written with two clips and checked with three, so that a batch size that was fixed by mistake is found.
    clips = torch.randn(3, 3, clip[0], clip[1], clip[1], generator=generator)
    beside = path.with_name(f"{path.name}.md")
    with written_whole(path) as temporary, torch.no_grad():
        WRITERS[form](encoder, clips[:2], temporary, card)
        expected, got = encoder(clips), RUNNERS[form](temporary, clips)
        difference = float((got - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
        if not difference <= tolerance:  # also where either is not a number
            raise UserError(
                f"{path}: what was written computes something else: difference {difference:.2g} of the largest "
                f"feature, allowed {tolerance:.2g}; nothing was kept"
            )
        check = (
            f"largest difference from the encoder in memory {difference:.2g} (allowed {tolerance:.2g}), 3 random clips"
        )
        with written_whole(beside) as text:
            text.write_text(markdown(card, path.name, form, check), encoding="utf-8")
    return Exported(path, beside, form, difference, tolerance)


def _setting(name: str, value: int | None, config: dict[str, Any]) -> int:
    if value is None:
        value = config["data"][name]
    if value < 1:
        raise UserError(f"{name}={value} must be at least 1")
    return int(value)


def _target(output: Path, form: Format | None) -> tuple[Path, Format]:
    by_suffix = {suffix: name for name, suffix in SUFFIXES.items()}
    known = ", ".join(f"{name} ({suffix})" for name, suffix in SUFFIXES.items())
    if form is None:
        if output.suffix not in by_suffix:
            raise UserError(f"{output}: say --format, or a name that ends in {', '.join(by_suffix)}")
        return output, by_suffix[output.suffix]
    if form not in get_args(Format):
        raise UserError(f"format is {form!r}; allowed: {known}")
    if output.suffix in by_suffix and by_suffix[output.suffix] != form:
        raise UserError(f"{output}: its suffix means {by_suffix[output.suffix]}, not {form}; formats are {known}")
    right = output.suffix == SUFFIXES[form]
    return (output if right else output.with_name(output.name + SUFFIXES[form])), form
