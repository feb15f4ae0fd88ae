"""A few training steps straight from real files as data sets ship them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from ascnet import Config
from ascnet.pretrain import pretrain
from dali_pipes import Corpus

TINY = (
    "data.frames=8", "data.size=48", "data.batch_size=4", "data.clips_per_video=2", "data.split=null",
    "data.threads=2", "model.encoder=r3d10", "model.width=0.125", "model.projector_hidden=32", "model.projector_dim=16",
    "model.predictor_hidden=32", "retrieval.lookahead=1", "log.tensorboard=false", "epochs=100", "steps=4",
)  # fmt: skip


@pytest.mark.parametrize("folder", ["kinetics400", "ucf101", "hmdb51"])
def test_a_few_steps_of_training_on_files_as_they_are(videos: Path, tmp_path: Path, folder: str) -> None:
    corpus = Corpus.build(videos / folder, progress=False)
    assert all(corpus.usable)
    summary = pretrain(Config.load("configs/base.yaml", TINY), corpus, tmp_path / "run")
    assert summary["steps"] == 4 and not summary["interrupted"]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(math.isfinite(line["loss"]) for line in lines)
    # The bank is filled by the first steps: from then on positives are found, decoded and trained on.
    assert lines[-1]["scp_share"] > 0 and math.isfinite(lines[-1]["loss_scp"])
