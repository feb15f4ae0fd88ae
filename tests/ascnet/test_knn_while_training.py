"""`eval.every`: nearest neighbours classify videos while the encoder is trained, and change nothing about the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from make_videos import make_video
from training_data import tiny

from ascnet.errors import UserError
from ascnet.pretrain import pretrain
from dali_pipes import Corpus

TIMED = ("clips_per_second", "wait_share", "step_seconds")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("knn")
    for label in ("one", "two"):
        for number in range(6):
            make_video(folder / label / f"{number}.mp4", frames=24, size=(48, 32), first=50 * number)
    return Corpus.build(folder, layout="folders", workers=1, progress=False)


def run(corpus: Corpus, out: Path, *settings: str) -> list[dict[str, Any]]:
    config = tiny("steps=4", "data.frames=4", "data.size=16", "data.batch_size=4", "data.split=null", *settings)
    pretrain(config, corpus, out)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in TIMED} for row in rows]


def test_it_is_recorded_at_every_nth_step_and_the_run_is_the_same(corpus: Corpus, tmp_path: Path) -> None:
    plain = run(corpus, tmp_path / "plain")
    watched = run(corpus, tmp_path / "watched", "eval.every=2", "eval.videos=8")
    assert [row["step"] for row in watched if "knn/top1" in row] == [2, 4]
    assert all(0 <= row["knn/top1"] <= 100 for row in watched if "knn/top1" in row)
    assert {row["knn/queries"] for row in watched if "knn/queries" in row} == {8}
    assert [{n: v for n, v in row.items() if not n.startswith("knn/")} for row in watched] == plain


def test_a_corpus_without_labels_is_refused_before_training(tmp_path: Path) -> None:
    for number in range(4):
        make_video(tmp_path / "videos" / f"{number}.mp4", frames=24, size=(48, 32))
    corpus = Corpus.build(tmp_path / "videos", layout="folders", workers=1, progress=False)
    with pytest.raises(UserError, match="label"):
        run(corpus, tmp_path / "out", "eval.every=1")
    assert not (tmp_path / "out" / "checkpoints").exists()
