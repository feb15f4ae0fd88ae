"""`bench stages` from end to end on small generated videos, its advice, and users' mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from make_videos import make_video

from ascnet.config import Config
from bench.__main__ import main
from bench.stages.advice import Copies, compared, try_preset, variants
from bench.stages.rung import Work
from bench.verdict import Observed, Pool, Stage, predict
from dali_pipes import Augment, ClipRequest, Corpus, View
from dali_pipes.errors import DataError

TINY = (
    "model.encoder=r3d10",
    "model.width=0.03125",
    "model.projector_hidden=16",
    "model.projector_dim=8",
    "model.predictor_hidden=16",
    "precision=fp32",
)
SIZES = ("--frames", "4", "--size", "16", "--batch-size", "2", "--pairs", "4")
QUICK = (*SIZES, "--threads", "2", "--rounds", "1", "--seconds", "600", "--device", "cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stages") / "videos"
    for number in range(3):
        make_video(path / f"{number}.mp4", frames=48, size=(64, 48), gop=48, first=100 * number)
    return path


def test_command_measures_judges_and_writes_figures(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(1)
    output = tmp_path / "stages.json"
    command = ["stages", str(folder), "--set", *TINY, *QUICK, "--try-presets", "cpu", "--try-videos", "1"]
    assert main([*command, "--output", str(output)]) == 0
    text = output.read_text()
    result: dict[str, Any] = json.loads(text)
    assert str(folder.parent) not in text and str(tmp_path) not in text
    assert result["benchmark"] == "stages" and result["format"] == 1 and result["corpus"]["videos"] == 3

    here = {name for name, rung in result["ladder"].items() if not rung["missing"]}
    assert here == {
        "read", "plan", "cut", "decode in order", "decode needed", "resample", "resample + augment", "loader", "step",
        "loader + step",
    }  # fmt: skip
    assert set(result["ladder"]) - here == {"decode in order by DALI", "decode by DALI", "copy"}
    for name in here:
        rate = result["figures"][f"{name} clips/s"]
        assert rate["median"] > 0 and rate["unit"] == "clips/s" and rate["better"] == "higher"
    assert {"median", "low", "high", "count", "unit", "better"} == set(result["figures"]["read MB/s"])
    assert {"threads=1, times as quick", "threads=3, times as quick"} <= set(result["figures"])
    # One key frame at the beginning: more is decoded than is wanted.
    assert result["frames_decoded_per_frame_wanted"] > 1

    assert set(result["stages"]) == {"loader", "loader + step"}
    rows = {(row["pool"], row["stage"]): row for row in result["stages"]["loader + step"]["rows"]}
    assert {("workers", "decode"), ("workers", "wait"), ("graph", "graph"), ("consumer", "step")} <= rows.keys()
    for pool in ("workers", "graph"):
        assert sum(row["share"] for (name, _), row in rows.items() if name == pool) >= 0.99
    assert 0 <= result["stages"]["loader"]["waits"]["ready"] <= 1

    (copies,) = result["copies"]
    assert copies["preset"] == "cpu" and copies["videos"] == 1 and copies["factors"]["decode"] > 0
    sentences = result["verdict"]["sentences"]
    assert any("transcode --preset cpu" in sentence for sentence in sentences)
    assert result["verdict"]["loader"]["stage"] in {stage for _, stage in rows} | {"other"}
    assert sentences[0] in capsys.readouterr().out


def test_loader_alone_is_judged_where_the_step_is_left_out(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "stages.json"
    command = ["stages", str(folder), "--set", *TINY, *QUICK, "--no-step", "--no-settings", "--try-presets", "none"]
    assert main([*command, "--cold", "--output", str(output)]) == 0
    result = json.loads(output.read_text())
    assert result["ladder"]["step"]["missing"] == "--no-step was given"
    assert set(result["stages"]) == {"loader"} and result["tried"] == [] and result["copies"] == []
    assert result["verdict"]["sentences"][0] == "The loader alone:"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--speeds", "1"], "--speeds 1: must be two"),
        (["--set", "data.framez=3"], "framez"),
        (["--config", "no_such"], "no_such"),
        (["--device", "tpu"], "--device tpu"),
        (["--batch-size", "1"], "batch_size"),
    ],
)
def test_mistakes_are_one_line(
    folder: Path, options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["stages", str(folder), *options]) == 2
    said = capsys.readouterr().err
    assert words in said and len(said.strip().splitlines()) == 1


def test_presets_that_do_not_exist_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["stages", str(folder), "--try-presets", "huge"])
    assert stopped.value.code == 2 and "unknown preset huge" in capsys.readouterr().err


def work_on(folder: Path) -> Work:
    corpus = Corpus.build(folder, progress=False)
    return Work(corpus, 4, 16, 2, 2, 2, torch.device("cpu"), Augment(), "float32")


def test_copies_are_tried_on_the_same_clips_and_removed(folder: Path, tmp_path: Path) -> None:
    asked = [ClipRequest(video, (View(1.0, 30), View(2.0, 20))) for video in (2, 0, 1)]
    told: list[str] = []
    found = try_preset(work_on(folder), asked, "tiny", tmp_path, videos=2, told=told.append)
    assert found.videos == 2 and found.clips == 12 and len(told) == 2
    assert 0 < found.bytes < 20 and found.times > 0 and found.factors["decode"] == found.factors["read"] > 0
    assert list(tmp_path.iterdir()) == []


def test_copies_of_videos_that_are_too_long_are_refused_in_one_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.stages.advice.MOST_FRAMES", 10)
    with pytest.raises(DataError, match="no video of the corpus with at most 10 frames"):
        try_preset(work_on(folder), [ClipRequest(0, (View(1.0, 0), View(2.0, 0)))], "cpu", tmp_path, videos=1)
    assert list(tmp_path.iterdir()) == []


def test_what_copies_change_is_predicted_by_the_model() -> None:
    stages = (Stage("decode", 0.4, pool="workers"), Stage("graph", 0.05, pool="graph"))
    observed = Observed(stages, (Pool("workers", 2), Pool("graph", 1)), cores=8.0, rate=5.0)
    copies = Copies("cpu", 4, 24, 0.2, {"decode": 0.5, "cut": 0.1}, 2.0)
    assert predict(observed, copies.change(observed)) == pytest.approx(10.0)


def test_settings_tried_are_a_thread_more_and_fewer_and_less_augmentation() -> None:
    config = Config.load(None, ["data.augment.blur=0.5", "data.threads=2"])
    found = {one.name: one.config.data for one in variants(config, 2)}
    assert list(found) == ["threads=1", "threads=3", "no change of colours", "no blur"]
    assert found["threads=3"].threads == 3 and found["no blur"].augment.blur == 0
    plain = found["no change of colours"].augment
    assert not Augment(**vars(plain)).colours and plain.blur == 0.5
    dull = Config.load(None, ["data.augment.jitter=0", "data.augment.grayscale=0"])
    assert [one.name for one in variants(dull, 1)] == ["threads=2"]


def test_settings_are_compared_round_by_round() -> None:
    assert compared([1.0, 10.0, 100.0], [2.0, 20.0, 200.0])["median"] == 2.0
