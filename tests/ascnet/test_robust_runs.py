"""Runs that meet bad clips, a full disk, the end of their time, or other settings than they were begun with."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from functools import partial, partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from training_data import MadeCorpus, MadeLoader, MadeStream, open_made, tiny
from training_ranks import metrics

from ascnet import checkpoint, cli
from ascnet.config import Config
from ascnet.errors import CheckpointError, ConfigError, TrainingError
from ascnet.model import ASCNet
from ascnet.pretrain import pretrain
from ascnet.training.activations import checkpoint_blocks
from ascnet.training.interrupt import Interrupt, TimeLimit

RUN = ("epochs=4", "checkpoint.interval=3", "optim.lr=0.5", "ema.momentum=0.9")


def train(config: Config, out: Path, **options: Any) -> dict[str, Any]:
    return pretrain(config, MadeCorpus(), out, **{"open_data": open_made, **options})  # type: ignore[arg-type]


def spoilt(bad: set[int], config: Config, corpus: Any, device: torch.device) -> Any:
    """Made clips, of which one sample's are not finite in some batches, counted from 1."""

    class Spoilt(MadeLoader):
        def __iter__(self) -> Any:
            for number, batch in enumerate(super().__iter__(), start=self.epoch * len(self) + self.step + 1):
                if number in bad:
                    batch.clips[2, :] = torch.inf
                yield batch

    return Spoilt(config, corpus, device), MadeStream(device)


def tensors(out: Path, part: str) -> dict[str, torch.Tensor]:
    return checkpoint.load(out)[part]


@pytest.mark.parametrize("lookahead", [0, 2])
def test_step_with_a_loss_that_is_not_finite_changes_nothing_and_names_the_video(
    tmp_path: Path, lookahead: int
) -> None:
    config = tiny(*RUN, f"retrieval.lookahead={lookahead}", "checkpoint.interval=1", "checkpoint.keep=20")
    summary = train(config, tmp_path, open_data=partial(spoilt, {5, 6}))
    assert summary["steps"] == 12 and summary["skipped"] == 2
    rows = metrics(tmp_path)
    assert [row["step"] for row in rows if row["loss"] is None] == [5, 6]
    before, after = (torch.load(tmp_path / "checkpoints" / f"step_{step:08d}.pt", weights_only=True) for step in (4, 6))
    for part in ("model", "bank"):
        for name, tensor in before[part].items():
            trained = not name.endswith(("running_mean", "running_var", "num_batches_tracked"))
            assert after[part][name].isfinite().all(), name
            assert not trained or torch.equal(after[part][name], tensor), name
    told = [json.loads(line) for line in (tmp_path / "skipped.jsonl").read_text().splitlines()]
    assert [line["step"] for line in told] == [5, 6]
    assert all(len(line["videos"]) == 1 and line["clips_not_finite"] for line in told)
    # It is the video that the loader has at that place.
    loader = MadeLoader(config, MadeCorpus(), torch.device("cpu"))
    assert told[0]["videos"] == [f"video{loader.request(1, 4 + 2).video}.mp4"]


def test_step_with_a_gradient_that_is_not_finite_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    class Spoil(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(context: Any, *grads: torch.Tensor) -> torch.Tensor:
            calls.append(1)
            return grads[0] * (torch.inf if len(calls) == 5 else 1)

    usual = ASCNet.forward

    def forward(self: ASCNet, *given: Any) -> Any:
        losses = usual(self, *given)
        losses.loss = Spoil.apply(losses.loss)
        return losses

    monkeypatch.setattr(ASCNet, "forward", forward)
    config = tiny(*RUN, "retrieval.lookahead=0", "checkpoint.interval=1", "checkpoint.keep=20")
    summary = train(config, tmp_path)
    assert summary["steps"] == 12 and summary["skipped"] == 1
    rows = metrics(tmp_path)
    assert [row["step"] for row in rows if row["grad_norm"] is None] == [5]
    # Nothing was wrong with the loss itself.
    assert rows[4]["loss"] is not None
    before, after = (torch.load(tmp_path / "checkpoints" / f"step_{step:08d}.pt", weights_only=True) for step in (4, 5))
    for part in ("model", "bank"):
        for name, tensor in before[part].items():
            trained = not name.endswith(("running_mean", "running_var", "num_batches_tracked"))
            assert not trained or torch.equal(after[part][name], tensor), name


def test_too_many_skipped_steps_in_a_row_end_the_run_with_the_videos_and_the_step(tmp_path: Path) -> None:
    config = tiny(*RUN, "optim.max_skipped=1", "log.interval=10", "checkpoint.interval=4")
    with pytest.raises(TrainingError, match=r"not finite at step 6, the last of 2 in a row .*video\d+\.mp4.*optim\.lr"):
        train(config, tmp_path, open_data=partial(spoilt, {3, 5, 6}))
    assert checkpoint.load(tmp_path)["step"] == 4
    assert metrics(tmp_path)[-1]["step"] == 6


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    config = tiny(*RUN, "optim.lr=.inf", "checkpoint.interval=6")
    with pytest.raises(TrainingError, match="weights are not finite after step 6"):
        train(config, tmp_path)
    assert not (tmp_path / "checkpoints").exists()


FULL = """
import resource, signal, sys
from pathlib import Path
from training_data import MadeCorpus, open_made, tiny
from ascnet import cli
from ascnet.errors import UserError
from ascnet.pretrain import pretrain

out, steps = Path(sys.argv[1]), int(sys.argv[2])

def before(batch):
    # No file may grow larger than the small ones: as good as a full disk.
    if batch >= 4:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000 if batch < steps else resource.RLIM_INFINITY, -1))

config = tiny("steps=12", "epochs=9", "checkpoint.interval=3", "retrieval.lookahead=0", "log.interval=4")
try:
    pretrain(config, MadeCorpus(), out, open_data=lambda *given: open_made(*given, before))
except UserError as error:
    sys.exit(cli._mistake(error))
"""


@pytest.mark.parametrize(("until", "status", "newest"), [(11, 0, 12), (99, 2, 3)])
def test_full_disk_keeps_the_old_checkpoint_and_the_run_goes_on(
    tmp_path: Path, until: int, status: int, newest: int
) -> None:
    tests = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path), str(until)],
        env={"PYTHONPATH": f"{tests}:{tests.parent}", "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    warned = [line for line in done.stderr.splitlines() if line.startswith("warning: the checkpoint of step")]
    assert [line.split()[5] for line in warned] == ["6", "9"]
    assert all("File too large; the newest one is" in line and "step_00000003.pt" in line for line in warned)
    assert checkpoint.load(tmp_path)["step"] == newest
    assert all(path.name[0] != "." for path in (tmp_path / "checkpoints").iterdir())
    assert "Traceback" not in done.stderr
    if status:
        assert "ascnet: " in done.stderr and "the checkpoint of step 12 cannot be written" in done.stderr
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_run_stops_in_time_and_goes_on_to_the_same_end(tmp_path: Path) -> None:
    config = tiny(*RUN)
    train(config, tmp_path / "whole")
    first = train(config, tmp_path / "parts", max_minutes=0.0)
    assert first["interrupted"] and first["stopped_by"] == "time limit" and first["steps"] == 0
    assert cli._status(first) == 0
    second = train(config, tmp_path / "parts", resume=True, max_minutes=10.0)
    assert not second["interrupted"] and second["stopped_by"] is None
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "parts")


def test_time_limit_leaves_room_for_a_step_and_a_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("ascnet.training.interrupt.time.monotonic", lambda: now[0])
    limit = TimeLimit(10, started=100.0)
    limit.saw_checkpoint(20)
    limit.saw_step(30)
    now[0] = 100 + 600 - 101
    assert not limit.reached()
    now[0] += 2
    assert limit.reached()
    assert not TimeLimit(None, started=0).reached()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_exit_status_tells_the_signal(tmp_path: Path, number: int, status: int) -> None:
    def before(batch: int) -> None:
        if batch == 4:
            signal.raise_signal(number)

    summary = train(tiny(*RUN), tmp_path, open_data=partial(open_made, before=before))
    assert summary["stopped_by"] == signal.Signals(number).name and cli._status(summary) == status


def test_signal_that_torchrun_hands_on_is_not_taken_for_a_second_one(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("ascnet.training.interrupt.time.monotonic", lambda: now[0])
    interrupt = Interrupt(echo=5)
    interrupt._handle(signal.SIGINT, None)
    now[0] = 4.0
    interrupt._handle(signal.SIGTERM, None)
    assert interrupt.name == "SIGINT"
    now[0] = 6.0
    with pytest.raises(KeyboardInterrupt):
        interrupt._handle(signal.SIGINT, None)
    with pytest.raises(KeyboardInterrupt):
        alone = Interrupt()
        alone._handle(signal.SIGINT, None)
        alone._handle(signal.SIGINT, None)


def test_changed_settings_are_refused_by_name_unless_allowed(tmp_path: Path) -> None:
    train(tiny(*RUN, "epochs=1"), tmp_path)
    changed = tiny(*RUN, "epochs=2", "optim.lr=0.25", "optim.weight_decay=0.5", "retrieval.topk=2")
    with pytest.raises(CheckpointError, match=r"epochs 1 -> 2, optim\.lr 0\.5 -> 0\.25, .*retrieval\.topk 1 -> 2"):
        train(changed, tmp_path, resume=True)
    with pytest.raises(CheckpointError, match=r"\(retrieval\.topk 1 -> 2\).*--allow retrieval\.topk$"):
        train(changed, tmp_path, resume=True, allow=["epochs", "optim"])
    with pytest.raises(ConfigError, match=r"--allow optim\.lrr: unknown key; did you mean 'optim\.lr'"):
        train(changed, tmp_path, resume=True, allow=["optim.lrr"])
    assert train(changed, tmp_path, resume=True, allow=["epochs", "optim", "retrieval.topk"])["steps"] == 6
    saved = checkpoint.load(tmp_path)
    assert saved["optimizer"]["param_groups"][0]["weight_decay"] == 0.5


def test_allowed_settings_that_the_weights_do_not_fit_are_refused(tmp_path: Path) -> None:
    train(tiny(*RUN, "epochs=1"), tmp_path)
    with pytest.raises(CheckpointError, match="does not fit the changed settings"):
        train(tiny(*RUN, "epochs=1", "model.projector_dim=8"), tmp_path, resume=True, allow=["model"])
    other = tiny(*RUN, "epochs=2", "optim.name=adamw", "optim.lr=0.001")
    assert train(other, tmp_path, resume=True, allow=["epochs", "optim"])["steps"] == 6


def test_another_look_ahead_goes_on_with_the_positives_under_way(tmp_path: Path) -> None:
    train(tiny(*RUN, "retrieval.lookahead=2", "steps=5"), tmp_path)
    config = tiny(*RUN, "retrieval.lookahead=0", "steps=9")
    assert train(config, tmp_path, resume=True, allow=["retrieval.lookahead", "steps"])["steps"] == 9
    assert all(row["scp_share"] == 1 for row in metrics(tmp_path)[3:])


def test_setting_behind_allow_on_the_command_line_is_a_setting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["pretrain", "--out", str(tmp_path), "--print-config", "--allow", "optim", "epochs", "epochs=7"]
    assert cli.main(words) == 0
    assert "\nepochs: 7\n" in capsys.readouterr().out


@pytest.mark.parametrize("variant", [["symmetric=true"], ["retrieval.lookahead=2", "optim.clip_norm=1"]])
def test_accumulated_parts_train_and_resume_as_one_run(tmp_path: Path, variant: list[str]) -> None:
    config = tiny(*RUN, "data.batch_size=6", "optim.accumulate=3", "epochs=5", *variant)

    def before(batch: int) -> None:
        if batch == 6:
            signal.raise_signal(signal.SIGTERM)

    train(config, tmp_path / "whole")
    assert train(config, tmp_path / "parts", open_data=partial(open_made, before=before))["interrupted"]
    train(config, tmp_path / "parts", resume=True)
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "parts")
    assert metrics(tmp_path / "whole")[-1]["scp_share"] == 1


def test_accumulated_gradient_is_the_mean_over_the_parts(tmp_path: Path) -> None:
    """Where every part holds the same two clips, the parts have the batch's own statistics, so the losses are equal."""

    def doubled(config: Config, corpus: Any, device: torch.device) -> Any:
        class Doubled(MadeLoader):
            def __iter__(self) -> Any:
                for batch in super().__iter__():
                    batch.clips[2:] = batch.clips[:2]
                    yield batch

        return Doubled(config, corpus, device), None

    words = (*RUN, "precision=fp64", "gamma=0", "steps=6")
    for parts in (1, 2):
        train(tiny(*words, f"optim.accumulate={parts}"), tmp_path / str(parts), open_data=doubled)
    one, two = metrics(tmp_path / "1"), metrics(tmp_path / "2")
    for name in ("loss", "grad_norm"):
        assert [row[name] for row in two] == pytest.approx([row[name] for row in one], rel=1e-8)


def test_parts_too_small_for_batch_normalisation_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"optim\.accumulate is 3; .*at least 2 samples of the 4 in data\.batch_size"):
        tiny("optim.accumulate=3")


@pytest.mark.parametrize("encoder", ["r3d10", "s3dg"])
def test_checkpointed_activations_change_neither_losses_nor_weights(tmp_path: Path, encoder: str) -> None:
    words = [*RUN, "steps=4", "precision=fp32", f"model.encoder={encoder}"]
    if encoder == "s3dg":
        words += ["data.size=32", "data.frames=8", "channels_last=false"]
    for name in ("false", "true"):
        config = tiny(*words, f"model.checkpoint_activations={name}")
        train(config, tmp_path / name, open_data=partial(resized, config.data.frames, config.data.size))
    assert metrics(tmp_path / "true") == metrics(tmp_path / "false")
    plain, saving = tensors(tmp_path / "false", "model"), tensors(tmp_path / "true", "model")
    assert all(torch.equal(saving[name], tensor) for name, tensor in plain.items())


def resized(frames: int, size: int, config: Config, corpus: Any, device: torch.device) -> Any:
    """Made clips without positives, in another size."""

    class Resized(MadeLoader):
        def __iter__(self) -> Any:
            for batch in super().__iter__():
                grown = torch.nn.functional.interpolate(batch.clips.flatten(0, 1), (frames, size, size))
                object.__setattr__(batch, "clips", grown.unflatten(0, batch.clips.shape[:2]))
                yield batch

    return Resized(config, corpus, device), None


def test_encoder_without_blocks_has_no_activations_to_checkpoint() -> None:
    with pytest.raises(ConfigError, match="Sequential has no blocks"):
        checkpoint_blocks(torch.nn.Sequential(torch.nn.Conv3d(3, 4, 1), torch.nn.ReLU()))


def test_compiled_encoders_train_as_they_do_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without the code generator, which would take a minute.
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="aot_eager"))
    for name in ("false", "true"):
        train(tiny(*RUN, "steps=4", "precision=fp64", "retrieval.lookahead=0", f"compile={name}"), tmp_path / name)
    losses, compiled = ([row["loss"] for row in metrics(tmp_path / name)] for name in ("false", "true"))
    assert compiled == pytest.approx(losses, rel=1e-6)
    plain, other = tensors(tmp_path / "false", "model"), tensors(tmp_path / "true", "model")
    assert plain.keys() == other.keys()
    for name, tensor in plain.items():
        torch.testing.assert_close(other[name], tensor, rtol=1e-6, atol=1e-9)


def test_steps_count_by_their_share_of_the_epochs_when_the_batch_is_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def before(batch: int) -> None:
        if batch == 6:
            signal.raise_signal(signal.SIGTERM)

    first = train(tiny(*RUN), tmp_path, open_data=partial(open_made, before=before))
    assert 5 <= first["steps"] <= 7 and first["total_steps"] == 12
    config = tiny(*RUN, "data.batch_size=12")
    summary = train(config, tmp_path, resume=True, allow=["data.batch_size"])
    assert (summary["resumed_from"], summary["steps"]) == (2, 4)
    assert f"step {first['steps']} counts as 2" in capsys.readouterr().err
    assert [row["step"] for row in metrics(tmp_path)] == [3, 4]
    assert (tmp_path / f"metrics.until_step_{first['steps']}.jsonl").read_text().count("\n") == first["steps"]
