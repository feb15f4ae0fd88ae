"""`python -m bench lookahead`: runs that differ in nothing but the look-ahead, and how many choices they share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from make_videos import make_video

from bench.__main__ import main
from bench.commands.lookahead import agreement, figures
from dali_pipes import Corpus


def test_agreement_counts_samples_that_both_runs_chose_for() -> None:
    base = {(0, place, 1): place for place in range(8)}
    other = {(0, place, 1): place if place < 6 else 99 for place in range(8)} | {(1, 0, 1): 5}
    assert agreement(base, other) == {"all": 0.75, "early": 1.0, "late": 0.0}
    assert agreement(base, {})["all"] is None


def test_waiting_is_weighed_by_the_length_of_the_steps() -> None:
    lines = [{"step_seconds": 9.0, "wait_share": 1.0, "loss_acp": 9.0}] * 2
    lines += [{"step_seconds": 1.0, "wait_share": 1.0, "loss_acp": 1.0}, {"step_seconds": 3.0, "wait_share": 0.0}]
    found = figures(lines)
    assert found["wait_share"] == pytest.approx(0.25)
    assert found["steps_per_second"] == pytest.approx(0.5)
    assert found["loss_scp"] is None


def test_depths_are_compared_on_the_same_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(8):
        for label in ("walk", "run"):
            name = tmp_path / "videos" / label / f"{number}.mp4"
            make_video(name, frames=24, size=(48, 32), first=40 * number)
    corpus = Corpus.build(tmp_path / "videos", layout="folders", output=tmp_path / "c.parquet", progress=False)
    assert len(corpus) == 16
    tiny = "model.width=0.0625 model.projector_hidden=16 model.projector_dim=8 model.predictor_hidden=16 "
    tiny += "data.frames=4 data.size=16 data.batch_size=4 device=cpu precision=fp32 data.split=null"
    command = ["lookahead", str(tmp_path / "c.parquet"), "--out", str(tmp_path / "out"), "--config", "demo"]
    assert main([*command, "--depths", "0", "0", "2", "--steps", "8", "--set", *tiny.split()]) == 0
    result = json.loads((tmp_path / "out" / "lookahead.json").read_text())
    assert set(result["depths"]) == {"0", "2"}
    for values in result["depths"].values():
        assert values["steps"] == 8
        assert 0 <= values["wait_share"] <= 1
    # The first positives are searched for in a bank that holds less.
    assert 0 <= result["depths"]["2"]["agreement"]["all"] < 1
    assert "agreement" not in result["depths"]["0"]
    assert "as with 0" in " ".join(capsys.readouterr().out.split())


def test_nothing_to_retrieve_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_video(tmp_path / "videos" / "a.mp4", frames=24, size=(48, 32))
    Corpus.build(tmp_path / "videos", output=tmp_path / "c.parquet", progress=False)
    command = ["lookahead", str(tmp_path / "c.parquet"), "--out", str(tmp_path / "out"), "--config", "demo"]
    assert main([*command, "--set", "gamma=0"]) == 2
    assert "gamma is 0" in capsys.readouterr().err
    assert main([*command, "--depths", "-1"]) == 2
    assert "--depths -1" in capsys.readouterr().err
