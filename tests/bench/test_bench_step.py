"""`python -m bench step`: the same training in every mode, and a verdict that names what binds."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from make_videos import make_video
from rich.console import Console

from ascnet.cli import find_config
from ascnet.config import Config
from bench.__main__ import main
from bench.commands.step import DEVICE, disagreeing, opened
from bench.step.replay import ReplayStream
from bench.step.trace import CLOCK, offset, rows, totals
from bench.step.training import Opener, Training
from bench.step.verdict import Measured, disturbed, judge
from dali_pipes import ClipBatch, ClipRequest, Corpus, View

TINY = "model.width=0.0625 model.projector_hidden=16 model.projector_dim=8 model.predictor_hidden=16 data.frames=4"
TINY += " data.size=16 data.batch_size=4 data.threads=1 device=cpu precision=fp32"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("step") / "videos"
    for number in range(3):
        make_video(folder / f"{number}.mp4", frames=24, size=(48, 32), first=40 * number)
    return folder


def measured(**changes: object) -> Measured:
    usual = {"device": 10.0, "loader": 30.0, "rates": {0: 6.0, 1: 7.0, 2: 7.0}, "waiting": {0: 0.4, 1: 0.3, 2: 0.3},
             "device_cpu": 0.01, "loader_cpu": 0.01, "cores": 2}  # fmt: skip
    return Measured(**(usual | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("binds", "changes", "told"),
    [
        ("nothing", {"rates": {0: 8.0, 1: 9.6, 2: 9.7}}, "with look-ahead 1 the step runs at 96 %"),
        ("loader", {"loader": 7.1}, "alone it gives clips for 7.10 steps/s, and the step could take 10.00"),
        ("cores", {"device_cpu": 0.2, "loader_cpu": 0.2}, "2 cores have enough for 5.00 steps/s"),
        ("look-ahead", {"rates": {0: 5.0, 1: 7.0, 2: 8.5}, "waiting": {0: 0.5, 1: 0.3, 2: 0.15}}, "still rises"),
        ("look-ahead", {"rates": {0: 6.0}, "waiting": {0: 0.4}}, "too short"),
        ("sharing", {}, "a longer look-ahead does not help"),
        ("sharing", {"rates": {1: 7.0}, "waiting": {1: 0.02}}, "seldom waits"),
    ],
)
def test_verdict_names_what_binds(binds: str, changes: dict[str, object], told: str) -> None:
    found = judge(measured(**changes))
    assert found.binds == binds and told.lower() in found.words.lower()
    assert found.reached == (binds == "nothing")


def test_smallest_lookahead_that_reaches_the_aim_is_named_and_others_are_told() -> None:
    found = judge(measured(rates={0: 8.0, 1: 9.6, 2: 9.9}))
    assert (found.lookahead, found.share) == (1, pytest.approx(0.96))
    assert "80 % with 0" in found.words
    assert judge(measured(loader=7.0, device_cpu=0.4)).words.count("shares the cores") == 1


def test_a_busy_machine_is_told() -> None:
    assert "1.2 of 2 cores" in disturbed(1.2, 2)
    assert disturbed(0.3, 2) == ""


def test_another_first_loss_is_wrong() -> None:
    base = {DEVICE: 1.0, "look-ahead 0": 1.001}
    assert disagreeing(base) == {}
    assert "1.2000" in disagreeing(base | {"look-ahead 1": 1.2})["look-ahead 1"]
    assert set(disagreeing(base | {"look-ahead 1": float("nan")})) == {"look-ahead 1"}


def test_replayed_positives_are_as_many_as_were_asked_for() -> None:
    clips = torch.arange(3.0).reshape(3, 1, 1, 1, 1, 1)
    nothing = torch.zeros(3, 1)
    kept = ClipBatch(clips, nothing, nothing, nothing, (), epoch=0, positions=nothing)
    stream = ReplayStream([kept])
    requests = [ClipRequest(video, (View(speed=1, start=0),)) for video in (7, 8, 9, 6, 5)]
    stream.submit(requests[:2])
    stream.submit(requests)
    first, second = stream.get(), stream.get()
    assert first.clips.flatten().tolist() == [0, 1] and [r.video for r in first.requests] == [7, 8]
    assert second.clips.flatten().tolist() == [0, 1, 2, 0, 1] and len(second.requests) == 5


class Late:
    """A stream whose clips come so many seconds late."""

    def __init__(self, stream: ReplayStream, late: float) -> None:
        self._stream, self._late = stream, late

    def submit(self, requests: list[ClipRequest]) -> None:
        self._stream.submit(requests)

    def get(self) -> ClipBatch:
        time.sleep(self._late)
        return self._stream.get()

    def close(self) -> None:
        self._stream.close()


def test_all_modes_train_on_the_same_first_batch_and_late_clips_are_waited_for(folder: Path) -> None:
    config = Config.load(find_config("demo"), TINY.split())
    corpus, device = Corpus.build(folder, progress=False), torch.device("cpu")
    config.data.clips_per_video = 4
    with ExitStack() as stack:
        modes, losses = opened(config, corpus, device, [0, 1], 2, stack, Console(quiet=True))
        assert list(modes) == [DEVICE, "loader alone", "look-ahead 0", "look-ahead 1"]
        assert set(losses) == set(modes) - {"loader alone"}
        assert max(losses.values()) == pytest.approx(min(losses.values()), rel=1e-4)
        opener = Opener(config, corpus, device, 1, stack)
        first = Training(config, corpus, *opener.open(), device, 0)
        first()
        loader, positives = opener.replay()
        assert isinstance(positives, ReplayStream)
        late = Training(config, corpus, loader, Late(positives, 0.1), device, 0)
        late()
        late()
        assert late.waited >= 0.2
        # Two clips of each sample, and its positive.
        assert late.clips == 2 * 4 * 3


def test_loader_s_rows_have_the_clock_of_the_trace() -> None:
    # The clock is read in the middle of each mark; the second mark was interrupted.
    events = [
        {"ph": "X", "name": CLOCK, "ts": 1000.0, "dur": 10.0},
        {"ph": "X", "name": CLOCK, "ts": 2000.0, "dur": 500.0},
        {"ph": "X", "cat": "user_annotation", "name": "backward", "ts": 2600.0, "dur": 4000.0},
    ]
    zero = offset(events, [7.0, 7.001])
    assert zero == pytest.approx(1005.0 - 7e6)
    made = rows(
        [("decode", 99, 7.0001, 7.0003), ("plan", 98, 7.0, 7.0004), ("read", 98, 7.0, 7.0001)], zero, {98: "worker"}
    )
    plan, decode = (event for event in made if event["ph"] == "X" and event["name"] != "read")
    assert (plan["name"], plan["tid"], decode["name"], decode["tid"]) == ("plan", 1, "decode", 2)
    assert decode["ts"] == pytest.approx(1105.0) and decode["dur"] == pytest.approx(200.0)
    assert {"name": "worker"} in [event.get("args") for event in made]
    found = totals([*events, *made])
    # Reading lies within planning, and is not counted twice.
    stages = {"loader: plan": 0.3, "loader: read": 0.1, "loader: decode": 0.2}
    assert found == pytest.approx({"backward": 4.0, **stages})


def test_command_measures_every_mode_and_traces_the_loader_beside_the_step(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["step", str(folder), "--lookahead", "1", "--rounds", "2", "--warmup", "0", "--steps", "2"]
    command += ["--replay", "1", "--trace", str(tmp_path / "t"), "--trace-steps", "3", "--require", "1000"]
    assert main([*command, "--output", str(tmp_path / "r.json"), "--set", *TINY.split()]) == 1
    text = (tmp_path / "r.json").read_text()
    assert str(tmp_path) not in text and str(folder.parent) not in text
    result = json.loads(text)
    for mode in (DEVICE, "loader alone", "look-ahead 1"):
        assert result["figures"][f"{mode} steps/s"]["count"] == 2
        turn = result["rounds"][0][mode]
        # 4 samples: two clips each and a positive.
        assert turn["clips_per_second"] == pytest.approx(12 * turn["steps_per_second"])
        assert 0 <= turn["waiting"] <= 1
    figures = result["figures"]
    assert figures["look-ahead 1 / data on the device"]["unit"] == "x"
    assert "look-ahead 1 lost to data" in figures and result["verdict"]["lookahead"] == 1
    # Three videos do not fill a batch of four: each gives two clips.
    assert result["config"]["data"]["clips_per_video"] == 2 and result["wrong"] == {}
    assert "MISSED" in " ".join(capsys.readouterr().out.split())

    events = json.loads((tmp_path / "t" / "profile" / "steps_1-3.rank0.json").read_text())["traceEvents"]
    steps = [event for event in events if event.get("name") == "backward" and event["cat"] == "user_annotation"]
    loaded = [event for event in events if event.get("cat") == "loader"]
    assert len(steps) == 3 and {"plan", "graph"} <= {event["name"] for event in loaded}
    begin, end = min(event["ts"] for event in steps), max(event["ts"] + event["dur"] for event in steps)
    assert any(begin < event["ts"] < end for event in loaded)
    assert {"wait", "backward", "loader: graph"} <= set(result["trace"]["ms_per_step"])


def test_mistakes_are_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more, told in (
        (["--lookahead", "-1"], "--lookahead -1"),
        (["--config", "nothing"], "--config nothing: no such file"),
        (["--set", "data.frames=none"], "data.frames"),
    ):
        assert main(["step", str(folder), *more]) == 2
        assert told in capsys.readouterr().err
