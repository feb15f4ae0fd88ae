"""Traces of a few steps: whole or absent, with the parts of a step named."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from training_data import MadeCorpus, open_made, tiny

from ascnet.cli import main
from ascnet.config import Config
from ascnet.errors import ConfigError
from ascnet.logs import profile
from ascnet.logs.profile import REGIONS, Profiler, as_override, region, window
from ascnet.pretrain import pretrain

CPU = torch.device("cpu")


def loop(run: Path, steps: tuple[int, int] | None, total: int, said: list[str], first: int = 0) -> None:
    """A toy training loop; each step also has a region of its own."""
    weight = torch.nn.Parameter(torch.ones(4, 4))
    with Profiler(run, steps, CPU, say=said.append) as profiler:
        for step in range(first, total):
            profiler.advance(step)
            with region(f"step {step + 1}"):
                for name in REGIONS:
                    with region(name):
                        (weight @ weight).sum().backward()


def events(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text())["traceEvents"]


def traced(path: Path) -> list[int]:
    """Steps that a trace has."""
    names = {event.get("name", "") for event in events(path)}
    return sorted(int(name.split()[1]) for name in names if name.startswith("step "))


def test_trace_has_the_steps_of_its_window_and_their_named_parts(tmp_path: Path) -> None:
    said: list[str] = []
    loop(tmp_path, (3, 4), 6, said)
    (path,) = (tmp_path / "profile").iterdir()
    assert path.name == "steps_3-4.rank0.json" and traced(path) == [3, 4]
    assert said == [f"trace of steps 3 to 4: {path}"]
    shown = events(path)
    for name in REGIONS:
        spans = [event for event in shown if event.get("name") == name and event.get("ph") == "X"]
        assert len(spans) == 2 and all(event["dur"] > 0 for event in spans)
    # The work lies within the regions: that is what tells where the time goes.
    span = next(event for event in shown if event.get("name") == "backward")
    inside = [
        event
        for event in shown
        if event.get("name") == "aten::mm" and span["ts"] <= event["ts"] <= span["ts"] + span["dur"]
    ]
    assert inside


@pytest.mark.parametrize(
    ("steps", "total", "first", "name", "expected"),
    [
        ((1, 1), 3, 0, "steps_1-1", [1]),
        ((2, 9), 3, 0, "steps_2-3", [2, 3]),  # the run ends within the window
        ((2, 5), 6, 3, "steps_4-5", [4, 5]),  # the run is resumed within the window
    ],
)
def test_window_is_cut_where_the_run_begins_or_ends_within_it(
    tmp_path: Path, steps: tuple[int, int], total: int, first: int, name: str, expected: list[int]
) -> None:
    loop(tmp_path, steps, total, [], first)
    (path,) = (tmp_path / "profile").iterdir()
    assert path.name == f"{name}.rank0.json" and traced(path) == expected


@pytest.mark.parametrize(("steps", "first"), [(None, 0), ((7, 8), 0), ((1, 2), 2)])
def test_no_trace_is_made_without_a_window_or_outside_of_it(
    tmp_path: Path, steps: tuple[int, int] | None, first: int
) -> None:
    loop(tmp_path, steps, 4, [], first)
    assert not (tmp_path / "profile").exists()


def test_trace_is_written_when_the_loop_fails_and_regions_are_off_afterwards(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="gone"), Profiler(tmp_path, (1, 9), CPU, say=lambda text: None) as profiler:
        profiler.advance(0)
        with region("wait"):
            raise OSError("gone")
    (path,) = (tmp_path / "profile").iterdir()
    assert any(event.get("name") == "wait" for event in events(path))
    assert not profile._tracing and region("wait") is region("ema")


def test_trace_that_cannot_be_written_leaves_no_file_and_the_run_goes_on(tmp_path: Path) -> None:
    (tmp_path / "profile").write_text("a file where the folder should be")
    said: list[str] = []
    loop(tmp_path, (1, 2), 4, said)
    assert len(said) == 1 and said[0].startswith("warning: the trace of steps 1 to 2 is lost: ")
    assert [path.name for path in tmp_path.iterdir()] == ["profile"]


def test_trace_that_fails_half_way_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Any, path: str) -> None:
        Path(path).write_text('{"traceEvents": [')
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch.profiler.profile, "export_chrome_trace", full)
    said: list[str] = []
    loop(tmp_path, (1, 2), 4, said)
    assert "No space left on device" in said[0] and list((tmp_path / "profile").iterdir()) == []


def test_regions_change_no_result() -> None:
    with region("outer"), region("inner"):
        value = math.sqrt(4)
    assert value == 2


def test_window_is_read_from_the_command_line_and_from_the_configuration() -> None:
    assert window("100:110") == (100, 110)
    assert Config.load(None, [as_override("5:5")]).log.profile == (5, 5)
    assert Config().log.profile is None and Config.from_dict({"log": {"profile": [2, 3]}}).log.profile == (2, 3)


@pytest.mark.parametrize("text", ["", "5", "0:3", "4:3", "a:b", "1:", "-1:2", "1:2:3"])
def test_window_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected the first and the last step, such as 100:110"):
        window(text)


@pytest.mark.parametrize(
    ("value", "message"), [([0, 3], "at least 1"), ([4, 3], "first step goes first"), ([1], "expected 2")]
)
def test_window_of_the_configuration_is_checked(value: list[int], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"log\.profile.*{message}"):
        Config.from_dict({"log": {"profile": value}})


def test_command_takes_the_window_and_refuses_a_wrong_one_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", "--profile", "2:3", "--print-config", "epochs=1"]) == 0
    assert Config.from_dict(yaml.safe_load(capsys.readouterr().out)).log.profile == (2, 3)
    assert main(["pretrain", "--profile", "3:2"]) == 2
    said = capsys.readouterr().err
    assert said == "ascnet: --profile 3:2: expected the first and the last step, such as 100:110\n"


def test_pretraining_names_all_of_its_parts_and_records_every_interval(tmp_path: Path) -> None:
    words = ("steps=6", "epochs=9", "log.profile=4,5", "log.interval=3", "log.monitor=0.05", "optim.name=lars")
    config = tiny(*words, "optim.weight_decay_groups={encoder: 1e-3, heads: 0}")
    pretrain(config, MadeCorpus(), tmp_path, open_data=open_made)  # type: ignore[arg-type]
    names = [event.get("name") for event in events(tmp_path / "profile" / "steps_4-5.rank0.json")]
    assert {name: names.count(name) >= 2 for name in REGIONS} == dict.fromkeys(REGIONS, True)
    intervals = [json.loads(line) for line in (tmp_path / "intervals.jsonl").read_text().splitlines()]
    assert [line["step"] for line in intervals] == [3, 6]
    for line in intervals:
        assert line["rate/clips_per_second"] == line["rate/clips_per_second_per_gpu"] > 0
        assert 0 <= line["rate/wait_share"] <= 1 and 0 <= line["mean/retrieval_agreement"] <= 1
