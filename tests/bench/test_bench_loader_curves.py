"""`python -m bench loader --over`: curves, their knee, and how they are measured."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from bench_helpers import setting
from make_videos import make_video
from rich.console import Console

from bench.__main__ import main
from bench.measure.check import Check
from bench.measure.plan import Request
from bench.measure.rounds import Figure, Round, figures, lead
from bench.peers import CANDIDATES, Candidate, Setting, curves
from bench.peers.curves import Axis, axis, curve, knee, points, trace
from dali_pipes.errors import DataError

WORKERS = Axis("workers", (1, 2, 4))
REQUESTS = [Request(number, "a", 64, 48, (1.0,), (0,), ((0, 1),)) for number in range(8)]


def turns(*rates: float) -> list[Figure]:
    return [Figure(8, 8 / rate, rate, 1 / rate) for rate in rates]


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ([10, 20, 40, 80], 8),  # still rising at the end
        ([10, 20, 38.5, 40], 4),  # within 5 % of the best
        ([10, 20, 37.9, 40], 8),  # not quite
        ([10, 30, 20, 5], 2),  # falls after the peak
        ([10, 29, 30, 5], 2),  # and flat before it
        ([30, 30, 30, 30], 1),
        ([40, 30, 20, 10], 1),  # more is always worse
    ],
)
def test_the_knee_is_the_smallest_value_as_good_as_the_best(rates: list[float], expected: int) -> None:
    assert knee([1, 2, 4, 8], [[rate] * 5 for rate in rates]) == expected


def test_values_that_noise_does_not_tell_apart_are_equally_good() -> None:
    steady = [10.0, 10.0, 10.0, 10.0, 10.0]
    quicker = [11.5, 11.2, 11.4, 11.6, 11.3]
    unclear = [9.0, 12.0, 11.0, 9.5, 12.5]
    assert knee([1, 2], [steady, quicker]) == 2
    assert knee([1, 2], [steady, unclear]) == 1
    # A slow spell that met both values in the same round says nothing against the difference.
    spells = [1.0, 0.5, 1.0, 0.4, 0.8]
    slowed = [[rate * spell for rate, spell in zip(one, spells, strict=True)] for one in (steady, quicker)]
    assert knee([1, 2], slowed) == 2


def test_gain_and_efficiency_are_against_the_first_value_round_by_round() -> None:
    found = points([2, 4, 8], [turns(10.0, 5.0), turns(20.0, 10.0), turns(30.0, 15.0)], linear=True)
    assert [point["value"] for point in found] == [2, 4, 8]
    assert [point["gain"]["median"] for point in found] == [1.0, 2.0, 3.0]
    assert [point["gain"]["low"] for point in found] == [1.0, 2.0, 3.0]
    assert [point["efficiency"]["median"] for point in found] == [1.0, 1.0, 0.75]
    assert found[1]["samples_per_second"]["median"] == 15.0
    assert "efficiency" not in points([1, 2], [turns(1.0), turns(2.0)], linear=False)[0]


def test_a_candidate_that_was_wrong_at_a_value_has_no_point_there() -> None:
    rounds = {
        value: [Round(list(rates), {name: turns(rate)[0] for name, rate in rates.items()})]
        for value, rates in {1: {"a": 10.0}, 2: {"a": 20.0, "b": 5.0}, 4: {"a": 15.0, "b": 9.0}}.items()
    }
    found = curve(WORKERS, rounds)
    assert (found["a"]["knee"], found["a"]["best"]) == (2, 2)
    assert [point["value"] for point in found["b"]["points"]] == [2, 4]
    assert found["b"]["points"][1]["efficiency"]["median"] == pytest.approx(0.9)


class Recorder(Candidate):
    """Delivers empty tensors, and remembers what was opened, asked for and closed."""

    kind, notes = "best", ""
    log: ClassVar[list[tuple[str, Setting]]] = []
    orders: ClassVar[list[list[int]]] = []
    open, most = 0, 0

    def __init__(self, requests: Sequence[Request], setting: Setting) -> None:
        self.setting = setting
        Recorder.open += 1
        Recorder.most = max(Recorder.most, Recorder.open)
        Recorder.log.append(("open", setting))

    def epoch(self, batches: Sequence[Sequence[int]]) -> Iterator[torch.Tensor]:
        Recorder.log.append(("epoch", self.setting))
        ends = max(self.setting.workers, self.setting.prefetch)
        Recorder.orders.append([number for batch in batches[ends : len(batches) - ends] for number in batch])
        assert all(len(batch) <= self.setting.batch_size for batch in batches)
        for batch in batches:
            yield torch.empty(len(batch))

    def close(self) -> None:
        Recorder.open -= 1


@pytest.fixture(autouse=True)
def fresh() -> None:
    Recorder.log, Recorder.orders, Recorder.open, Recorder.most = [], [], 0, 0


def right(opened: Mapping[str, Candidate], at: Setting) -> dict[str, Check]:
    return {name: Check() for name in opened}


def traced(along: Axis, *, keep: bool, wrong: tuple[str, int] | None = None, rounds: int = 3) -> dict:
    def check(opened: Mapping[str, Candidate], at: Setting) -> dict[str, Check]:
        return {name: Check(reason="other frames" if (name, at.workers) == wrong else "") for name in opened}

    kinds = {"ours": Recorder, "peer": Recorder}
    return trace(along, kinds, REQUESTS, setting(), rounds=rounds, warmup=1, seed=0, window="shared", check=check,
                 keep=keep)  # fmt: skip


@pytest.mark.parametrize("along", [WORKERS, Axis("batch-size", (2, 4)), Axis("prefetch", (1, 2, 4))])
@pytest.mark.parametrize("keep", [True, False])
def test_only_the_axis_changes_and_everything_is_measured_once_a_round(along: Axis, keep: bool) -> None:
    found = traced(along, keep=keep)
    field = curves.AXES[along.name]
    plain = setting()
    assert {getattr(at, field) for _, at in Recorder.log} == set(along.values)
    for other in set(curves.AXES.values()) - {field}:
        assert {getattr(at, other) for _, at in Recorder.log} == {getattr(plain, other)}
    assert {value: len(rounds) for value, rounds in found["rounds"].items()} == {str(v): 3 for v in along.values}
    assert set(found["candidates"]) == {"ours", "peer"}
    assert f"ours / peer (shared, {along.name}={along.values[-1]})" in found["figures"]
    assert len(found["figures"]["ours pairs/s (shared, " + f"{along.name}={along.values[0]})"]["values"]) == 3
    assert found["axis"] == along.name and along.name not in found["around"]
    assert Recorder.open == 0


def test_rounds_go_through_the_values_in_changing_order_with_the_same_requests() -> None:
    traced(WORKERS, keep=True, rounds=6)
    epochs = [at.workers for word, at in Recorder.log if word == "epoch"]
    of_round = [tuple(epochs[at : at + 6]) for at in range(0, len(epochs), 6)]
    assert all(sorted(one) == [1, 1, 2, 2, 4, 4] for one in of_round) and len(set(of_round)) > 1
    asked = [Recorder.orders[at : at + 6] for at in range(0, len(epochs), 6)]
    assert all(order == same[0] for same in asked for order in same)
    assert len({tuple(same[0]) for same in asked}) > 1


def test_memory_stays_bounded_where_not_all_may_be_open() -> None:
    traced(WORKERS, keep=True)
    assert Recorder.most == 6
    Recorder.most = 0
    traced(WORKERS, keep=False)
    assert Recorder.most == 2
    opened = [at.workers for word, at in Recorder.log if word == "open"][6:]
    assert sorted(opened) == sorted([1, 1, 2, 2, 4, 4] * 3)


@pytest.mark.parametrize("keep", [True, False])
def test_a_candidate_is_not_timed_where_it_delivers_other_frames(keep: bool) -> None:
    found = traced(WORKERS, keep=keep, wrong=("peer", 2))
    assert found["checks"]["2"]["peer"]["reason"] == "other frames"
    assert [point["value"] for point in found["candidates"]["peer"]["points"]] == [1, 4]
    assert [point["value"] for point in found["candidates"]["ours"]["points"]] == [1, 2, 4]
    assert "peer pairs/s (shared, workers=2)" not in found["figures"]


def test_who_was_wrong_is_in_the_table_and_why_below_it(capsys: pytest.CaptureFixture[str]) -> None:
    curves.print_curve(traced(WORKERS, keep=True, wrong=("peer", 2)), Console(width=130))
    shown = capsys.readouterr().out
    assert shown.count("WRONG") == 2 and "peer, workers 2: WRONG, not timed: other frames" in shown


def test_all_stay_open_only_as_far_as_memory_goes() -> None:
    few, many = setting(workers=1), setting(workers=100_000)
    assert curves.fits([CANDIDATES["ours"]], [few, many])
    assert curves.fits([CANDIDATES["pyav-best"]], [])
    assert not curves.fits([CANDIDATES["pyav-best"]], [few, many])
    assert not curves.fits([CANDIDATES["ours"]], [setting(device=torch.device("cuda"))])


def test_axes_are_read_from_text_and_mistakes_are_named() -> None:
    assert axis("batch-size=8,2,2,4") == Axis("batch-size", (2, 4, 8))
    for text in ("threads=1,2", "workers", "workers=1,x", "workers=2", "prefetch=0,1"):
        with pytest.raises(argparse.ArgumentTypeError, match=text):
            axis(text)
    with pytest.raises(DataError, match="--over workers: given twice"):
        curves.once([WORKERS, WORKERS])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("curves")
    make_video(root / "a" / "one.avi", codec="mjpeg", frames=20, size=(64, 48))
    make_video(root / "b" / "two.webm", codec="vp9", frames=20, size=(64, 48))
    return root


SMALL = ["--frames", "4", "--size", "32", "--pairs", "4", "--batch-size", "2", "--rounds", "2", "--warmup", "0"]


def test_the_command_measures_prints_and_writes_curves(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "curves.json"
    arguments = ["loader", str(folder), *SMALL, "--candidates", "ours,dali-decoder", "--window", "shared"]
    arguments += ["--over", "batch-size=1,2", "--over", "prefetch=1,2", "--output", str(output)]
    assert main(arguments) == 0
    result = json.loads(output.read_text())
    assert [one["axis"] for one in result["curves"]] == ["batch-size", "prefetch"]
    for one in result["curves"]:
        assert set(one["candidates"]) == {"ours", "dali-decoder"} and one["window"] == "shared"
        assert all(known["knee"] in (1, 2) for known in one["candidates"].values())
        assert all(not check["reason"] for checks in one["checks"].values() for check in checks.values())
    names = set(result["figures"])
    assert {"ours pairs/s (shared)", "ours CPU s/pair (shared)", "ours / dali-decoder (shared)"} <= names
    assert {f"ours pairs/s (shared, prefetch={value})" for value in (1, 2)} <= names
    assert set(result["windows"]) == {"shared"}
    shown = capsys.readouterr().out
    assert "batch-size 1" in shown and "prefetch 2" in shown and "knee" in shown
    assert main(["compare", str(output), str(output), "--only", "ratios"]) == 0


def test_curves_alone_measure_no_window(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "curves.json"
    arguments = ["loader", str(folder), *SMALL, "--candidates", "ours", "--curves-only"]
    assert main([*arguments, "--over", "workers=1,2", "--output", str(output)]) == 0
    result = json.loads(output.read_text())
    assert result["windows"] == {} and result["arguments"]["candidates"] == ["ours"]
    assert result["curves"][0]["window"] == "independent"
    assert main(arguments) == 2
    assert "--curves-only: needs --over" in capsys.readouterr().err


def test_curves_are_by_default_of_ours_and_the_best_of_each_tool() -> None:
    from bench.commands.loader import CURVED

    chosen = {name for name, kind in CANDIDATES.items() if kind.kind in CURVED}
    best = {"decord-best", "torchcodec-best", "pyav-best"}
    assert chosen == {"ours", "ours-threads", "dali-decoder", "dali-reader"} | best


def test_figures_keep_the_values_of_their_rounds_and_ratios_are_taken_within_them() -> None:
    rounds = [Round(["ours", "x"], {"ours": turns(2 * rate)[0], "x": turns(rate)[0]}) for rate in (10.0, 4.0, 5.0)]
    found = figures(rounds, "shared")
    assert set(found) == {f"{name} {what} (shared)" for name in ("ours", "x") for what in ("pairs/s", "CPU s/pair")} | {
        "ours / x (shared)"
    }
    assert found["x pairs/s (shared)"]["values"] == [10.0, 4.0, 5.0] and found["x pairs/s (shared)"]["median"] == 5.0
    assert found["ours / x (shared)"]["values"] == [2.0, 2.0, 2.0] and found["ours / x (shared)"]["unit"] == "x"
    assert found["x CPU s/pair (shared)"]["better"] == "lower"
    assert figures([], "shared") == {}


def test_the_clock_starts_when_all_that_is_prepared_ahead_is_under_way() -> None:
    assert lead(setting(workers=4)) == 4
    assert lead(setting(workers=1, prefetch=3)) == 3
