"""`ascnet retrieve` in several processes, as `torchrun` starts them, against one process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from make_videos import make_video

from ascnet import Config
from ascnet.checkpoint import save
from ascnet.evaluate.run import untrained_encoder
from dali_pipes import Corpus

ROOT = Path(__file__).resolve().parents[3]
SMALL = ["model.encoder=r3d10", "model.width=0.0625", "data.frames=4", "data.size=16"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ranks")
    for number in range(13):
        split = "train" if number % 3 else "test"
        name = root / "videos" / split / "abc"[number % 2] / f"{number:02d}.mkv"
        make_video(name, codec="mjpeg", frames=10, size=(24, 16), first=321 * number)
    Corpus.build(root / "videos", output=root / "corpus.parquet", progress=False, workers=1)
    config = Config.load(None, SMALL).to_dict()
    weights = untrained_encoder(config, seed=5).state_dict()
    payload = {"config": config, "model": {f"online.encoder.{name}": tensor for name, tensor in weights.items()}}
    for run in ("alone", "shared", "wrong"):
        save(root / run, 1, payload, keep=1)
    return root


def retrieve(folder: Path, world: int, out: str, *options: str) -> list[subprocess.CompletedProcess[str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    command = [
        sys.executable, "-m", "ascnet.cli", "retrieve", "--checkpoint", str(folder / out), "--corpus",
        str(folder / "corpus.parquet"), "--out", str(folder / out), "--threads", "1", "--device", "cpu", "--clips", "2",
        "--no-figure", *options,
    ]  # fmt: skip
    started = [
        subprocess.Popen(
            command,
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    try:
        said = [process.communicate(timeout=300) for process in started]
    finally:
        for process in started:
            process.kill()
    return [subprocess.CompletedProcess(command, p.returncode, *text) for p, text in zip(started, said, strict=True)]


def features(folder: Path, out: str) -> list[tuple[np.ndarray, np.ndarray]]:
    files = sorted((folder / out / "features").glob("*.npz"))
    return [(file["rows"], file["vectors"]) for file in map(np.load, files)]


def test_two_processes_find_what_one_finds(folder: Path) -> None:
    # Five queries are one batch, of which the second process has none; eight videos of the gallery are two.
    options = ("--protocol", "rspnet", "--batch-size", "10", "--untrained")
    (one,) = retrieve(folder, 1, "alone", *options)
    assert one.returncode == 0, one.stderr
    both = retrieve(folder, 2, "shared", *options)
    assert [rank.returncode for rank in both] == [0, 0], both[0].stderr + both[1].stderr
    # One of them speaks.
    assert "R@1" in both[0].stdout and not both[1].stdout
    scores = [json.loads((folder / out / "retrieval.json").read_text()) for out in ("alone", "shared")]
    for key in ("recall", "queries", "gallery", "protocol", "dropped", "corpus_fingerprint"):
        assert scores[0][key] == scores[1][key]
    assert (scores[0]["queries"], scores[0]["gallery"]) == (5, 8)
    # Of the trained and the untrained encoder, of queries and gallery.
    pairs = list(zip(features(folder, "alone"), features(folder, "shared"), strict=True))
    assert len(pairs) == 4
    for (rows, vectors), (other_rows, other_vectors) in pairs:
        np.testing.assert_array_equal(rows, other_rows)
        np.testing.assert_allclose(vectors, other_vectors, rtol=1e-6, atol=1e-7)


def test_a_mistake_is_told_at_once_without_waiting_for_the_others(folder: Path) -> None:
    both = retrieve(folder, 2, "wrong", "--query-split", "val")
    assert [rank.returncode for rank in both] == [2, 2]
    for rank in both:
        assert "--query-split: split 'val'" in rank.stderr and rank.stderr.count("\n") == 1
