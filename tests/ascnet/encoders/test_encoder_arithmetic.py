"""Forward passes against a second statement of the same networks, and against torchvision's own code."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import encoder_reference as reference
import pytest
import torch
import torchvision_source
from torch import Tensor

from ascnet import build_encoder
from ascnet.importing.layouts import TORCHVISION, rename

CASES: dict[str, tuple[str, dict[str, Any], Callable[..., Tensor]]] = {
    "r3d18": ("r3d18", {}, reference.residual_network),
    "r3d18 as Hara": (
        "r3d18",
        {"stem_kernel": [7, 7, 7], "stem_pool": True},
        partial(reference.residual_network, pool=True),
    ),
    "r2plus1d18": ("r2plus1d18", {}, reference.residual_network),
    "r2plus1d10": ("r2plus1d10", {}, reference.vcop),
    "c3d": ("c3d", {}, reference.c3d),
    "s3dg": ("s3dg", {}, partial(reference.s3dg, stem=((1, 2, 2), (2, 1, 1)))),
    "s3dg as RSPNet": ("s3dg", {"layout": "rspnet"}, partial(reference.s3dg, stem=((2, 2, 2), (1, 1, 1)))),
    "s3d": ("s3dg", {"gating": False}, partial(reference.s3dg, stem=((1, 2, 2), (2, 1, 1)))),
}


@pytest.mark.parametrize("case", CASES)
def test_last_map_equals_the_same_arithmetic_written_as_functions(case: str) -> None:
    name, options, function = CASES[case]
    encoder = reference.scrambled(build_encoder(name, width=0.125, **options).double())
    clips = torch.randn(2, 3, 9, 40, 36, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = function(clips, encoder.state_dict())
        assert expected.std() > 1e-3  # a network that returns next to nothing would pass any tolerance
        torch.testing.assert_close(encoder.features(clips), expected, rtol=1e-9, atol=1e-9)  # type: ignore[operator]
        torch.testing.assert_close(encoder(clips), expected.mean(dim=(2, 3, 4)), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("file", "maker", "name", "options"),
    [
        ("resnet", "r3d_18", "r3d18", {}),
        ("resnet", "r2plus1d_18", "r2plus1d18", {}),
        ("s3d", "S3D", "s3dg", {"gating": False}),
    ],
)
def test_features_equal_those_of_torchvisions_network_with_the_same_weights(
    file: str, maker: str, name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = torchvision_source.load(file, monkeypatch)
    if maker == "S3D":
        theirs = source.S3D()
        theirs.classifier = theirs.avgpool = torch.nn.Identity()  # leaves the mean over time, height and width
    else:
        convs = [source.Conv3DSimple if maker == "r3d_18" else source.Conv2Plus1D] * 4
        stem = source.BasicStem if maker == "r3d_18" else source.R2Plus1dStem
        theirs = source.VideoResNet(source.BasicBlock, convs, [2, 2, 2, 2], stem)
        theirs.fc = torch.nn.Identity()
    theirs = reference.scrambled(theirs)
    ours = build_encoder(name, **options)
    ours.load_state_dict({rename(key, TORCHVISION[name].rules): value for key, value in theirs.state_dict().items()})
    clips = torch.randn(1, 3, 8, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs(clips)
        assert expected.std() > 1e-3
        torch.testing.assert_close(ours.eval()(clips), expected, rtol=1e-4, atol=1e-4)
