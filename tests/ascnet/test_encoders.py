from __future__ import annotations

import pytest
import torch

from ascnet import build_encoder
from ascnet.encoders import encoder_names
from ascnet.errors import ConfigError


def test_r3d18_has_the_parameters_of_torchvision_without_fc() -> None:
    weights = build_encoder("r3d18").state_dict()
    # torchvision documents 33,371,472 parameters for r3d_18; its fc has 512 x 400 + 400 of them.
    trained = {name: tensor for name, tensor in weights.items() if "running" not in name and "tracked" not in name}
    assert sum(tensor.numel() for tensor in trained.values()) == 33_371_472 - 512 * 400 - 400
    shapes = {
        "stem.0.weight": (64, 3, 3, 7, 7),
        "stem.1.running_mean": (64,),
        "layer1.0.conv1.0.weight": (64, 64, 3, 3, 3),
        "layer1.1.conv2.1.bias": (64,),
        "layer2.0.conv1.0.weight": (128, 64, 3, 3, 3),
        "layer2.0.downsample.0.weight": (128, 64, 1, 1, 1),
        "layer4.0.downsample.1.num_batches_tracked": (),
        "layer4.1.conv2.0.weight": (512, 512, 3, 3, 3),
    }
    for name, shape in shapes.items():
        assert tuple(weights[name].shape) == shape, name
    blocks = [f"layer{layer}.{block}" for layer in (1, 2, 3, 4) for block in (0, 1)]
    batch_norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    expected = {"stem.0.weight", *(f"stem.1.{name}" for name in batch_norm)}
    for block in blocks:
        for conv in ("conv1", "conv2"):
            expected |= {f"{block}.{conv}.0.weight", *(f"{block}.{conv}.1.{name}" for name in batch_norm)}
    for layer in (2, 3, 4):
        at = f"layer{layer}.0.downsample"
        expected |= {f"{at}.0.weight", *(f"{at}.1.{name}" for name in batch_norm)}
    assert weights.keys() == expected


def test_features_of_16_frames_at_112_pixels_are_512_x_2_x_7_x_7_and_the_pooled_feature_is_their_mean() -> None:
    encoder = build_encoder("r3d18").eval()
    clips = torch.randn(1, 3, 16, 112, 112)
    with torch.no_grad():
        maps, pooled = encoder.features(clips), encoder(clips)
    assert maps.shape == (1, 512, 2, 7, 7) and encoder.dim == 512
    torch.testing.assert_close(pooled, maps.flatten(2).mean(2))


def test_width_scales_every_stage() -> None:
    encoder = build_encoder("r3d18", width=0.25)
    assert encoder.dim == 128
    assert encoder(torch.zeros(2, 3, 8, 32, 32)).shape == (2, 128)
    assert encoder.state_dict()["stem.0.weight"].shape[0] == 16


def test_options_reach_the_stem() -> None:
    small = build_encoder("r3d10", width=0.125, stem_stride=[1, 1, 1], stem_kernel=[3, 3, 3])
    assert small.features(torch.zeros(1, 3, 4, 16, 16)).shape == (1, 64, 1, 2, 2)
    assert not any(".1.conv1." in name for name in small.state_dict())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("r3d81", {}, "unknown encoder 'r3d81'; did you mean 'r3d18'"),
        ("r3d18", {"stem_strid": [1, 2, 2]}, "no option 'stem_strid'; did you mean 'stem_stride'"),
        ("r3d18", {"stem_stride": [1, 2]}, "stem_stride is .* expected 3 numbers"),
        ("r3d18", {"stem_kernel": [3, 6, 6]}, "stem_kernel is .* expected odd numbers"),
        ("s3dg", {"layout": "slim"}, "layout is 'slim'; allowed: tensorflow, rspnet"),
        ("c3d", {"stem_pool": True}, "encoder 'c3d' has no option 'stem_pool'"),
    ],
)
def test_wrong_names_and_options_are_told_with_the_nearest_right_one(name: str, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_encoder(name, **options)


def test_every_registered_encoder_keeps_the_interface() -> None:
    for name in encoder_names():
        encoder = build_encoder(name, width=0.125)
        clips = torch.zeros(2, 3, 8, 32, 32)
        assert encoder(clips).shape == (2, encoder.dim) and encoder.num_features == encoder.dim
        assert encoder.features(clips).shape[:2] == (2, encoder.dim)
        assert torch.equal(encoder.eval().forward_features(clips), encoder.features(clips))
        assert encoder.config is None
