"""Parts of a run's page: maps that add up to logits, the flat map, charts, clips."""

from __future__ import annotations

import base64
import io
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ascnet.encoders import build_encoder
from ascnet.evaluate.classifier import Classifier
from ascnet.report import curves
from ascnet.report.cam import class_map, energy_map
from ascnet.report.charts import confusion_chart, histogram, line_chart, smoothed, thinned, ticks
from ascnet.report.embedding import project
from ascnet.report.moving import LEVELS, Level, Moving, square
from ascnet.report.source import Source


@pytest.mark.parametrize("norm", [False, True])
def test_a_class_map_averages_to_the_logit(norm: bool) -> None:
    torch.manual_seed(0)
    classifier = Classifier(build_encoder("r3d10", width=0.0625), 5, norm=norm)
    if norm:
        classifier.norm.running_mean.normal_()  # type: ignore[operator, union-attr]
        classifier.norm.running_var.uniform_(0.5, 2)  # type: ignore[operator, union-attr]
    torch.nn.init.normal_(classifier.head.bias)
    classifier.eval()
    clips, classes = torch.randn(3, 3, 4, 32, 32), torch.tensor([4, 0, 2])
    with torch.inference_mode():
        maps, offset = class_map(classifier, classifier.encoder.features(clips), classes)
        logits = classifier(clips)[torch.arange(3), classes]
    assert torch.allclose(maps.mean(dim=(1, 2, 3)) + offset, logits, atol=1e-5)


def test_energy_is_high_where_the_encoder_responds() -> None:
    features = torch.zeros(1, 8, 2, 3, 3)
    features[0, :, 1, 2, 0] = -4.0
    assert energy_map(features)[0, 1, 2, 0] == 4.0 and energy_map(features).sum() == 4.0


def clusters(count: int) -> np.ndarray:
    draws = np.random.default_rng(0)
    centres = np.repeat(np.eye(2, 16), count, axis=0) * 5
    return (centres + draws.normal(0, 0.1, centres.shape)).astype(np.float32)


def apart(places: np.ndarray, count: int) -> bool:
    """Whether the nearest other place is one of the own group everywhere."""
    distances = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    groups = np.arange(2 * count) // count
    return bool((groups[distances.argmin(axis=1)] == groups).all())


def test_the_flat_map_keeps_groups_apart_and_is_the_same_every_time() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed (extra `report`)")
    places, method = project(clusters(20), 3)
    assert method == "t-SNE, perplexity 6, seed 3" and apart(places, 20)
    assert places.min() >= 0 and places.max() <= 1
    assert np.array_equal(places, project(clusters(20), 3)[0])


def test_without_scikit_learn_the_map_has_principal_components_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    places, method = project(clusters(20))
    assert method.startswith("principal components") and "dali-pipes[report]" in method and apart(places, 20)


@pytest.mark.parametrize("shape", [(1, 8), (3, 1), (9, 4)])
def test_few_videos_have_places_too(shape: tuple[int, int]) -> None:
    places, method = project(np.random.default_rng(0).normal(size=shape).astype(np.float32))
    assert places.shape == (shape[0], 2) and np.isfinite(places).all() and method == "principal components"


def test_ticks_are_round_numbers_within_the_range() -> None:
    assert ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert ticks(3, 3001) == pytest.approx([1000, 2000, 3000])
    assert all(float(tick).is_integer() for tick in ticks(0, 2, whole=True))


def test_a_curve_keeps_its_ends_and_a_constant_stays_what_it_is() -> None:
    xs, ys = thinned(np.arange(5000.0), np.arange(5000.0) ** 2)
    assert (len(xs), xs[0], xs[-1], ys[-1]) == (400, 0, 4999, 4999.0**2)
    assert smoothed(np.full(500, 3.0)) == pytest.approx(np.full(500, 3.0))


def test_a_chart_leaves_out_what_is_missing_and_draws_within_its_frame() -> None:
    chart = line_chart("Loss", [("loss", [1, 2, 3], [4.0, None, float("nan")]), ("lr", [1, 2], [1.0, 2.0])], "step")  # type: ignore[list-item]
    points = re.findall(r'points="([^"]*)"', chart)
    assert len(points) == 2 and len(points[0].split()) == 1
    for pair in " ".join(points).split():
        x, y = map(float, pair.split(","))
        assert 0 <= x <= 420 and 0 <= y <= 240
    assert line_chart("Loss", [("loss", [1], [None])], "step") == ""  # type: ignore[list-item]
    assert line_chart("a <b>", [("<i>", [1, 2], [1.0, 1.0])], "step").count("<b>1</b>") == 1


def test_curves_show_what_was_recorded_and_nothing_else() -> None:
    source = Source(Path("run"), {}, steps=[{"step": n, "loss": 1 / n, "loss_scp": None} for n in range(1, 40)])
    source.steps += [{"step": 10, "knn/top1": 40.0, "knn/queries": 30.0}, {"step": 20, "knn/top1": 50.0}]
    source.recognition = {"history": [{"epoch": 1, "validation_top1": 60.0}]}
    page = curves.html(source)
    titles = re.findall(r"<figcaption>([^<]*)</figcaption>", page)
    assert titles == ["Loss", "Classes of nearest neighbours while training (%)", "Validation top-1 (%)"]
    assert "top-1 <b>50</b>" in page and "speed (SCP)" not in page
    assert curves.html(Source(Path("run"), {})) == ""


def test_histogram_and_confusion_count_every_video() -> None:
    bars = histogram("Length", np.array([1.0, 1.0, 2.0, 5.0]), "s")
    assert sum(map(int, re.findall(r": (\d+) videos", bars))) == 4
    matrix = confusion_chart(["a", "<b>"], np.array([[3, 1], [0, 2]]))
    assert matrix.count('class="hit"') == 2 and matrix.count('class="miss"') == 1
    assert "a taken for &lt;b&gt;: 1 videos, 25%" in matrix and "<b>" not in matrix


def test_a_clip_becomes_an_animation_of_the_right_length_and_size() -> None:
    frames = np.random.default_rng(0).integers(0, 255, (10, 20, 20, 3), dtype=np.uint8)
    moving = Moving(frames, 1.0)
    for level in (LEVELS[0], Level(40, 5, 20, 0)):
        head, _, data = moving.address(level).partition(",")
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            assert head == "data:image/webp;base64" and picture.size == (level.edge, level.edge)
            assert picture.n_frames == min(10, level.frames)  # type: ignore[attr-defined]
    assert moving.thumb(Level(40, 5, 20, 0)) == "" and moving.thumb(LEVELS[0]).startswith("data:image/webp")
    assert square(np.zeros((30, 50, 3), np.uint8)).shape == (30, 30, 3)
