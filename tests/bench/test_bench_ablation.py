"""`python -m bench ablation` on small videos, and the probe of playback speed by itself."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from make_videos import make_video

from ascnet.evaluate.protocols import Protocol
from ascnet.evaluate.run import evaluate, untrained_encoder
from bench.__main__ import main
from bench.ablation import speed_probe
from bench.ablation import table as ablation_table
from bench.ablation.speed_task import losses
from bench.commands import ablation
from dali_pipes import Corpus, DataError

SMALL = ["--set", "data.frames=4", "data.size=16", "data.batch_size=2", "data.clips_per_video=1", "data.threads=1"]
SMALL += ["data.fps=null", "model.width=0.0625", "model.projector_hidden=12", "model.projector_dim=6"]
SMALL += ["model.predictor_hidden=10", "device=cpu", "log.interval=1", "--clips", "2", "--steps", "3"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    for number in range(8):
        split, label = ("train", "test")[number % 2], "ab"[number // 2 % 2]
        make_video(root / split / label / f"{number}.mkv", codec="mjpeg", frames=14, size=(48, 48), first=999 * number)
    Corpus.build(root, output=root / "corpus.parquet", progress=False, workers=1)
    return root / "corpus.parquet"


@pytest.fixture(scope="module")
def out(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ablation")
    torch.set_num_threads(1)
    assert command(corpus, folder) == 0
    return folder


def command(corpus: Path, out: Path, *more: str, methods: tuple[str, ...] = ("untrained", "retrieved")) -> int:
    return main(["ablation", str(corpus), "--out", str(out), "--seeds", "0", "1", "--methods", *methods, *more, *SMALL])


def test_a_small_run_ends_with_a_table(out: Path) -> None:
    result = json.loads((out / "ablation.json").read_text())
    assert list(result["summary"]) == ["untrained", "retrieved"]
    for scores in result["summary"].values():
        for name in ablation_table.COLUMNS:
            assert scores[name]["n"] == 2 and 0 <= scores[name]["mean"] <= 100 and scores[name]["std"] >= 0
    trained = [cell for cell in result["cells"] if cell["method"] == "retrieved"]
    assert [cell["seed"] for cell in trained] == [0, 1]
    assert all(cell["training"]["steps"] == 3 and cell["training"]["loss_acp"] > 0 for cell in trained)
    assert result["chance"]["R@1"] == 50 and str(out) not in json.dumps(result)
    table = (out / "ablation.md").read_text()
    assert "| method | R@1 | R@5 |" in table and "| retrieved |" in table and " ± " in table


def test_what_the_speed_task_needs_is_told_of_methods_that_have_it(corpus: Path, out: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(out, again)
    assert command(corpus, again, "--explain") == 0
    result = json.loads((again / "ablation.json").read_text())
    assert list(result["speed_task"]) == ["retrieved"]
    for name, value in result["speed_task"]["retrieved"].items():
        assert value["n"] == 2 and 0 <= value["mean"] <= (100 if name == "motion" else 4), name
    assert "speed loss: nearest, other speed" in (again / "ablation.md").read_text()
    shutil.rmtree(again / "runs")
    assert command(corpus, again, "--explain") == 2


def test_a_task_that_knows_speed_has_a_higher_loss_at_the_other_speed_and_a_blind_one_has_not() -> None:
    # One axis for each video, and one for each speed.
    videos, speeds = torch.eye(6)[:, None, :].repeat(1, 2, 1), torch.eye(8)[6:]
    blind = [torch.cat([videos, torch.zeros(6, 2, 2)], dim=2)] * 2
    aware = [speed.expand(6, 2, 8) for speed in speeds]
    appearance = [torch.rand(6, 2, 8)] * 2
    found = losses({"predicted": aware, "target": aware, "appearance": appearance}, 0)
    assert found["random, same speed"] == found["nearest, same speed"] == 0
    assert found["random, other speed"] == found["nearest, other speed"] == 2
    found = losses({"predicted": blind, "target": blind, "appearance": appearance}, 0)
    assert found["random, same speed"] == found["random, other speed"] == 2


def test_finished_cells_are_not_made_again_and_a_missing_one_is(
    corpus: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = tmp_path / "again"
    shutil.copytree(out, again)
    shutil.rmtree(again / "runs")
    (again / "cells" / "untrained-seed1.json").unlink()
    before = {path.name: path.stat().st_mtime_ns for path in (again / "cells").iterdir()}
    assert len(before) == 3
    assert command(corpus, again) == 0
    after = {path.name: path.stat().st_mtime_ns for path in (again / "cells").iterdir()}
    assert len(after) == 4 and before == {name: after[name] for name in before}
    assert not (again / "runs").exists()
    first, second = (json.loads((folder / "ablation.json").read_text()) for folder in (out, again))
    assert first["summary"] == second["summary"]
    assert "retrieved" in capsys.readouterr().out


def test_an_interrupted_cell_goes_on_where_it_stopped(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = tmp_path / "runs" / "retrieved-seed0" / "metrics.jsonl"

    def interrupt() -> None:
        while not (metrics.is_file() and metrics.stat().st_size):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    arguments = ["ablation", str(corpus), "--out", str(tmp_path), "--seeds", "0", "--methods", "retrieved", *SMALL]
    arguments[-1] = "80"
    threading.Thread(target=interrupt, daemon=True).start()
    assert main(arguments) == 130
    assert not (tmp_path / "cells").exists()
    assert 0 < len(metrics.read_text().splitlines()) < 80
    assert main(arguments) == 0
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
    assert steps == list(range(1, 81))
    assert json.loads((tmp_path / "ablation.json").read_text())["cells"][0]["training"]["steps"] == 80


def test_cells_of_other_settings_are_refused(corpus: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = ["model.projector_dim=8" if word == "model.projector_dim=6" else word for word in SMALL]
    assert main(["ablation", str(corpus), "--out", str(out), "--methods", "retrieved", *other]) == 2
    error = capsys.readouterr().err
    assert "other settings" in error and "model.projector_dim" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--methods", "retreived"], "--methods retreived"),
        (["--methods", "gama=0.3"], "did you mean 'gamma'"),
        (["--config", "nowhere"], "--config nowhere: no such file"),
    ],
)
def test_a_mistake_is_one_line(
    corpus: Path, tmp_path: Path, arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ablation", str(corpus), "--out", str(tmp_path / "out"), *arguments]) == 2
    error = capsys.readouterr().err
    assert expected in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_corpus_without_a_test_split_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_video(tmp_path / "train" / "a" / "1.mkv", codec="mjpeg", frames=4, size=(32, 32))
    Corpus.build(tmp_path, output=tmp_path / "corpus.parquet", progress=False, workers=1)
    assert main(["ablation", str(tmp_path / "corpus.parquet"), "--out", str(tmp_path / "out")]) == 2
    assert "test" in capsys.readouterr().err


def test_every_method_has_a_configuration_that_changes_the_same_keys() -> None:
    from ascnet.cli import find_config
    from ascnet.config import Config

    for method, changed in ablation.METHODS.items():
        if method != "untrained":
            assert Config.load(find_config(method)) == Config.load(find_config("retrieved"), changed), method


def test_retrieval_by_single_clips_is_that_of_the_retrieve_command(corpus: Path) -> None:
    from ascnet.config import Config

    config = Config.load("configs/ablation_small.yaml", ["model.width=0.125", "device=cpu", "data.threads=1"])
    protocol = Protocol(frames=4, size=24, clips=3, ks=(1, 2))
    encoder, opened = untrained_encoder(config.to_dict()), Corpus.open(corpus)
    usual = evaluate(encoder, opened, protocol, threads=1, progress=False).recalls
    rows = np.concatenate([opened.select("train"), opened.select("test")])
    found = speed_probe.clip_features(
        encoder, opened, rows, protocol, device=torch.device("cpu"), threads=1, progress=False
    )
    from ascnet.evaluate.features import Features
    from ascnet.evaluate.run import retrieve

    assert found.vectors.shape[:2] == (8, 3)
    assert retrieve(Features(found.rows, found.vectors.mean(axis=1)), opened, protocol).recalls == usual


def test_the_probe_finds_a_speed_that_is_there_and_none_that_is_not() -> None:
    draws = np.random.default_rng(0)

    def parts(shift: float) -> list[speed_probe.ClipFeatures]:
        made = []
        for speed in range(2):
            vectors = draws.normal(size=(80, 4, 6)).astype(np.float32)
            vectors[..., 2] += shift * speed
            made.append(speed_probe.ClipFeatures(np.arange(80), vectors, {}))
        return made

    for shift, low, high in ((20.0, 100, 100), (0.0, 40, 60)):
        features = parts(shift)
        train, test = (speed_probe.samples(features, rows) for rows in (np.arange(40), np.arange(40, 80)))
        assert low <= speed_probe.probe(train, test)["accuracy"] <= high
        assert len(train[0]) == 40 * 4 * 2 and int(train[1].sum()) == 40 * 4


def test_the_probe_uses_only_videos_with_clips_at_both_speeds() -> None:
    vectors = np.zeros((3, 2, 4), np.float32)
    parts = [
        speed_probe.ClipFeatures(np.array([1, 2, 3]), vectors, {}),
        speed_probe.ClipFeatures(np.array([3, 1]), vectors[:2], {2: "broken"}),
    ]
    x, y = speed_probe.samples(parts, np.array([1, 2, 3]))
    assert len(x) == 8 and y.tolist() == [0] * 4 + [1] * 4
    with pytest.raises(DataError, match="both speeds"):
        speed_probe.probe((x, y), speed_probe.samples(parts, np.array([2])))
    assert speed_probe.probe((x, y), (x, y))["accuracy"] == 50
