"""The `ascnet` command: help, mistakes in one line with status 2, and its commands from end to end on small videos."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from make_videos import make_video
from PIL import Image

from ascnet import cli
from dali_pipes import Corpus

SMALL = (
    "data.frames=4", "data.size=32", "data.batch_size=2", "data.threads=1", "model.width=0.125",
    "model.projector_hidden=16", "model.projector_dim=8", "model.predictor_hidden=16", "epochs=1", "device=cpu",
    "log.tensorboard=false",
)  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    for number in range(6):
        split, label = ("train", "test")[number % 3 == 2], "ab"[number % 2]
        make_video(root / split / label / f"{number}.mkv", codec="mjpeg", frames=12, size=(48, 48), first=999 * number)
    Corpus.build(root, output=root / "corpus.parquet", progress=False, workers=1)
    return root / "corpus.parquet"


@pytest.fixture(scope="module")
def run(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "small"
    torch.set_num_threads(1)
    assert cli.main(["pretrain", f"corpus={corpus}", "--out", str(out), *SMALL]) == 0
    return out


@pytest.mark.parametrize("command", [[], ["pretrain"], ["retrieve"], ["demo"]])
def test_help_explains_every_option(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        cli.main([*command, "--help"])
    assert exit.value.code == 0
    text = capsys.readouterr().out
    assert "ascnet" in text
    for line in text.splitlines():
        if line.startswith("  --") and len(line.split("  ")) < 3:
            following = text.splitlines()[text.splitlines().index(line) + 1]
            assert following.startswith(" " * 20), f"no help for {line}"


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom ascnet import cli\n"
        "try: cli.main(['retrieve', '--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'nvidia', 'av', 'numpy', 'matplotlib'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["pretrain", "--config", "nowhere.yaml"], "--config nowhere.yaml: no such file"),
        (["pretrain", "epoch=3"], "did you mean 'epochs'"),
        (["pretrain", "epochs=many"], "epochs is 'many'"),
        (["pretrain"], "no corpus: say corpus=PATH"),
        (["pretrain", "corpus=nowhere.parquet"], "nowhere.parquet"),
        (["retrieve", "--corpus", "nowhere.parquet"], "say --checkpoint"),
        (["retrieve", "--corpus", "nowhere.parquet", "--checkpoint", "no.pt"], "no.pt: no such checkpoint"),
        (["demo", "data.framse=3"], "did you mean 'data.frames'"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("ascnet: ") and expected in captured.err
    assert captured.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [["pretrain", "--epochs", "3"], ["retrieve", "epochs=3"], ["pretrein"], []])
def test_arguments_that_do_not_exist_are_refused_with_status_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit:
        cli.main(arguments)
    assert exit.value.code == 2
    assert "usage: ascnet" in capsys.readouterr().err


def test_overrides_may_stand_on_both_sides_of_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["pretrain", "epochs=3", "--config", "base", "seed=7", "--print-config"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert (printed["epochs"], printed["seed"]) == (3, 7)


def test_pretrain_leaves_a_run_and_refuses_to_run_over_it(
    run: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (run / "config.yaml").is_file() and (run / "checkpoints" / "last.pt").is_file()
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2
    capsys.readouterr()
    assert cli.main(["pretrain", f"corpus={corpus}", "--out", str(run), *SMALL]) == 2
    assert "resume" in capsys.readouterr().err


def test_resume_without_a_configuration_takes_that_of_the_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["pretrain", "--resume", "--out", str(run), "--print-config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["model"]["width"] == 0.125


def test_retrieve_writes_scores_a_table_and_a_picture(
    run: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["retrieve", "--checkpoint", str(run), "--corpus", str(corpus), "--device", "cpu", "--threads", "1"]
    assert cli.main([*arguments, "--clips", "2", "--untrained", "--baselines", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    names = ["chance", "colour, no learning", "motion, no learning", "untrained", "pretrained"]
    assert all(name in printed for name in names) and "2 evenly spaced clips" in printed
    scores = json.loads((tmp_path / "retrieval.json").read_text())
    assert list(scores["recall"]) == names
    assert scores["protocol"]["clips"] == 2 and scores["protocol"]["frames"] == 4
    assert (scores["queries"], scores["gallery"]) == (2, 4)
    # Four gallery videos, two of each class.
    assert scores["recall"]["chance"] == {"R@1": 50.0, "R@5": 100.0, "R@10": 100.0, "R@20": 100.0, "R@50": 100.0}
    with Image.open(tmp_path / "retrieval.png") as picture:
        picture.load()


def test_an_untrained_encoder_is_scored_without_a_checkpoint(
    run: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["retrieve", "--untrained", "--config", str(run / "config.yaml"), "--corpus", str(corpus)]
    arguments += ["--device", "cpu", "--threads", "1", "--clips", "1", "--no-figure", "--out", str(tmp_path)]
    assert cli.main(arguments) == 0
    first = json.loads((tmp_path / "retrieval.json").read_text())["recall"]
    assert list(first) == ["chance", "untrained"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["retrieval.json"]
    capsys.readouterr()


def test_a_split_that_does_not_exist_is_a_mistake(run: Path, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["retrieve", "--checkpoint", str(run), "--corpus", str(corpus), "--query-split", "val"]
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert "--query-split: split 'val'" in error and "test, train" in error and error.count("\n") == 1
