"""Parameter counts and output shapes against the published ones, without allocating the networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode

from ascnet import build_encoder
from ascnet.encoders import Encoder, encoder_names
from ascnet.errors import ConfigError

HARA = {"stem_kernel": [7, 7, 7], "stem_pool": True}


def on_meta(name: str, **options: Any) -> Encoder:
    with torch.device("meta"):
        return build_encoder(name, **options)


def parameters(encoder: Encoder) -> int:
    return sum(parameter.numel() for parameter in encoder.parameters())


@pytest.mark.parametrize(
    ("name", "options", "published", "classifier"),
    [
        # torchvision's documentation: r3d_18, r2plus1d_18 and s3d with the classifier of Kinetics-400.
        ("r3d18", {}, 33_371_472, 512 * 400 + 400),
        ("r2plus1d18", {}, 31_505_325, 512 * 400 + 400),
        ("s3dg", {"gating": False}, 8_320_048, 1024 * 400 + 400),
    ],
)
def test_parameters_are_those_of_torchvision_without_classifier(
    name: str, options: dict[str, Any], published: int, classifier: int
) -> None:
    assert parameters(on_meta(name, **options)) == published - classifier


@pytest.mark.parametrize(
    ("name", "options", "millions"),
    [("r3d18", HARA, 33.20), ("s3dg", {"layout": "rspnet"}, 8.68), ("c3d", {}, 27.66), ("r2plus1d10", {}, 14.37)],
)
def test_parameters_are_those_of_rspnets_backbones(name: str, options: dict[str, Any], millions: float) -> None:
    assert round(parameters(on_meta(name, **options)) / 1e6, 2) == millions


def test_gates_of_the_tensorflow_layout_are_a_square_matrix_for_conv_2c_and_for_every_branch() -> None:
    branches = [
        (64, 128, 32, 32), (128, 192, 96, 64), (192, 208, 48, 64), (160, 224, 64, 64), (128, 256, 64, 64),
        (112, 288, 64, 64), (256, 320, 128, 128), (256, 320, 128, 128), (384, 384, 128, 128),
    ]  # fmt: skip
    gates = 192**2 + sum(channels**2 for block in branches for channels in block)
    assert parameters(on_meta("s3dg")) - parameters(on_meta("s3dg", gating=False)) == gates


@pytest.mark.parametrize(
    ("name", "options", "clip", "shape"),
    [
        ("r3d18", {}, (16, 112), (512, 2, 7, 7)),
        ("r3d18", HARA, (16, 112), (512, 1, 4, 4)),
        ("r2plus1d18", {}, (16, 112), (512, 2, 7, 7)),
        ("r2plus1d10", {}, (16, 112), (512, 2, 7, 7)),
        ("c3d", {}, (16, 112), (512, 2, 7, 7)),
        ("s3dg", {}, (16, 224), (1024, 2, 7, 7)),
        ("s3dg", {}, (64, 224), (1024, 8, 7, 7)),
        ("s3dg", {"layout": "rspnet"}, (64, 224), (1024, 8, 7, 7)),
    ],
)
def test_last_map_has_the_published_shape(
    name: str, options: dict[str, Any], clip: tuple[int, int], shape: tuple[int, ...]
) -> None:
    encoder = on_meta(name, **options)
    frames, size = clip
    maps = encoder.features(torch.empty(2, 3, frames, size, size, device="meta"))
    assert tuple(maps.shape) == (2, *shape) and encoder.dim == shape[0]


@pytest.mark.parametrize(
    ("name", "options", "size", "gmac"),
    # torchvision's `_ops` of the weights: billions of multiply-adds of one clip of 16 frames, classifier included.
    [("r3d18", {}, 112, 40.697), ("r2plus1d18", {}, 112, 40.519), ("s3dg", {"gating": False}, 224, 17.979)],
)
def test_operations_are_those_that_torchvision_states(
    name: str, options: dict[str, Any], size: int, gmac: float
) -> None:
    encoder = on_meta(name, **options)
    with FlopCounterMode(display=False) as counter:
        encoder(torch.empty(1, 3, 16, size, size, device="meta"))
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmac, rel=1e-3)


def test_rspnets_stem_never_reads_every_second_frame_and_the_canonical_one_does() -> None:
    torch.manual_seed(0)
    clips = torch.randn(1, 3, 8, 32, 32)
    changed = clips.clone()
    changed[:, :, 1::2] += 1.0
    quirk, canonical = (build_encoder("s3dg", width=0.0625, layout=kind).eval() for kind in ("rspnet", "tensorflow"))
    with torch.no_grad():
        assert torch.equal(quirk(clips), quirk(changed))
        assert not torch.allclose(canonical.conv_1a(clips), canonical.conv_1a(changed))  # type: ignore[operator]


def test_batch_normalisation_of_s3dg_has_tensorflows_constants() -> None:
    norms = [part for part in on_meta("s3dg").modules() if isinstance(part, torch.nn.BatchNorm3d)]
    assert norms and {(part.eps, part.momentum) for part in norms} == {(1e-3, 1e-3)}


@pytest.mark.parametrize("name", ["r3d18", "r2plus1d18", "r2plus1d10", "s3dg", "c3d"])
def test_width_scales_every_channel_count(name: str) -> None:
    # Convolutions dominate, and their parameters go with the square of the width.
    assert parameters(on_meta(name, width=0.5)) / parameters(on_meta(name)) == pytest.approx(0.25, rel=0.05)


@pytest.mark.parametrize(
    ("name", "clip", "least"),
    [
        ("c3d", (7, 32), "8 frames and 16 x 16"),
        ("s3dg", (4, 32), "5 frames and 17 x 17"),
        ("s3dg", (8, 16), "5 frames"),
    ],
)
def test_clip_too_small_for_the_poolings_is_told_with_the_least_size(
    name: str, clip: tuple[int, int], least: str
) -> None:
    encoder = on_meta(name, width=0.0625)
    frames, size = clip
    with pytest.raises(ConfigError, match=f"clips are {frames} x {size} x {size}; .* at least {least}"):
        encoder(torch.empty(1, 3, frames, size, size, device="meta"))


@pytest.mark.parametrize("name", ["c3d", "s3dg"])
def test_the_least_size_is_enough_and_one_less_is_not(name: str) -> None:
    encoder = on_meta(name, width=0.0625).eval()
    frames, size = encoder.minimum
    assert encoder(torch.empty(1, 3, frames, size, size, device="meta")).shape == (1, encoder.dim)
    for less in ((frames - 1, size), (frames, size - 1)):
        encoder.minimum = (1, 1)  # let the networks themselves say so
        with pytest.raises(RuntimeError):
            encoder(torch.empty(1, 3, less[0], less[1], less[1], device="meta"))


def table_rows() -> list[list[str]]:
    lines = (Path(__file__).resolve().parents[3] / "docs" / "encoders.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    return [row for row in rows if len(row) == 6]


@pytest.mark.parametrize("row", table_rows(), ids=lambda row: f"{row[0]} {row[1]} {row[3]}")
def test_table_of_the_document_is_what_is_measured(row: list[str]) -> None:
    name, options, count, clip, shape, operations = row
    encoder = on_meta(name, **(yaml.safe_load(options) or {})).eval()
    with FlopCounterMode(display=False) as counter:
        maps = encoder.features(torch.empty(1, 3, *(int(size) for size in clip.split(" x ")), device="meta"))
    assert f"{parameters(encoder):,}" == count
    assert " x ".join(str(size) for size in maps.shape[1:]) == shape
    assert f"{counter.get_total_flops() / 2e9:.2f}" == operations


def test_table_of_the_document_has_every_encoder() -> None:
    assert {row[0] for row in table_rows()} == set(encoder_names())
