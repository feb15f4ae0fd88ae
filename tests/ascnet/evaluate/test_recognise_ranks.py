"""Fine-tuning in two processes, as `torchrun` starts them, beside one process that has the whole batch."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from colour_videos import colour_corpus

from ascnet import checkpoint

ROOT = Path(__file__).resolve().parents[3]
WORDS = (
    "model.encoder=r3d10", "model.width=0.0625", "data.frames=4", "data.size=16", "optim.lr=0.02", "test.clips=2",
    "validation.share=0.25", "precision=fp32", "device=cpu", "data.threads=1", "epochs=2",
)  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("colours")
    colour_corpus(root, train=5, test=3)
    return root / "corpus.parquet"


def finetune(world: int, *words: str) -> list[str]:
    """Runs `ascnet finetune` in so many processes to its end; what each said."""
    return start(world, "-m", "ascnet.cli", "finetune", *WORDS, *words)


def start(world: int, *words: str) -> list[str]:
    """Runs Python in so many processes to its end; what each said on standard error."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        **os.environ, "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    command = [sys.executable, *words]
    processes = [
        subprocess.Popen(
            command, env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, stderr=subprocess.PIPE, text=True
        )
        for rank in range(world)
    ]
    try:
        said = [process.communicate(timeout=240)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * world, "\n".join(said)
    return said


def test_two_processes_do_what_one_does_with_the_whole_batch(corpus: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    finetune(1, "data.batch_size=6", f"corpus={corpus}", "--out", str(one))
    said = finetune(2, "data.batch_size=3", f"corpus={corpus}", "--out", str(two))
    assert "batch 3 x 2 process(es) = 6 videos a step in total" in said[0] and "wrote" not in said[1]
    weights = [checkpoint.load(run)["model"] for run in (one, two)]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=2e-3, atol=2e-4, msg=name)
    kept = [json.loads((run / "recognition.json").read_text()) for run in (one, two)]
    assert kept[0]["last"]["videos"] == kept[1]["last"]["videos"] == 9
    assert kept[1]["protocol"]["processes"] == 2 and kept[0]["protocol"]["total_batch"] == 6
    for first, second in zip(kept[0]["history"], kept[1]["history"], strict=True):
        assert first["validation_top1"] == pytest.approx(second["validation_top1"], abs=34)


def test_several_processes_take_one_split_at_a_time_and_average_those_that_are_there(
    corpus: Path, tmp_path: Path
) -> None:
    for fold in (1, 2):
        (tmp_path / f"colours-{fold}.parquet").write_bytes(corpus.read_bytes())
    out = tmp_path / "out"
    words = ["epochs=1", "data.batch_size=3", f"corpus={tmp_path}/colours-{{fold}}.parquet", "--out", str(out)]
    with pytest.raises(AssertionError, match="one split at a time"):
        finetune(2, *words, "--folds", "1", "2")
    finetune(2, *words, "--folds", "2")
    assert json.loads((out / "recognition.json").read_text())["folds"] == [2]
    finetune(1, *words, "--folds", "1")
    assert json.loads((out / "recognition.json").read_text())["folds"] == [1, 2]


KNN = """
import json, sys
import numpy as np, torch
from ascnet import build_encoder
from ascnet.parallel.distributed import World
from ascnet.evaluate.knn import KnnMonitor
from dali_pipes import Corpus

corpus = Corpus.open(sys.argv[1])
data = {"frames": 4, "size": 16, "fps": None, "short": "loop", "augment": {"mean": [0.5] * 3, "std": [0.2] * 3}}
with World.join("cpu") as world:
    torch.manual_seed(0)
    encoder = build_encoder("r3d10", width=0.0625)
    found = KnnMonitor(corpus, {"data": data}, world=world, k=3, threads=1)(encoder)
    print(json.dumps(found), file=sys.stderr)
"""


def test_the_monitor_has_the_same_numbers_in_every_process_of_any_number(corpus: Path) -> None:
    said = [json.loads(text.splitlines()[-1]) for text in [*start(1, "-c", KNN, str(corpus))]]
    both = [json.loads(text.splitlines()[-1]) for text in start(2, "-c", KNN, str(corpus))]
    assert both[0] == both[1] == said[0] and said[0]["knn/queries"] == 15
