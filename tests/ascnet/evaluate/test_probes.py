"""Probes of frozen features: the regression against Newton's method, and answers that are known beforehand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch import nn
from training_data import tiny

from ascnet import build_encoder, checkpoint
from ascnet.build import build_model
from ascnet.cli import main
from ascnet.errors import UserError
from ascnet.evaluate.logistic import Samples, error_over_videos, fit, probe
from ascnet.evaluate.probes import LAST, run_probe, speed_requests, view_features
from ascnet.evaluate.protocols import Protocol
from dali_pipes import ClipRequest, ClipStream, Corpus


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Convolutions of these sizes take longer on several threads than on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


PROTOCOL = Protocol(frames=4, size=16, clips=2)


def newton(x: np.ndarray, y: np.ndarray, penalty: float) -> tuple[np.ndarray, float]:
    """Weights (D,) and bias of the two-class regression, by Newton's method."""
    design = np.column_stack([x, np.ones(len(x))])
    ridge = penalty * np.diag([1.0] * x.shape[1] + [0.0])
    beta = np.zeros(design.shape[1])
    for _ in range(50):
        p = 1 / (1 + np.exp(-design @ beta))
        gradient = design.T @ (p - y) / len(x) + ridge @ beta
        hessian = design.T @ (design * (p * (1 - p))[:, None]) / len(x) + ridge
        beta -= np.linalg.solve(hessian, gradient)
    return beta[:-1], beta[-1]


@pytest.mark.parametrize("penalty", [1e-3, 0.1])
def test_two_classes_have_the_optimum_that_newtons_method_finds(penalty: float) -> None:
    draws = np.random.default_rng(0)
    x = draws.normal(size=(80, 5)) * [1, 10, 0.1, 3, 1] + 4
    y = (x @ [1, 0.1, 2, 0, 0] + draws.normal(size=80) > 12.4).astype(int)
    standard = (x - x.mean(0)) / x.std(0)
    # Two columns of weights that are each other's negative: half the difference, and half the penalty each.
    weights, bias = newton(standard, y, penalty / 2)
    scores = fit(x, y, 2, penalty).scores(x)
    np.testing.assert_allclose(scores[:, 1] - scores[:, 0], standard @ weights + bias, rtol=1e-4, atol=1e-5)


def test_several_classes_are_at_an_optimum() -> None:
    draws = np.random.default_rng(1)
    x, y = draws.normal(size=(90, 4)), draws.integers(3, size=90)
    found = fit(x, y, 3, 0.05)
    standard = (x - x.mean(0)) / x.std(0)
    logits = found.scores(x)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    gradient = standard.T @ (p - np.eye(3)[y]) / len(x) + 0.05 * found.weights.numpy()
    assert np.abs(gradient).max() < 1e-6 and np.abs((p - np.eye(3)[y]).mean(axis=0)).max() < 1e-6


def test_the_regression_is_that_of_scikit_learn() -> None:
    linear = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is not installed")
    draws = np.random.default_rng(2)
    x, y = draws.normal(size=(60, 4)), draws.integers(3, size=60)
    standard = (x - x.mean(0)) / x.std(0)
    theirs = linear.LogisticRegression(C=1 / (60 * 0.05), tol=1e-10, max_iter=10000).fit(standard, y)
    ours = fit(x, y, 3, 0.05).scores(x)
    expected = theirs.decision_function(standard)
    np.testing.assert_allclose(
        ours - ours.mean(1, keepdims=True), expected - expected.mean(1, keepdims=True), atol=1e-4
    )


def samples(count: int, dim: int, signal: float, seed: int, first: int = 0) -> Samples:
    """Two samples a video, one of each answer, told apart by the first number."""
    draws = np.random.default_rng(seed)
    answers = np.tile([0, 1], count)
    features = draws.normal(size=(2 * count, dim))
    features[:, 0] += signal * (2 * answers - 1)
    return Samples(features, answers, first + np.repeat(np.arange(count), 2))


def test_a_signal_is_found_and_noise_is_not() -> None:
    found = probe(samples(60, 20, 2.0, 0), samples(100, 20, 2.0, 1, first=1000), 2)
    nothing = probe(samples(60, 20, 0.0, 2), samples(100, 20, 0.0, 3, first=1000), 2)
    assert found.accuracy > 90 and found.chance == 50 and found.train_videos == 60 and found.videos == 100
    assert abs(nothing.accuracy - 50) < 4 * nothing.standard_error


def hidden(count: int, seed: int, first: int = 0) -> Samples:
    """The answer is in the small difference of two numbers that are nearly alike: only large weights find it."""
    draws = np.random.default_rng(seed)
    answers = np.tile([0, 1], count)
    common = draws.normal(size=2 * count)
    small = 0.05 * (2 * answers - 1 + 0.3 * draws.normal(size=2 * count))
    return Samples(np.column_stack([common + small, common]), answers, first + np.repeat(np.arange(count), 2))


def test_the_penalty_is_chosen_on_training_videos() -> None:
    train, test = hidden(60, 0), hidden(100, 1, first=1000)
    found = probe(train, test, 2)
    assert found.penalty < 1e-2 and found.accuracy > 90
    assert probe(train, test, 2, penalties=[1.0]).accuracy < 70
    turned = Samples(test.features, 1 - test.answers, test.videos)
    assert probe(train, turned, 2).penalty == found.penalty and probe(train, turned, 2).accuracy < 10


def test_a_video_on_both_sides_is_a_mistake() -> None:
    with pytest.raises(UserError, match="among"):
        probe(samples(10, 3, 1.0, 0), samples(10, 3, 1.0, 0), 2)
    broken = samples(10, 3, 1.0, 0)
    broken.features[3, 1] = np.nan
    with pytest.raises(UserError, match="finite"):
        probe(broken, samples(10, 3, 1.0, 0, first=100), 2)


def test_the_standard_error_counts_videos_and_not_samples() -> None:
    draws = np.random.default_rng(0)
    once = draws.random(200) < 0.7
    videos = np.arange(200)
    plain = error_over_videos(once, videos)
    assert plain == pytest.approx(100 * once.std(ddof=1) / np.sqrt(200))
    # Ten samples of a video that always agree tell no more than one.
    assert error_over_videos(once.repeat(10), videos.repeat(10)) == pytest.approx(plain)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Videos that grow brighter, each from a level of its own; `dark` ones are blue, one is short."""
    root = tmp_path_factory.mktemp("brighter")
    draws = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 6)):
        for number in range(count):
            name, frames = "ab"[number % 2], 5 if (split, number) == ("train", 0) else 24
            path = root / split / name / f"{split}{number}.mkv"
            path.parent.mkdir(parents=True, exist_ok=True)
            level = draws.integers(40, 90)
            with av.open(str(path), "w") as container:
                stream = container.add_stream("mjpeg", rate=25)
                stream.width, stream.height, stream.pix_fmt = 48, 32, "yuvj420p"
                for frame in range(frames):
                    picture = np.full((32, 48, 3), level + 5 * frame, np.uint8)
                    picture[..., 2] += 30 * (name == "b")
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
                container.mux(stream.encode())
    return Corpus.build(root, output=root / "corpus.parquet", progress=False, workers=1)


class Change(nn.Module):
    """How much brightness changes from the first frame to the last, with its sign or without."""

    def __init__(self, sign: bool) -> None:
        super().__init__()
        self.sign = sign

    def features(self, x: torch.Tensor) -> torch.Tensor:
        change = (x[:, :, -1:] - x[:, :, :1]).mean(dim=(1, 3, 4), keepdim=True)
        return change if self.sign else change.abs()


class Colour(nn.Module):
    def features(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, 2:] - x[:, :1]


def split(corpus: Corpus) -> tuple[np.ndarray, np.ndarray]:
    return corpus.select("train"), corpus.select("test")


def test_the_speed_probe_finds_speed_where_the_features_have_it_and_only_there(corpus: Corpus) -> None:
    found, left = run_probe("speed", Change(False), corpus, *split(corpus), PROTOCOL, threads=1, progress=False)
    assert found[LAST].accuracy == 100 and found[LAST].chance == 50 and found[LAST].samples == 6 * 2 * 2
    # Five frames are fewer than four at 2x span: that clip would start over, and its jump give it away.
    assert [corpus[row].frames for row in left] == [5] and "2x" in next(iter(left.values()))
    three, _ = run_probe(
        "speed", Change(False), corpus, *split(corpus), PROTOCOL, speeds=(1, 2, 4), threads=1, progress=False
    )
    assert three[LAST].accuracy > 90 and three[LAST].chance == pytest.approx(100 / 3)
    none, _ = run_probe("speed", Colour(), corpus, *split(corpus), PROTOCOL, threads=1, progress=False)
    assert none[LAST].accuracy < 80


def test_the_arrow_probe_needs_a_feature_that_knows_the_direction(corpus: Corpus) -> None:
    found, _ = run_probe("arrow", Change(True), corpus, *split(corpus), PROTOCOL, threads=1, progress=False)
    assert found[LAST].accuracy == 100
    none, _ = run_probe("arrow", Change(False), corpus, *split(corpus), PROTOCOL, threads=1, progress=False)
    assert none[LAST].accuracy < 80


def test_layers_are_the_pooled_outputs_of_the_stages(corpus: Corpus) -> None:
    torch.manual_seed(0)
    encoder = build_encoder("r3d10", width=0.0625).eval()
    rows = corpus.select("test")[:2]
    ask = speed_requests(corpus, PROTOCOL, [1.0])
    found = view_features(encoder, corpus, rows, ask, PROTOCOL, layers=True, batch_size=3, threads=1, progress=False)
    assert list(found.vectors) == ["stem", "layer1", "layer2", "layer3", "layer4", LAST]
    with ClipStream(corpus, frames=4, size=16, batch_size=1, device="cpu", dtype="float32", threads=1) as stream:
        for place, row in enumerate(rows):
            for number, view in enumerate(ask(int(row)).views):
                stream.submit([ClipRequest(int(row), (view,))])
                with torch.no_grad():
                    x = encoder.layer1(encoder.stem(stream.get().clips[0]))
                    np.testing.assert_allclose(
                        found.vectors["layer1"][place, number], x.mean(dim=(2, 3, 4))[0], rtol=1e-3, atol=1e-4
                    )
    np.testing.assert_array_equal(found.vectors["layer4"], found.vectors[LAST])
    assert not any(module._forward_hooks for module in encoder.modules())


@pytest.mark.parametrize("name", ["c3d", "s3dg", "r2plus1d10"])
def test_every_encoder_has_layers_to_probe(corpus: Corpus, name: str) -> None:
    encoder = build_encoder(name, width=0.0625)
    protocol = Protocol(frames=8, size=32, clips=1)
    results, _ = run_probe(
        "layers", encoder, corpus, *split(corpus), protocol, penalties=[0.1], threads=1, progress=False
    )
    assert len(results) > 4 and all(0 <= result.accuracy <= 100 for result in results.values())


@pytest.mark.parametrize("kind", ["speed", "arrow", "layers"])
def test_the_command_writes_scores_and_protocol(
    corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    run, config = tmp_path / "run", tiny()
    checkpoint.save(run, 0, {"model": build_model(config).state_dict(), "config": config.to_dict()}, keep=1)
    words = ["probe", "--kind", kind, "--checkpoint", str(run), "--corpus", str(corpus.path), "--clips", "2"]
    assert main([*words, "--threads", "1", "--device", "cpu"]) == 0
    kept = json.loads((run / "probe" / f"probe_{kind}.json").read_text())
    assert set(kept["results"]) == (
        {"stem", "layer1", "layer2", "layer3", "layer4", LAST} if kind == "layers" else {LAST}
    )
    assert kept["results"][LAST]["videos"] == 6 and kept["results"][LAST]["standard_error"] >= 0
    assert len(kept["left_out"]) == (kind == "speed") and kept["protocol"]["seed"] == 0
    assert "standard error" in capsys.readouterr().out


def test_mistakes_are_said_in_words(corpus: Corpus) -> None:
    with pytest.raises(UserError, match="speeds"):
        run_probe("speed", Colour(), corpus, *split(corpus), PROTOCOL, speeds=(2, 2), progress=False)
    with pytest.raises(UserError, match="kind"):
        run_probe("colour", Colour(), corpus, *split(corpus), PROTOCOL, progress=False)
    with pytest.raises(UserError, match="as long as"):
        run_probe("speed", Colour(), corpus, *split(corpus), Protocol(frames=60, size=16), progress=False)
