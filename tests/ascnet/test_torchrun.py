"""`torchrun` for real, on small videos: a process is killed, and `--max-restarts` brings the run to its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest
from make_videos import make_video
from training_data import TINY

from ascnet import checkpoint

ROOT = Path(__file__).resolve().parents[2]
STEPS = 60


@pytest.fixture(scope="module")
def corpus_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from dali_pipes import Corpus

    root = tmp_path_factory.mktemp("torchrun")
    for number in range(8):
        make_video(root / "videos" / "ab"[number % 2] / f"{number}.avi", codec="mjpeg", frames=20)
    Corpus.build(root / "videos", output=root / "corpus.parquet", workers=1, progress=False)
    return root / "corpus.parquet"


def launch(corpus: Path, out: Path, *words: str) -> subprocess.Popen[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = ["-m", "ascnet.cli", "pretrain", f"corpus={corpus}", "--out", str(out), *TINY, "data.batch_size=2",
               "data.threads=1", "checkpoint.interval=2", "epochs=99", f"steps={STEPS}"]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        [*launcher, *words, *command], env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )


def recorded(out: Path) -> int:
    path = out / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def wait_for(steps: int, out: Path, run: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 240
    while recorded(out) < steps:
        assert run.poll() is None and time.monotonic() < end, run.communicate()[1]
        time.sleep(0.02)


def test_run_goes_on_by_itself_after_one_of_its_processes_was_killed(tmp_path: Path, corpus_file: Path) -> None:
    run = launch(corpus_file, tmp_path / "run", "--max-restarts", "1")
    try:
        wait_for(5, tmp_path / "run", run)
        workers = {worker.environ()["RANK"]: worker for worker in psutil.Process(run.pid).children()}
        workers["1"].send_signal(signal.SIGKILL)
        _, said = run.communicate(timeout=240)
    finally:
        run.kill()
    assert run.returncode == 0, said
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["steps"] == STEPS and summary["resumed_from"] >= 4 and summary["processes"] == 2
    rows = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == list(range(1, STEPS + 1))
    assert said.count("ascnet: process 1 of 2 is gone") <= 1  # torchrun may have ended process 0 before it could say so


def test_sigterm_to_torchrun_leaves_a_checkpoint_of_the_last_step(tmp_path: Path, corpus_file: Path) -> None:
    run = launch(corpus_file, tmp_path / "run")
    try:
        wait_for(3, tmp_path / "run", run)
        run.send_signal(signal.SIGTERM)
        _, said = run.communicate(timeout=240)
    finally:
        run.kill()
    assert run.returncode != 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["stopped_by"] == "SIGTERM", said
    assert checkpoint.load(tmp_path / "run")["step"] == summary["steps"] == recorded(tmp_path / "run") < STEPS
