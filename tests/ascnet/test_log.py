"""What a run tells of its steps and intervals, and what it warns of."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from ascnet.config import LogConfig
from ascnet.errors import TrainingError
from ascnet.logs.log import TrainLog


def row(step: int, **values: Any) -> dict[str, Any]:
    usual = {
        "step": step, "epoch": step / 10, "loss": 1.0 / step, "loss_acp": 0.5, "loss_scp": math.nan, "grad_norm": 2.0,
        "feature_std": 0.9, "lr": 0.1, "scp_share": 1.0, "clips_per_second": 100.0, "wait_share": 0.5,
        "step_seconds": 1.0,
    }  # fmt: skip
    return {**usual, **values}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def opened(run: Path, total: int = 100, step: int = 0, **options: Any) -> TrainLog:
    config = LogConfig(**{"interval": 4, "tensorboard": False, **options.pop("config", {})})
    return TrainLog(run, total, step, config, **options)


def test_interval_has_rates_by_time_and_means_of_the_values_there_are(tmp_path: Path) -> None:
    log = opened(tmp_path, world_size=4)
    rates = [(100.0, 1.0, 0.0, 0.25), (100.0, 1.0, 0.0, None), (400.0, 0.5, 1.0, 0.75), (20.0, 1.5, 0.4, None)]
    for step, (clips, seconds, wait, agreement) in enumerate(rates, start=1):
        found = {} if agreement is None else {"retrieval_agreement": torch.tensor(agreement)}
        log.record(row(step, clips_per_second=clips, step_seconds=seconds, wait_share=wait, **found))
    log.close()
    (interval,) = lines(tmp_path / "intervals.jsonl")
    # 100 + 100 + 200 + 30 clips and 0 + 0 + 0.5 + 0.6 seconds of waiting in 4 seconds.
    assert interval["rate/clips_per_second"] == pytest.approx(430 / 4)
    assert interval["rate/clips_per_second_per_gpu"] == pytest.approx(430 / 16)
    assert interval["rate/wait_share"] == pytest.approx(1.1 / 4) and interval["rate/steps_per_second"] == 1.0
    assert interval["mean/loss"] == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    assert interval["mean/retrieval_agreement"] == 0.5 and "mean/loss_scp" not in interval
    assert [line.get("retrieval_agreement") for line in lines(tmp_path / "metrics.jsonl")] == [0.25, None, 0.75, None]


def test_scalars_on_the_device_are_written_as_numbers_whatever_steps_they_are_in(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.record(row(1, loss=torch.tensor(2.0), extra=torch.tensor([3], dtype=torch.int64)))
    log.record(row(2, loss=torch.tensor(4.0, dtype=torch.float64)))
    log.record(row(3, motion_std=torch.tensor(math.nan)))
    log.flush()
    log.close()
    found = lines(tmp_path / "metrics.jsonl")
    assert [line["loss"] for line in found] == [2.0, 4.0, 1 / 3]
    assert found[0]["extra"] == 3.0 and "extra" not in found[1] and found[2]["motion_std"] is None
    assert log.last == found[2]


def test_values_of_sources_are_in_the_interval_and_a_source_that_fails_is_told_about_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> Mapping[str, float]:
        raise OSError("the driver is gone")

    log = opened(tmp_path, sources=[broken, lambda: {"gpu/sm_load": 0.5}])
    log.add_source(lambda: {"data/replaced": 3.0})
    for step in range(1, 13):
        log.record(row(step))
    log.close()
    found = lines(tmp_path / "intervals.jsonl")
    assert [line["step"] for line in found] == [4, 8, 12]
    assert all(line["gpu/sm_load"] == 0.5 and line["data/replaced"] == 3.0 for line in found)
    said = capsys.readouterr().err
    assert said.count("the driver is gone") == 1 and said.count("gpu 50%") == 3


def test_steps_up_to_a_loss_that_is_not_finite_are_written_before_the_run_ends(tmp_path: Path) -> None:
    log = opened(tmp_path)
    for step in (1, 2, 3):
        log.record(row(step, loss=math.nan if step == 2 else 1.0))
    with pytest.raises(TrainingError, match=r"loss is nan at step 2 \(lr 0\.1, gradient norm 2\)"):
        log.flush()
    log.close()
    found = lines(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in found] == [1, 2] and found[1]["loss"] is None


@pytest.mark.parametrize(("options", "last"), [({"tolerate_overflow": True}, 49), ({"watch_loss": False}, 99)])
def test_losses_that_are_not_finite_are_tolerated_where_somebody_else_sees_to_them(
    tmp_path: Path, options: dict[str, bool], last: int
) -> None:
    log = opened(tmp_path, **options, config={"interval": 1})
    for step in range(1, last + 1):
        log.record(row(step, loss=math.inf))
    if last == 49:
        with pytest.raises(TrainingError, match="loss is inf at step 50"):
            log.record(row(50, loss=math.inf))
    log.close()
    assert len(lines(tmp_path / "metrics.jsonl")) >= last


def test_collapse_is_said_when_it_begins_and_again_only_after_it_was_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = opened(tmp_path)
    for step, std in enumerate([0.9, 0.05, 0.04, 0.9, 0.02, 0.9, 0.9, 0.9], start=1):
        log.record(row(step, feature_std=std))
    log.close()
    said = capsys.readouterr().err
    assert said.count("the features may be collapsing") == 2
    assert "step 2: feature_std is 0.050" in said and "step 5: feature_std is 0.020" in said


class Failing:
    """A service that is out of reach from the second interval on."""

    name, patient = "the service", False

    def __init__(self) -> None:
        self.calls = 0

    def write(self, steps: Sequence[Any], interval: Any) -> None:
        self.calls += 1
        if self.calls > 1:
            raise ConnectionError("no route")

    def close(self) -> None:
        raise ConnectionError("no route at the end")


def test_service_that_fails_is_left_out_and_the_rest_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, service = opened(tmp_path), Failing()
    log._writers.insert(0, service)
    for step in range(1, 17):
        log.record(row(step))
    log.close()
    assert service.calls == 2 and len(lines(tmp_path / "metrics.jsonl")) == 16
    said = capsys.readouterr().err
    assert said.count("the service cannot be written: no route; the run goes on without it") == 1


def test_screen_shows_the_step_its_values_and_the_time_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = opened(tmp_path, total=8)
    for step in range(1, 5):
        log.record(row(step))
    log.close()
    said = capsys.readouterr().err
    assert "step 4/8 epoch 0.40 loss 0.5208 acp 0.5000 scp - lr 0.1 std 0.90 100.0 clips/s wait 50% left 0:00:0" in said
