"""The scripts of docs/examples, run as a user runs them, on a small made corpus."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from make_videos import make_video

from dali_pipes import Corpus

ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLES = ROOT / "docs" / "examples"
SMALL = ["--frames", "4", "--size", "32", "--batch-size", "2"]


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two: six videos, some of which DALI decodes and some the host, and four."""
    root = tmp_path_factory.mktemp("examples")
    for i in range(3):
        make_video(root / "one" / "a" / f"{i}.avi", codec="mjpeg", frames=16 + i, size=(64, 48))
        make_video(root / "one" / "b" / f"{i}.mp4", codec="h264", frames=16 + i, size=(48, 64))
    for i in range(4):
        make_video(root / "two" / "c" / f"{i}.avi", codec="mjpeg", frames=20, size=(48, 48))
    for name in ("one", "two"):
        Corpus.build(root / name, "folders", progress=False).save(root / f"{name}.parquet")
    return [str(root / "one.parquet"), str(root / "two.parquet")]


def example(name: str, *arguments: object) -> list[str]:
    """Lines that an example prints."""
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *map(str, arguments)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


def steps(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("step ")]


def test_every_example_is_explained_in_the_document() -> None:
    document = (ROOT / "docs" / "interfaces.md").read_text(encoding="utf-8")
    names = [path.name for path in EXAMPLES.glob("*.py")]
    assert names and [name for name in names if f"(examples/{name})" not in document] == []


def test_a_torch_loop_goes_on_exactly_where_it_stopped(corpora: list[str], tmp_path: Path) -> None:
    whole = steps(example("torch_loop", corpora[0], *SMALL, "--steps", 5, "--checkpoint", tmp_path / "whole.pt"))
    parts = [steps(example("torch_loop", corpora[0], *SMALL, "--steps", n, "--checkpoint", tmp_path / "part.pt"))
             for n in (3, 2)]  # fmt: skip
    assert len(whole) == 5 and whole == parts[0] + parts[1]
    assert " epoch 1 " in whole[-1]


@pytest.mark.parametrize("stop", [3, 4])
def test_lightning_goes_on_exactly_where_it_stopped(stop: int, corpora: list[str], tmp_path: Path) -> None:
    if importlib.util.find_spec("lightning") is None:
        pytest.skip("lightning is not installed")
    # Epochs of three steps: stopped behind the last one of an epoch, and in the middle of one.
    common = [corpora[0], *SMALL, "--accelerator", "cpu", "--folder", tmp_path]
    first = steps(example("lightning_module", *common, "--steps", stop))
    rest = steps(example("lightning_module", *common, "--steps", 7, "--resume", tmp_path / "last.ckpt"))
    whole = steps(example("lightning_module", *common, "--steps", 7))
    assert len(whole) == 7 and first + rest == whole


def test_an_own_dali_graph_takes_our_clips(corpora: list[str]) -> None:
    lines = example("dali_graph", corpora[0], *SMALL, "--batches", 4)
    assert len(lines) == 4
    assert all("clips (2, 2, 3, 4, 32, 32) torch.float32" in line for line in lines)
    shown = re.findall(r"videos \[(\d+), (\d+)\]", "\n".join(lines[:3]))
    assert sorted(int(video) for pair in shown for video in pair) == list(range(6))


def test_a_mix_of_corpora_is_deterministic_and_resumes_exactly(corpora: list[str], tmp_path: Path) -> None:
    common = [*corpora, "--weights", 1, 2, *SMALL, "--device", "cpu"]
    whole = steps(example("mix_corpora", *common, "--steps", 12))
    state = tmp_path / "state.json"
    parts = [steps(example("mix_corpora", *common, "--steps", n, "--state", state)) for n in (5, 7)]
    assert len(whole) == 12 and whole == parts[0] + parts[1]
    assert {line.split()[3] for line in whole} == {"0", "1"}
    assert json.loads(state.read_text())["step"] == 12


def test_numpy_takes_clips_without_a_copy(corpora: list[str]) -> None:
    lines = example("numpy_jax", corpora[0], *SMALL, "--batches", 4)
    assert sum(line.startswith("numpy (2, 2, 4, 32, 32, 3) float16") for line in lines) == 4
    if importlib.util.find_spec("jax") is not None:
        assert sum(line.startswith("jax (2, 2, 3, 4, 32, 32) float16") for line in lines) == 4
