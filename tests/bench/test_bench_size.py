"""`python -m bench size`, with few rows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from make_videos import make_video, read_number

from bench.__main__ import main
from bench.commands import size
from dali_pipes import Corpus, read_frames

SMALL = ["--videos", "500", "--requests", "300", "--clips", "80", "--warmup", "16", "--every", "16"]
SMALL += ["--frames", "4", "--size", "16", "--batch-size", "4", "--runs", "1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("size")
    make_video(root / "a" / "one.avi", codec="mjpeg", frames=12, size=(64, 48))
    make_video(root / "b" / "two.avi", codec="mjpeg", frames=20, size=(64, 48), first=100)
    return root


def test_simulated_rows_have_paths_of_their_own_that_lead_to_real_videos(folder: Path, tmp_path: Path) -> None:
    base = Corpus.build(folder, "folders", progress=False)
    big = size.simulate(base, 2501, tmp_path / "links")
    assert len(big) == 2501 and len(set(big.column("uri").tolist())) == 2501
    assert big[2500].frames == base[0].frames and big[2499].frames == base[1].frames
    for row, number in ((0, 5), (2499, 105), (2500, 5)):
        assert read_number(read_frames(big, row, [5])[0]) == number


def test_growth_is_the_median_slope_and_outliers_do_not_move_it() -> None:
    clips = np.arange(2000, 21_000, 1000)
    flat = [(int(at), 500.0) for at in clips]
    assert size.growth(flat) == 0
    rising = [(int(at), 500 + 0.001 * (at - 2000)) for at in clips]
    assert size.growth(rising) == pytest.approx(100 * 0.001 * 18_000 / 500)
    assert size.growth([*flat[:5], (flat[5][0], 900.0), *flat[6:]]) == pytest.approx(0)


def test_goals_are_met_or_missed() -> None:
    good = {"open_seconds": 0.2, "sampler_requests_per_second": 60_000.0, "loader_growth_percent": -0.5}
    assert all(goal["met"] for goal in size.judge(good))
    bad = {"open_seconds": 1.2, "sampler_requests_per_second": 40_000.0, "loader_growth_percent": float("nan")}
    assert not any(goal["met"] for goal in size.judge(bad))


def test_the_command_measures_prints_and_writes(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "size.json"
    code = main(["size", str(folder), *SMALL, "--output", str(output)])
    result = json.loads(output.read_text())
    assert code == (0 if all(goal["met"] for goal in result["goals"]) else 1)
    measured = result["measured"]
    assert measured["videos"] == 500 and measured["bytes_on_disk"] > 0
    assert len(measured["loader_readings"]) == 5 and measured["loader_mib_end"] > 0
    assert measured["sampler_mib_after"] > 0 and 0 < measured["open_seconds"] < measured["loader_first_batch_seconds"]
    assert {goal["name"] for goal in result["goals"]} == set(size.GOALS)
    assert result["command"].startswith("python -m bench size") and result["environment"]["packages"]
    assert str(folder) not in output.read_text()
    assert "open seconds" in capsys.readouterr().out


def test_too_few_clips_for_a_trend_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["size", str(folder), "--clips", "2500"]) == 2
    assert "--clips 2500" in capsys.readouterr().err
