"""The loop: stopping and going on exactly, what is written, and what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from make_videos import make_video
from training_data import MadeCorpus, MadeLoader, MadeStream, open_made, tiny

from ascnet import checkpoint
from ascnet.config import Config
from ascnet.errors import CheckpointError, ConfigError
from ascnet.pretrain import pretrain, spread

# Values that depend on the clock.
TIMED = ("clips_per_second", "wait_share", "step_seconds")
RUN = ("epochs=4", "checkpoint.interval=3", "optim.lr=0.5", "ema.momentum=0.9")


def train(config: Config, out: Path, corpus: Any = None, *, resume: bool = False, **options: Any) -> dict[str, Any]:
    open_data = options.pop("open_data", None) or partial(open_made, **options)
    return pretrain(config, corpus or MadeCorpus(), out, resume=resume, open_data=open_data)


def metrics(out: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in TIMED} for row in rows]


def assert_same_run(one: Path, other: Path) -> None:
    assert metrics(one) == metrics(other)
    a, b = checkpoint.load(one), checkpoint.load(other)
    for part in ("model", "bank"):
        assert a[part].keys() == b[part].keys()
        assert all(torch.equal(tensor, b[part][name]) for name, tensor in a[part].items())
    momenta = [[state["momentum_buffer"] for state in run["optimizer"]["state"].values()] for run in (a, b)]
    assert all(torch.equal(x, y) for x, y in zip(*momenta, strict=True))
    assert a["ahead"]["loader"] == b["ahead"]["loader"]


def test_run_begins_with_the_weights_that_it_is_given_and_a_resumed_one_does_not_need_them(tmp_path: Path) -> None:
    train(tiny(*RUN, "seed=3"), tmp_path / "first")
    config = tiny(*RUN, f"model.init={tmp_path / 'first'}", "optim.lr=1e-30", "ema.momentum=1", "optim.weight_decay=0")
    train(replace(config, steps=3), tmp_path / "second")
    given, got = checkpoint.load(tmp_path / "first")["model"], checkpoint.load(tmp_path / "second")["model"]
    weights = [name for name in got if ".encoder." in name and name.endswith("weight")]
    for name in weights:
        # The target starts as the online encoder does.
        source = given[name.replace("target.", "online.")]
        assert torch.equal(got[name], source), name
    assert not torch.equal(got["online.g_a.0.weight"], given["online.g_a.0.weight"])
    (tmp_path / "first").rename(tmp_path / "elsewhere")
    summary = pretrain(
        replace(config, steps=5),
        MadeCorpus(),  # type: ignore[arg-type]
        tmp_path / "second",
        resume=True,
        allow=["steps"],
        open_data=open_made,
    )
    assert summary["resumed_from"] == 3 and summary["steps"] == 5


def test_weights_of_another_encoder_are_refused_by_name(tmp_path: Path) -> None:
    train(tiny(*RUN, "steps=1"), tmp_path / "first")
    config = tiny(*RUN, f"model.init={tmp_path / 'first'}", "model.width=0.125")
    with pytest.raises(ConfigError, match=r"model.init=.*first: not weights of model.encoder"):
        train(config, tmp_path / "second")
    with pytest.raises(CheckpointError, match="nothing-here"):
        train(tiny(*RUN, f"model.init={tmp_path / 'nothing-here'}"), tmp_path / "third")


def raise_signal(number: int, at: int, batch: int) -> None:
    if batch == at:
        os.kill(os.getpid(), number)


def fail(at: int, batch: int) -> None:
    if batch == at:
        raise OSError("the disk is gone")


VARIANTS = [
    ["retrieval.lookahead=0"],
    ["retrieval.lookahead=2"],
    ["retrieval.lookahead=2", "symmetric=true", "retrieval.topk=3", "retrieval.exclude=group", "optim.clip_norm=1"],
    ["retrieval.positive=random", "retrieval.source=target", "retrieval.dtype=fp16", "retrieval.momentum=0.5"],
]


@pytest.mark.parametrize("variant", VARIANTS, ids=["lookahead-0", "lookahead-2", "symmetric", "random"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["sigterm", "ctrl-c"])
def test_run_stopped_by_a_signal_and_resumed_equals_one_never_stopped(
    tmp_path: Path, variant: list[str], number: int
) -> None:
    config = tiny(*RUN, *variant)
    whole = train(config, tmp_path / "whole")
    assert whole["steps"] == whole["total_steps"] == 12 and not whole["interrupted"]

    # The seventh batch is the second of its epoch, so the run stops in the middle of one.
    first = train(config, tmp_path / "parts", before=partial(raise_signal, number, 7))
    assert first["interrupted"] and 0 < first["steps"] < 12
    assert len(metrics(tmp_path / "parts")) == first["steps"]
    second = train(config, tmp_path / "parts", resume=True)
    assert second["resumed_from"] == first["steps"] and second["steps"] == 12 and not second["interrupted"]
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("lookahead", [0, 2])
def test_run_that_died_after_its_last_checkpoint_resumes_without_a_step_recorded_twice(
    tmp_path: Path, lookahead: int
) -> None:
    config = tiny(*RUN, f"retrieval.lookahead={lookahead}")
    train(config, tmp_path / "whole")
    with pytest.raises(OSError, match="the disk is gone"):
        train(config, tmp_path / "parts", before=partial(fail, 8 + lookahead))
    assert len(metrics(tmp_path / "parts")) == 8
    assert train(config, tmp_path / "parts", resume=True)["resumed_from"] == 6
    assert [row["step"] for row in metrics(tmp_path / "parts")] == list(range(1, 13))
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_look_ahead_gives_each_step_the_search_made_that_many_steps_before(tmp_path: Path) -> None:
    shares = {}
    for lookahead in (0, 1, 3):
        config = tiny("steps=6", "epochs=9", f"retrieval.lookahead={lookahead}")
        train(config, tmp_path / str(lookahead))
        shares[lookahead] = [row["scp_share"] for row in metrics(tmp_path / str(lookahead))]
    # The bank is empty until the first step is over, so the batches fetched before that go without positives.
    assert shares == {0: [0] + [1] * 5, 1: [0] * 2 + [1] * 4, 3: [0] * 4 + [1] * 2}


def test_positive_has_the_speed_of_its_anchor_and_is_another_video(tmp_path: Path) -> None:
    parts: list[Any] = []

    def open_data(*arguments: Any) -> Any:
        parts.extend(open_made(*arguments))
        return parts

    train(tiny("steps=6", "epochs=9", "retrieval.lookahead=0"), tmp_path, open_data=open_data)
    loader, stream = parts
    speeds = set()
    for batch, asked in zip(loader.handed_out[1:], stream.asked, strict=True):
        for own, positive in zip(batch.requests, asked, strict=True):
            assert positive.views[0].speed == own.views[0].speed
            assert positive.video != own.video
            assert positive.key == own.key._replace(role=1)
            speeds.add(positive.views[0].speed)
    assert speeds == {1.0, 2.0}


def test_sample_whose_positive_could_not_be_decoded_goes_without(tmp_path: Path) -> None:
    def open_data(config: Config, corpus: Any, device: torch.device) -> Any:
        return MadeLoader(config, corpus, device), MadeStream(device, broken=frozenset(range(0, 12, 3)))

    train(tiny("steps=9", "epochs=9", "retrieval.lookahead=0"), tmp_path, open_data=open_data)
    shares = [row["scp_share"] for row in metrics(tmp_path)]
    assert shares[0] == 0 and any(0 < share < 1 for share in shares[1:])


def test_gamma_0_trains_on_appearance_alone(tmp_path: Path) -> None:
    train(tiny("steps=4", "epochs=9", "gamma=0"), tmp_path)
    for row in metrics(tmp_path):
        assert row["scp_share"] == 0 and row["loss_scp"] is None and row["loss"] == pytest.approx(row["loss_acp"])


def test_same_label_share_is_recorded_only_where_labels_are_known(tmp_path: Path) -> None:
    config = tiny("steps=4", "epochs=9", "retrieval.lookahead=0")
    train(config, tmp_path / "labelled")
    train(config, tmp_path / "unlabelled", MadeCorpus(labelled=False))
    assert all(0 <= row["positive_same_label"] <= 1 for row in metrics(tmp_path / "labelled")[1:])
    assert all(row["positive_same_label"] is None for row in metrics(tmp_path / "unlabelled"))


def test_loss_falls_when_trained_on_few_videos(tmp_path: Path) -> None:
    config = tiny("epochs=30", "optim.name=adamw", "optim.lr=0.003", "optim.scale_lr=false", "ema.momentum=0.9")
    train(config, tmp_path)
    losses = [row["loss_acp"] for row in metrics(tmp_path)]
    assert sum(losses[-9:]) < 0.7 * sum(losses[:9])


def test_collapse_and_missing_positives_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tiny("steps=3", "epochs=9", "log.collapse_std=1"), tmp_path)
    said = capsys.readouterr().err
    assert "no positives yet, the speed loss is left out" in said
    assert "step 3: positives for 100% of the samples, the speed loss is in" in said
    assert said.count("the features may be collapsing") == 1


def test_spread_is_0_for_equal_features_and_1_for_features_all_over_the_sphere() -> None:
    draws = torch.Generator().manual_seed(0)
    assert spread(torch.ones(8, 64)) == pytest.approx(0, abs=1e-6)
    assert spread(torch.randn(4096, 64, generator=draws)) == pytest.approx(1, abs=0.02)


def test_existing_run_is_not_overwritten_and_other_settings_or_videos_are_refused(tmp_path: Path) -> None:
    train(tiny("epochs=1"), tmp_path)
    with pytest.raises(CheckpointError, match="--resume"):
        train(tiny("epochs=1"), tmp_path)
    with pytest.raises(CheckpointError, match=r"optim\.lr 0\.1 -> 0\.2"):
        train(tiny("epochs=1", "optim.lr=0.2"), tmp_path, resume=True)
    with pytest.raises(CheckpointError, match="another corpus"):
        train(tiny("epochs=1"), tmp_path, MadeCorpus(16), resume=True)
    assert train(tiny("epochs=1", "log.interval=7"), tmp_path, resume=True)["steps"] == 3


def test_resume_without_a_checkpoint_starts(tmp_path: Path) -> None:
    summary = train(tiny("epochs=1"), tmp_path / "new", resume=True)
    assert summary["resumed_from"] is None and summary["steps"] == 3
    assert json.loads((tmp_path / "new" / "summary.json").read_text()) == summary


def test_resolved_configuration_is_written_and_reads_back(tmp_path: Path) -> None:
    config = tiny("epochs=1", "gamma=0.25")
    train(config, tmp_path)
    assert Config.load(tmp_path / "config.yaml") == config
    assert Config.from_dict(checkpoint.load(tmp_path)["config"]) == config


def test_precisions_that_the_device_lacks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="fp16 on device cpu"):
        train(tiny("precision=fp16"), tmp_path)
    with pytest.raises(ConfigError, match="device is 'cpuu'"):
        train(tiny("device=cpuu"), tmp_path)


def test_bf16_keeps_weights_heads_and_losses_in_fp32(tmp_path: Path) -> None:
    train(tiny("steps=3", "epochs=9", "precision=bf16", "retrieval.lookahead=0"), tmp_path)
    saved = checkpoint.load(tmp_path)
    assert {tensor.dtype for tensor in saved["model"].values()} == {torch.float32, torch.int64}
    assert saved["bank"]["features"].dtype == torch.float32
    # Losses computed in bf16 would have 8 bits; these carry more.
    losses = [row["loss_acp"] for row in metrics(tmp_path)]
    assert any(torch.tensor(loss).bfloat16().item() != pytest.approx(loss, rel=1e-6) for loss in losses)


@pytest.fixture(scope="module")
def corpus_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten small videos of two classes, in VP9 and MJPEG, indexed."""
    from dali_pipes import Corpus

    root = tmp_path_factory.mktemp("videos")
    for number in range(10):
        codec, suffix = [("mjpeg", "avi"), ("vp9", "webm")][number % 2]
        folder = root / "videos" / ("even" if number % 2 else "odd")
        folder.mkdir(parents=True, exist_ok=True)
        make_video(folder / f"{number}.{suffix}", codec=codec, frames=20 + number)
    return Corpus.build(root / "videos", output=root / "corpus.parquet", workers=1, progress=False).path  # type: ignore[return-value]


def test_process_stopped_by_sigterm_goes_on_from_real_videos_to_the_same_end(
    tmp_path: Path, corpus_file: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    words = (*RUN, "retrieval.lookahead=2", "data.threads=1")
    config = tiny(*words, "epochs=40", f"corpus={corpus_file}")
    config.save(tmp_path / "settings.yaml")
    command = [sys.executable, "-c", "from ascnet.cli import main; raise SystemExit(main())", "pretrain", "--config",
               str(tmp_path / "settings.yaml"), "--out", str(tmp_path / "parts")]  # fmt: skip
    # Sums are split over threads: another number of them gives other last digits, and other tests may have set it.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    request.addfinalizer(lambda: torch.set_num_threads(before))
    torch.set_num_threads(1)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    written, deadline = tmp_path / "parts" / "metrics.jsonl", time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if written.exists() and written.read_text().count("\n") >= 5:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 143, said
    done = len(metrics(tmp_path / "parts"))
    assert 5 <= done < 80 and checkpoint.load(tmp_path / "parts")["step"] == done

    from dali_pipes import Corpus

    corpus = Corpus.open(corpus_file)
    # How many threads prepare how much ahead is no part of what is computed.
    config = tiny(*words, "epochs=40", f"corpus={corpus_file}", "data.threads=2", "data.prefetch=3")
    resumed = pretrain(config, corpus, tmp_path / "parts", resume=True)
    assert resumed["resumed_from"] == done and resumed["steps"] == 80
    pretrain(config, corpus, tmp_path / "whole")
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
