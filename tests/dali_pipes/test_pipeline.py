"""The graph against plain numpy: gather, crop, resize, colours, flip, normalisation, layout and type."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

from dali_pipes import Augment, Draws
from dali_pipes.augment import PLAIN
from dali_pipes.pipeline import GraphSpec, Sample, build, feed

SIDE = 32
# One that has every operator in the graph, so that draws decide what happens.
FULL = Augment(blur=1.0)


def frames_of(count: int = 6, height: int = 40, width: int = 56) -> np.ndarray:
    """Smooth colours that move, with every channel different; uint8 (F, H, W, 3)."""
    y, x = np.mgrid[0:height, 0:width]
    t = np.arange(count)[:, None, None]
    channels = [np.sin(x / 9 + t), np.cos(y / 7 - t / 2), np.sin((x + y) / 11 + t / 3)]
    return (128 + 90 * np.stack(np.broadcast_arrays(*channels), axis=-1)).astype(np.uint8)


def run(
    frames: np.ndarray,
    *draws: Draws,
    dtype: Any = "uint8",
    augment: Augment = FULL,
    order: Any = None,
    side: int = SIDE,
) -> np.ndarray:
    """What the graph makes of one clip under each of some draws: (views, T, H, W, C)."""
    spec = GraphSpec(len(draws), side, 1, False, True, augment, dtype, 1, None)
    graph = build(spec)
    order = np.arange(len(frames), dtype=np.int32) if order is None else np.array(order, np.int32)
    feed(graph, spec, [Sample(None, np.empty(0, np.int32), frames, (order,) * len(draws), draws)])
    (output,) = graph.run()
    clips = torch.from_dlpack(output.as_tensor())
    assert clips.shape == (1, len(draws), 3, len(order), side, side)
    return clips[0].permute(0, 2, 3, 4, 1).clone().numpy()


def resized(frames: np.ndarray, draws: Draws, side: int = SIDE) -> np.ndarray:
    """Pillow's antialiased triangle filter over the same region."""
    height, width = frames.shape[1:3]
    box = (draws.left * width, draws.top * height, draws.right * width, draws.bottom * height)
    images = (Image.fromarray(frame) for frame in frames)
    return np.stack([np.asarray(im.resize((side, side), Image.Resampling.BILINEAR, box=box)) for im in images])


def test_gathering_applies_the_order_of_each_view() -> None:
    frames = frames_of(height=SIDE, width=SIDE)
    order = [5, 0, 0, 3]
    assert np.array_equal(run(frames, Draws(), order=order)[0], frames[order])


def test_a_region_is_cut_out_and_resized_in_one_pass() -> None:
    frames = frames_of(height=96, width=120)
    for draws in (Draws(), Draws(0.1, 0.25, 0.6, 0.9), Draws(0.5, 0.5, 0.7, 0.7)):
        difference = np.abs(run(frames, draws, augment=PLAIN)[0].astype(int) - resized(frames, draws))
        assert difference.max() <= 4 and difference.mean() < 0.5, draws


def test_a_flip_is_exact() -> None:
    frames = frames_of()
    plain, flipped = run(frames, Draws(0.1, 0.1, 0.9, 0.9), Draws(0.1, 0.1, 0.9, 0.9, flip=True))
    assert np.array_equal(flipped, plain[:, :, ::-1])


def test_normalisation_is_exact_to_the_output_type() -> None:
    frames = frames_of(height=SIDE, width=SIDE)
    wanted = (frames / 255 - PLAIN.mean) / PLAIN.std
    single, half = (run(frames, Draws(), dtype=dtype, augment=PLAIN)[0] for dtype in ("float32", "float16"))
    assert single.dtype == np.float32 and half.dtype == np.float16
    assert np.abs(single - wanted).max() < 1e-5
    # Half a unit in the last place of float16 below 4, and float32's own rounding.
    assert np.abs(half - wanted).max() <= 2**-10 + 1e-5
    other = Augment(flip=0, jitter=0, grayscale=0, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.25))
    scaled = run(frames, Draws(), dtype="float32", augment=other)[0]
    assert np.abs(scaled - (frames / 255 - 0.5) / (0.5, 0.5, 0.25)).max() < 1e-5


def test_brightness_scales_and_clips_every_value() -> None:
    frames = frames_of(height=SIDE, width=SIDE)
    double, half = run(frames, Draws(brightness=2.0), Draws(brightness=0.5)).astype(int)
    assert np.abs(double - np.minimum(frames.astype(int) * 2, 255)).max() <= 1
    assert np.abs(half - frames / 2).max() <= 1


def test_contrast_turns_about_mid_grey() -> None:
    frames = frames_of(height=SIDE, width=SIDE)
    low = run(frames, Draws(contrast=0.5))[0].astype(int)
    assert np.abs(low - ((frames.astype(float) - 128) / 2 + 128)).max() <= 1


def test_saturation_zero_makes_the_channels_equal_and_keeps_luma() -> None:
    frames = frames_of(height=SIDE, width=SIDE)
    gray = run(frames, Draws(saturation=0.0))[0].astype(int)
    assert (gray.max(-1) - gray.min(-1)).max() <= 1
    assert np.abs(gray[..., 0] - frames @ np.array([0.299, 0.587, 0.114])).max() <= 2


def test_hue_turns_the_colour_circle_and_leaves_grey_alone() -> None:
    frames = np.full((2, SIDE, SIDE, 3), 120, np.uint8)
    assert np.abs(run(frames, Draws(hue=100.0))[0].astype(int) - 120).max() <= 1
    red = np.zeros((1, SIDE, SIDE, 3), np.uint8) + np.array([160, 90, 90], np.uint8)
    turned = run(red, Draws(hue=120.0), Draws(hue=-120.0), Draws(hue=360.0))[:, 0, 0, 0].astype(int)
    assert turned[0].argmax() == 1 and turned[1].argmax() == 2
    assert np.abs(turned[2] - [160, 90, 90]).max() <= 2


def test_blur_smooths_by_its_standard_deviation_and_zero_is_none() -> None:
    point = np.zeros((1, SIDE, SIDE, 3), np.uint8)
    point[0, 16, 16] = 255
    none, some = run(point, Draws(), Draws(blur=1.5)).astype(float)
    assert np.array_equal(none[0], point[0])
    offsets = np.arange(SIDE) - 16
    gauss = np.exp(-(offsets**2) / (2 * 1.5**2))
    wanted = 255 * np.outer(gauss, gauss) / gauss.sum() ** 2
    assert np.abs(some[0, ..., 0] - wanted).max() <= 1


def test_all_frames_of_a_clip_get_the_same_draw_and_views_their_own() -> None:
    still = np.repeat(frames_of(1), 5, axis=0)
    rng = np.random.default_rng(0)
    augment = Augment(blur=0.5)
    first, second = run(still, *(augment.draw(rng, 56, 40) for _ in range(2)), augment=augment)
    for clip in (first, second):
        assert (clip == clip[:1]).all()
    assert (first != second).mean() > 0.5


def test_samples_of_different_sizes_and_sources_share_a_batch() -> None:
    spec = GraphSpec(1, SIDE, 3, False, True, PLAIN, "uint8", 1, None)
    clips = [frames_of(4, 40, 56), frames_of(9, 32, 32), frames_of(2, 100, 64)]
    orders = [np.array(order, np.int32) for order in ([0, 3], [8, 1], [1, 1])]
    graph = build(spec)
    feed(
        graph,
        spec,
        [Sample(None, np.empty(0, np.int32), c, (o,), (Draws(),)) for c, o in zip(clips, orders, strict=True)],
    )
    (output,) = graph.run()
    for got, clip, order in zip(torch.from_dlpack(output.as_tensor()), clips, orders, strict=True):
        assert np.abs(got[0].permute(1, 2, 3, 0).numpy().astype(int) - resized(clip[order], Draws())).max() <= 2


def test_output_reaches_torch_without_a_copy() -> None:
    spec = GraphSpec(1, SIDE, 1, False, True, PLAIN, "float16", 1, None)
    graph = build(spec)
    feed(graph, spec, [Sample(None, np.empty(0, np.int32), frames_of(2), (np.arange(2, dtype=np.int32),), (Draws(),))])
    (output,) = graph.run()
    tensor = output.as_tensor()
    assert torch.from_dlpack(tensor).data_ptr() == tensor.data_ptr()
