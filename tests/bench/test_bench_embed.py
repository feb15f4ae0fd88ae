"""`python -m bench embed`: both encoders are set beside the loader, and a goal that is missed is an exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from search_index import make_checkpoint, make_corpus

from bench.__main__ import main


def test_both_encoders_are_set_beside_the_loader_and_a_goal_can_be_missed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, checkpoint = make_corpus(tmp_path / "videos", 3), make_checkpoint(tmp_path / "encoder.pt")
    command = ["embed", str(corpus), "--checkpoint", str(checkpoint), "--rounds", "2", "--clips", "2", "--threads", "1"]
    command += ["--device", "cpu"]
    assert main([*command, "--require", "0.0001", "--output", str(tmp_path / "r.json")]) == 0
    result = json.loads((tmp_path / "r.json").read_text())
    assert set(result["clips_per_second"]) == {"loader alone", "tiny encoder", "checkpoint"} and result["met"]
    for name, share in result["ratio"].items():
        pairs = zip(result["rounds"][name], result["rounds"]["loader alone"], strict=True)
        assert share["count"] == 2 and share["median"] == pytest.approx(sum(a / b for a, b in pairs) / 2)
    assert main([*command, "--require", "1000"]) == 1
    assert "MISSED" in capsys.readouterr().out


def test_a_checkpoint_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = make_corpus(tmp_path / "videos", 1)
    assert main(["embed", str(corpus), "--checkpoint", str(tmp_path / "no.pt")]) == 2
    assert "no.pt: no such checkpoint" in capsys.readouterr().err
