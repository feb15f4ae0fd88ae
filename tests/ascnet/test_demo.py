"""The demo, made small: it runs from nothing to the table, and touches no folder that is not its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from ascnet import demo
from ascnet.errors import UserError

SMALL = (
    "data.frames=4", "data.size=32", "data.batch_size=4", "data.threads=1", "model.width=0.125",
    "model.projector_hidden=16", "model.projector_dim=8", "model.predictor_hidden=16", "steps=3", "device=cpu",
    "log.tensorboard=false", "optim.warmup_epochs=0",
)  # fmt: skip


@pytest.fixture(autouse=True)
def small_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "DEMO", demo.DemoCorpus(videos=12, appearances=2, motions=2, frames=12, size=32))
    torch.set_num_threads(1)


def test_the_demo_goes_from_nothing_to_scores_and_a_picture_and_can_be_run_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo"
    summary = demo.run_demo(out=out, overrides=SMALL)
    printed = capsys.readouterr().out
    assert summary["steps"] == 3 and not summary["interrupted"]
    scores = json.loads((out / "retrieval.json").read_text())
    names = ["chance", "colour, no learning", "motion, no learning", "untrained encoder", "pretrained encoder"]
    assert list(scores["recall"]) == names and all(name in printed for name in names)
    assert scores["queries"] + scores["gallery"] == 12
    for line in printed.splitlines():
        if line.startswith(("picture", "scores", "training", "encoder")):
            assert Path(line.split()[1]).is_file(), line
    with Image.open(out / "retrieval.png") as picture:
        picture.load()

    again = demo.run_demo(out=out, overrides=SMALL)
    assert again["resumed_from"] is None
    assert json.loads((out / "retrieval.json").read_text())["recall"] == scores["recall"]


def test_another_corpus_replaces_the_videos_of_an_earlier_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    demo._claim(tmp_path, demo.DEMO)
    old = tmp_path / "videos" / "old.mkv"
    old.parent.mkdir()
    old.touch()
    demo._claim(tmp_path, demo.DEMO)
    assert old.exists()
    demo._claim(tmp_path, demo.LONG)
    assert not old.exists()


def test_a_folder_that_is_not_a_demo_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="not an earlier demo's folder"):
        demo.run_demo(out=tmp_path, overrides=SMALL)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]
