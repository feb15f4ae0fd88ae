"""`python -m bench`: the command as a user meets it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from make_videos import make_video

from bench.__main__ import main
from bench.commands import COMMANDS
from bench.measure.output import write_json
from bench.peers import CANDIDATES
from dali_pipes.errors import DataError

SMALL = ["--frames", "4", "--size", "32", "--pairs", "4", "--batch-size", "2", "--rounds", "2", "--warmup", "0"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    make_video(root / "a" / "one.avi", codec="mjpeg", frames=20, size=(64, 48))
    make_video(root / "b" / "two.webm", codec="vp9", frames=20, size=(64, 48))
    make_video(root / "b" / "three.mp4", codec="h264", frames=20, size=(48, 64), bframes=2)
    return root


def test_help_lists_the_sub_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)


def test_the_module_runs_as_a_command() -> None:
    done = subprocess.run([sys.executable, "-m", "bench", "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "loader" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no-such-folder"], "neither a folder of videos nor a .parquet index"),
        ([".", "--device", "toaster"], "expected cpu, cuda or cuda:N"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_video(tmp_path / "a" / "one.avi", codec="mjpeg", frames=40, size=(64, 48))
    monkeypatch.chdir(tmp_path)
    assert main(["loader", *arguments]) == 2
    assert said in capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize("option", [["--candidates", "ours,nobody"], ["--require", "usual"], ["--speeds", "0"]])
def test_a_wrong_option_is_refused_before_any_work(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["loader", "no-such-folder", *option])
    assert stopped.value.code == 2
    assert option[0] in capsys.readouterr().err


def test_ours_delivers_the_right_frames_and_a_missing_peer_is_listed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(CANDIDATES["decord-best"], "needs", ("no_such_module",))
    output = tmp_path / "results" / "tiny.json"
    arguments = ["loader", str(folder), *SMALL, "--candidates", "ours,decord-best", "--output", str(output)]
    assert main(arguments) == 0
    result = json.loads(output.read_text())
    assert result["benchmark"] == "loader" and result["format"] == 1
    assert "no_such_module" in result["missing"]["decord-best"]
    assert set(result) == {"format", "benchmark", "created", "arguments", "environment", "corpus", "candidates",
                           "missing", "windows", "goals", "curves", "figures"}  # fmt: skip
    assert {"cpu", "packages", "commit", "gpus"} <= set(result["environment"])
    assert result["corpus"]["videos"] == 3 and result["corpus"]["fingerprint"]
    for window in ("independent", "shared"):
        part = result["windows"][window]
        assert part["checks"]["ours"]["reason"] == "" and part["checks"]["ours"]["wrong"] == 0
        assert part["checks"]["ours"]["frames"] == 4 * 2 * 4
        assert [set(turn["figures"]) for turn in part["rounds"]] == [{"ours"}, {"ours"}]
        assert part["summary"]["ours"]["samples_per_second"]["median"] > 0
        assert part["summary"]["ours"]["cpu_seconds_per_sample"]["median"] > 0
        assert len(result["figures"][f"ours pairs/s ({window})"]["values"]) == 2
    assert set(result["figures"]) == {f"ours {what} ({window})" for what in ("pairs/s", "CPU s/pair") for window in
                                      ("independent", "shared")}  # fmt: skip
    shown = capsys.readouterr().out
    assert "missing" in shown and "window: shared" in shown
    assert str(folder) not in output.read_text()


def test_a_missed_goal_ends_with_1(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CANDIDATES["decord-best"], "needs", ("no_such_module",))
    arguments = ["loader", str(folder), *SMALL, "--candidates", "ours,decord-best", "--window", "shared"]
    assert main([*arguments, "--require", "best=1.0"]) == 1


def test_a_result_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_json(path, {"value": float("nan"), "list": (1, 2)})
    assert json.loads(path.read_text()) == {"value": None, "list": [1, 2]}
    before = path.read_text()
    with pytest.raises(TypeError):
        write_json(path, {"value": object()})
    assert path.read_text() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write_json(tmp_path / "file" / "result.json", {})
