"""`python -m bench overhead`: what it times adds up, and a limit that is missed is an exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from make_videos import make_video

from bench.__main__ import main


def test_planning_and_cutting_are_timed_apart_and_a_limit_can_be_missed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_video(tmp_path / "videos" / "a.mp4", frames=90, gop=30, size=(128, 96))
    command = ["overhead", str(tmp_path / "videos"), "--requests", "5", "--rounds", "3"]
    assert main([*command, "--below", "1000", "--output", str(tmp_path / "r.json")]) == 0
    result = json.loads((tmp_path / "r.json").read_text())
    assert set(result["windows"]) == {"independent", "shared"}
    for found in result["windows"].values():
        assert 0 < found["plan_ms"]["median"] < found["cut_ms"]["median"] < found["together_ms"]["median"]
        assert found["together_ms"]["count"] == 3
        assert found["bytes"] > 0
    assert main([*command, "--below", "0.0001"]) == 1
    assert "planning, ms" in capsys.readouterr().out


def test_a_corpus_that_nothing_can_be_cut_out_of_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_video(tmp_path / "videos" / "a.h264", frames=30, size=(128, 96))
    assert main(["overhead", str(tmp_path / "videos")]) == 2
    assert "no video of it can be cut" in capsys.readouterr().err
