"""Several processes: the steps of one with the whole batch, and what becomes of them when one of them ends."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from training_ranks import Job, finish, metrics, start, train

from ascnet import checkpoint
from ascnet.errors import ConfigError
from ascnet.parallel.distributed import World

# Two processes and one add the same numbers in another order; 20 steps at a high learning rate amplify the difference.
TOLERANCE = 1e-8
RUN = ("precision=fp64", "steps=20", "epochs=99", "optim.lr=0.5", "ema.momentum=0.9", "checkpoint.interval=100")
VARIANTS = {
    "lookahead-0": ["retrieval.lookahead=0"],
    "lookahead-1": ["retrieval.lookahead=1", "retrieval.topk=3", "optim.clip_norm=1"],
    "sharded": ["retrieval.lookahead=1", "retrieval.placement=sharded", "retrieval.exclude=group"],
    "symmetric": ["retrieval.lookahead=1", "symmetric=true", "model.projector_norm=true"],
    "checkpointed": ["retrieval.lookahead=1", "model.checkpoint_activations=true"],
    # Most retrieved videos cannot be had, so that processes have different numbers of positives, also none.
    "broken": ["retrieval.lookahead=0", "retrieval.placement=sharded", "retrieval.positive=random"],
}


def job(name: str, out: Path, batch: int) -> Job:
    words = [*RUN, *VARIANTS[name], f"data.batch_size={batch}"]
    return Job(str(out), words, broken=list(range(16)) if name == "broken" else [])


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every variant in two processes, and one that is stopped half-way and gone on with."""
    folder = tmp_path_factory.mktemp("two")
    stopped = job("lookahead-1", folder / "parts", 4)
    stopped.acts = {"1": "term@9"}
    status, said = finish(start(2, [*(job(name, folder / name, 4) for name in VARIANTS), stopped]))
    assert status == [143, 143], "\n".join(said)
    return folder


def assert_same_losses(ours: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert [row["step"] for row in ours] == [row["step"] for row in expected]
    for row, right in zip(ours, expected, strict=True):
        for name, value in right.items():
            assert row[name] == (None if value is None else pytest.approx(value, rel=TOLERANCE)), (row["step"], name)


@pytest.mark.parametrize("name", VARIANTS)
def test_losses_of_two_processes_are_those_of_one_with_the_whole_batch(name: str, two: Path, tmp_path: Path) -> None:
    train(job(name, tmp_path, 8))
    rows = metrics(two / name)
    assert len(rows) == 20 and any(row["scp_share"] > 0 for row in rows)
    if name == "broken":
        # Fewer positives than a process has samples, so in some step one of them is left with a few or none.
        assert any(0 < row["scp_share"] <= 0.25 for row in rows)
    assert_same_losses(rows, metrics(tmp_path))
    ours, expected = checkpoint.load(two / name), checkpoint.load(tmp_path)
    for part in ("model", "bank"):
        for key, tensor in expected[part].items():
            torch.testing.assert_close(ours[part][key], tensor, rtol=1e-6, atol=1e-9)


def test_sigterm_to_one_process_stops_all_at_the_same_step_and_any_number_goes_on(two: Path, tmp_path: Path) -> None:
    done = checkpoint.load(two / "parts")["step"]
    assert 0 < done < 20 and [row["step"] for row in metrics(two / "parts")] == list(range(1, done + 1))

    # One process with the same whole batch takes over the batches that were under way in both.
    alone = job("lookahead-1", tmp_path / "alone", 8)
    (tmp_path / "alone").mkdir()
    for path in ("checkpoints/last.pt", "metrics.jsonl"):
        (tmp_path / "alone" / path).parent.mkdir(exist_ok=True)
        (tmp_path / "alone" / path).write_bytes((two / "parts" / path).read_bytes())
    alone.resume, alone.allow = True, ["data.batch_size"]
    assert train(alone)["resumed_from"] == done
    assert_same_losses(metrics(tmp_path / "alone"), metrics(two / "lookahead-1"))

    again = job("lookahead-1", two / "parts", 4)
    again.resume = True
    status, said = finish(start(2, [again]))
    assert status == [0, 0], "\n".join(said)
    assert metrics(two / "parts") == metrics(two / "lookahead-1")
    ours, expected = checkpoint.load(two / "parts"), checkpoint.load(two / "lookahead-1")
    for part in ("model", "bank"):
        assert all(torch.equal(ours[part][name], tensor) for name, tensor in expected[part].items())


def test_another_whole_batch_is_told_and_searches_again(
    two: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.pt").write_bytes((two / "lookahead-1" / "checkpoints" / "last.pt").read_bytes())
    shorter = job("lookahead-1", tmp_path, 4)
    shorter.words += ["steps=22"]
    shorter.resume, shorter.allow = True, ["steps"]
    assert train(shorter)["steps"] == 22
    assert "the batch is of 4 videos now and was of 8" in capsys.readouterr().err


@pytest.mark.parametrize("victim", [0, 1])
def test_process_that_is_killed_ends_the_others_with_one_line_and_a_usable_checkpoint(
    tmp_path: Path, victim: int
) -> None:
    killed = job("lookahead-0", tmp_path, 4)
    killed.words += ["checkpoint.interval=3"]
    killed.acts = {str(victim): "kill@9"}
    processes = start(2, [killed])
    processes[victim].wait(300)
    since = time.monotonic()
    status, said = finish(processes)
    assert time.monotonic() - since < 20
    assert (status[victim], status[1 - victim]) == (-9, 1), "\n".join(said)
    lines = [line for line in said[1 - victim].splitlines() if line.startswith("ascnet: ")]
    last = tmp_path / "checkpoints" / "last.pt"
    assert lines == [f"ascnet: process {victim} of 2 is gone, so the others end too; --resume goes on from {last}"]
    assert "Traceback" not in said[0] + said[1]
    assert checkpoint.load(tmp_path)["step"] == 6


def test_error_of_one_process_is_told_once_and_ends_the_others(tmp_path: Path) -> None:
    failing = job("lookahead-0", tmp_path, 4)
    failing.acts = {"1": "fail@3"}
    status, said = finish(start(2, [failing]))
    assert status == [1, 2], "\n".join(said)
    told = [[line for line in lines.splitlines() if line.startswith("ascnet: ")] for lines in said]
    assert told == [[], ["ascnet: the disk is gone"]] and "Traceback" not in said[0] + said[1]


def test_mistake_that_all_processes_make_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.pt").write_text("")
    status, said = finish(start(2, [job("lookahead-0", tmp_path, 4)]))
    assert status == [2, 1], "\n".join(said)
    assert "add --resume" in said[0] and said[0].count("\n") == 1 and said[1] == ""


def test_without_synchronised_normalisation_each_process_needs_two_positives_of_its_own(tmp_path: Path) -> None:
    apart = job("broken", tmp_path, 4)
    apart.words += ["model.sync_norm=false"]
    spoilt = Job(str(tmp_path / "spoilt"), [*RUN, "data.batch_size=4", "optim.max_skipped=1"], acts={"1": "nan@5"})
    status, said = finish(start(2, [apart, spoilt]))
    assert status == [0, 0], "\n".join(said)
    rows = metrics(tmp_path)
    assert {row["scp_share"] for row in rows} >= {0.0, 0.25} and 0.125 not in {row["scp_share"] for row in rows}
    assert all(row["loss"] is not None for row in rows)

    # A loss that is not finite in one process is a skipped step in both.
    rows = metrics(tmp_path / "spoilt")
    assert [row["step"] for row in rows if row["loss"] is None] == [5] and rows[-1]["skipped"] == 1
    assert (tmp_path / "spoilt" / "skipped.jsonl").read_text().count(".mp4") == 1
    weights = checkpoint.load(tmp_path / "spoilt")["model"]
    assert all(tensor.isfinite().all() for tensor in weights.values())


def test_a_certain_gpu_for_several_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match="device is 'cuda:1' for 2 processes; say cuda"):
        World.join("cuda:1")
