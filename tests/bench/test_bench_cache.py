"""`python -m bench cache`: epochs counted, copies used from the second epoch on, and their quality told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from make_videos import make_video

from bench.__main__ import main


def test_later_epochs_come_from_copies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in "abc":
        make_video(folder / f"{name}.mp4", frames=60, gop=60, size=(320, 240))
    output = tmp_path / "result.json"
    # Thirty visits of each, so that the first epochs outlast three encodes.
    command = ["cache", str(folder), "--frames", "4", "--size", "32", "--batch-size", "3", "--visits", "30"]
    assert main([*command, "--share", "1", "--threads", "1", "--output", str(output)]) == 0
    result = json.loads(output.read_text())
    assert [epoch["pairs"] for epoch in result["with"]] == [90, 90, 90]
    assert result["with"][0]["from_copies"] < 1
    assert result["with"][2]["from_copies"] == 1
    assert all(epoch["from_copies"] == 0 for epoch in result["without"])
    assert result["cache"]["made"] == result["cache"]["psnr"]["videos"] == 3
    assert result["cache"]["psnr"]["lowest"] > 30
    assert "from copies" in capsys.readouterr().out
