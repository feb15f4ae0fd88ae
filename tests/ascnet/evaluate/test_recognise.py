"""Recognition from end to end on videos that colour tells apart: fine-tuned, linear, stopped and resumed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from colour_videos import colour_corpus
from training_data import tiny

from ascnet import checkpoint, load_encoder
from ascnet.build import build_model
from ascnet.cli import main
from ascnet.errors import CheckpointError, ConfigError, TrainingError
from ascnet.evaluate.recognise import recognise, resolve
from ascnet.evaluate.recognise_config import RecogniseConfig, learning_rate, reference
from ascnet.evaluate.recognise_step import rate_of_step
from dali_pipes import Corpus

SMALL = (
    "model.encoder=r3d10", "model.width=0.0625", "data.frames=4", "data.size=16", "data.batch_size=6",
    "optim.name=adamw", "optim.lr=0.01", "validation.share=0.2", "test.clips=2", "precision=fp32", "device=cpu",
    "data.threads=1", "log_interval=2",
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Convolutions of these sizes take longer on several threads than on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return colour_corpus(tmp_path_factory.mktemp("colours"))


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of pretraining that has just begun."""
    run = tmp_path_factory.mktemp("pretrained")
    config = tiny("data.augment.mean=0.4,0.4,0.4", "data.augment.std=0.2,0.2,0.2")
    torch.manual_seed(1)
    checkpoint.save(run, 0, {"model": build_model(config).state_dict(), "config": config.to_dict()}, keep=1)
    return run


def small(*words: str) -> RecogniseConfig:
    return RecogniseConfig.load(None, [*SMALL, *words])


def run(config: RecogniseConfig, corpus: Corpus, out: Path, **options: Any) -> dict[str, Any]:
    options.setdefault("say", lambda text: None)
    return recognise(config, corpus, out, progress=False, **options)


def test_fine_tuning_learns_classes_that_colour_tells_apart(corpus: Corpus, tmp_path: Path) -> None:
    said: list[str] = []
    result = run(small("epochs=12", "validation.every=6"), corpus, tmp_path, say=said.append)
    assert result["last"]["top1"] > 90 and result["best"]["top1"] > 90 and not result["stopped_by"]
    assert [row["epoch"] for row in result["history"]] == [6, 12]
    text = "\n".join(said)
    assert "6 x 1 process(es) = 6 videos a step in total; peak lr 0.01" in text and "held out of training" in text
    kept = json.loads((tmp_path / "recognition.json").read_text())
    assert kept["last"]["top1"] == result["last"]["top1"] and set(kept["last"]["per_class"]) == {"blue", "green", "red"}
    card = kept["protocol"]
    assert card["total_batch"] == 6 and card["train"] == "train, 18 videos" and card["test"] == "test, 12 videos"
    assert card["test_views"] == "2 clips x centre crop, mean of logits" and card["command"] and card["seed"] == 0
    table = json.loads((tmp_path / "confusion_last.json").read_text())
    assert np.sum(table["counts"]) == 12 and table["classes"] == ["blue", "green", "red"]
    assert (tmp_path / "confusion_last.png").read_bytes()[:4] == b"\x89PNG"
    # What was fine-tuned is an encoder like any other.
    assert load_encoder(tmp_path).config["model"]["encoder"] == "r3d10"  # type: ignore[index]


def test_a_linear_classifier_learns_them_and_leaves_the_encoder_as_it_was(
    corpus: Corpus, pretrained: Path, tmp_path: Path
) -> None:
    words = ["model.frozen=true", f"model.checkpoint={pretrained}", "epochs=12", "validation.every=12"]
    result = run(small(*words, "optim.lr=0.1", "model.norm=true"), corpus, tmp_path)
    assert result["last"]["top1"] > 90
    before, after = load_encoder(pretrained).state_dict(), load_encoder(tmp_path).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)  # running statistics among them
    assert result["config"]["data"]["augment"]["mean"] == [0.4, 0.4, 0.4]  # as it was pretrained


def test_half_precision_learns_them_too_and_keeps_its_weights_in_full(corpus: Corpus, tmp_path: Path) -> None:
    words = ["precision=bf16", "epochs=12", "validation.share=0", "test.crops=3", "test.average=softmax"]
    result = run(small(*words), corpus, tmp_path)
    assert result["last"]["top1"] > 90
    assert result["protocol"]["test_views"] == "2 clips x 3 crops, mean of softmax"
    weights = checkpoint.load(tmp_path)["model"]
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32, torch.int64}


class Crash(RuntimeError):
    pass


@pytest.mark.parametrize("how", ["SIGTERM", "crash"])
@pytest.mark.parametrize("frozen", [False, True], ids=["finetune", "linear"])
def test_a_resumed_run_is_that_which_was_never_stopped(corpus: Corpus, tmp_path: Path, how: str, frozen: bool) -> None:
    config = small("epochs=3", f"model.frozen={frozen}", "checkpoint_interval=2", "model.dropout=0.3", "test.clips=1")
    whole = run(config, corpus, tmp_path / "whole")

    def say(text: str) -> None:
        if text.startswith("epoch 2/"):
            if how == "crash":
                raise Crash
            os.kill(os.getpid(), signal.SIGTERM)

    if how == "crash":
        with pytest.raises(Crash):
            run(config, corpus, tmp_path / "parts", say=say)
    else:
        stopped = run(config, corpus, tmp_path / "parts", say=say)
        assert stopped["stopped_by"] == "SIGTERM" and 6 <= stopped["step"] < 9
    parts = run(config, corpus, tmp_path / "parts", resume=True)
    one, two = (checkpoint.load(tmp_path / name) for name in ("whole", "parts"))
    assert all(torch.equal(one["model"][name], two["model"][name]) for name in one["model"])
    assert one["history"] == two["history"] and one["best"] == two["best"]
    for name in ("last", "best"):
        np.testing.assert_array_equal(parts[name].pop("confusion"), whole[name].pop("confusion"))
        assert parts[name] == whole[name]
    lines = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "parts")]
    assert lines[0] == lines[1] and len(lines[0].splitlines()) == 9


def test_a_finished_run_is_tested_again_by_resume_and_never_trained_over(corpus: Corpus, tmp_path: Path) -> None:
    config = small("epochs=1", "validation.share=0")
    first = run(config, corpus, tmp_path)
    assert "best" not in first and first["protocol"]["chosen_on"] == "none: the last epoch"
    with pytest.raises(CheckpointError, match="--resume"):
        run(config, corpus, tmp_path)
    with pytest.raises(CheckpointError, match=r"optim\.lr 0\.01 -> 0\.02"):
        run(small("epochs=1", "validation.share=0", "optim.lr=0.02"), corpus, tmp_path, resume=True)
    assert run(config, corpus, tmp_path, resume=True)["last"]["top1"] == first["last"]["top1"]


def test_the_published_protocol_chooses_on_the_test_split_and_says_so(corpus: Corpus, tmp_path: Path) -> None:
    result = run(small("epochs=2", "protocol=rspnet", "test.clips=1"), corpus, tmp_path)
    assert result["protocol"]["name"] == "rspnet" and "the test split" in result["protocol"]["chosen_on"]
    assert result["protocol"]["train"] == "train, 24 videos"  # nothing is held out
    # One centre clip in validation and in the test: the same videos, so the same score.
    assert result["best"]["top1"] == pytest.approx(result["best"]["validation_top1"])


def test_the_clean_protocol_never_looks_at_the_test_split_before_the_end(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ascnet.evaluate import recognise_job as module

    seen: list[tuple[str, set[int]]] = []
    real = module.score_videos

    def watched(classifier: Any, videos: Any, rows: Any, views: Any, **options: Any) -> Any:
        seen.append((options["what"], {int(row) for row in rows}))
        return real(classifier, videos, rows, views, **options)

    monkeypatch.setattr(module, "score_videos", watched)
    run(small("epochs=2"), corpus, tmp_path)
    test = {int(row) for row in corpus.select("test")}
    assert [what.split()[0] for what, _ in seen][:2] == ["validate", "validate"]
    assert all(not rows & test for what, rows in seen if what.startswith("validate"))
    assert all(rows == test for what, rows in seen if what.startswith("test"))


def test_a_loss_that_is_no_number_ends_the_run_and_is_not_saved(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"optim\.lr"):
        run(small("epochs=2", "optim.name=sgd", "optim.lr=1e30"), corpus, tmp_path)
    assert not (tmp_path / "checkpoints" / "last.pt").exists()


def test_the_settings_take_the_architecture_of_the_checkpoint_and_refuse_another(pretrained: Path) -> None:
    source = tiny("model.encoder=c3d", "model.width=0.25").to_dict()
    config = resolve(RecogniseConfig.load(None, ["model.checkpoint=x"]), source)
    assert (config.model.encoder, config.model.width) == ("c3d", 0.25)
    with pytest.raises(ConfigError, match=r"'r3d18'.*'c3d'"):
        resolve(RecogniseConfig.load(None, ["model.encoder=r3d18"]), source)
    with pytest.raises(ConfigError, match="--checkpoint"):
        resolve(RecogniseConfig.load(None), None)


def test_the_learning_rate_is_scaled_only_where_a_reference_batch_is_given() -> None:
    plain, scaled = (
        RecogniseConfig.load(None, ["optim.lr=0.1"]),
        RecogniseConfig.load(None, ["optim.reference_batch=64"]),
    )
    assert learning_rate(plain.optim, 128) == 0.1 and learning_rate(scaled.optim, 128) == 0.2


def test_the_learning_rate_falls_at_milestones_or_by_a_cosine() -> None:
    steps = RecogniseConfig.load(None, ["optim.schedule=steps", "optim.milestones=2,3", "optim.warmup_epochs=1"]).optim
    rates = [rate_of_step(step, 10, 40, steps, 1.0) for step in range(40)]
    assert rates[0] == pytest.approx(0.1) and rates[9:20] == [1.0] * 11
    assert rates[20] == pytest.approx(0.1) and rates[39] == pytest.approx(0.01)
    cosine = RecogniseConfig.load(None, []).optim
    assert rate_of_step(0, 10, 40, cosine, 1.0) == 1.0 and rate_of_step(40, 10, 40, cosine, 1.0) == pytest.approx(0.001)


def test_the_commands_average_over_splits(corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for fold in (1, 2):
        corpus.save(tmp_path / f"colours-{fold}.parquet")
    words = ["finetune", *SMALL, "epochs=1", "test.clips=1", f"corpus={tmp_path}/colours-{{fold}}.parquet"]
    assert main([*words, "--out", str(tmp_path / "none")]) == 2
    assert "--folds" in capsys.readouterr().err
    assert main([*words, "--folds", "1", "2", "--out", str(tmp_path / "out")]) == 0
    kept = json.loads((tmp_path / "out" / "recognition.json").read_text())
    by_fold = [json.loads((tmp_path / "out" / f"fold{n}" / "recognition.json").read_text()) for n in (1, 2)]
    assert kept["last"]["top1"]["by_fold"] == [part["last"]["top1"] for part in by_fold]
    assert kept["last"]["top1"]["mean"] == pytest.approx(np.mean(kept["last"]["top1"]["by_fold"]))
    assert kept["protocol"]["fold"] == [1, 2] and by_fold[1]["protocol"]["fold"] == 2


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["finetune"], "no corpus"),
        (["linear", "corpus=nowhere.parquet"], "nowhere.parquet"),
        (["finetune", "corpus=a.parquet", "optim.momentun=1"], "optim.momentum"),
        (["finetune", "corpus=a.parquet", "test.crops=2"], "1, 3, 10"),
        (["finetune", "corpus=a.parquet", "--folds", "1"], "{fold}"),
        (["finetune", "model.frozen=true", "corpus=a.parquet"], "ascnet linear"),
    ],
)
def test_mistakes_are_one_line(words: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err.strip()
    assert expected in error and len(error.splitlines()) == 1


def test_the_page_of_keys_is_made_from_the_code() -> None:
    page = Path(__file__).resolve().parents[3] / "docs" / "recognition_keys.md"
    assert page.read_text() == reference(), "run python -m ascnet.evaluate.recognise_config > docs/recognition_keys.md"


def test_the_help_of_both_commands_answers(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("finetune", "linear"):
        with pytest.raises(SystemExit, match="0"):
            main([name, "--help"])
        assert "--protocol" in capsys.readouterr().out
