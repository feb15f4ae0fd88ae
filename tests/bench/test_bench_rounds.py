"""Interleaved rounds, steady state, CPU time, goals."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence

import pytest
import torch
from bench_helpers import Sequential, setting

from bench.measure import goals
from bench.measure.processes import cpu_seconds, resident
from bench.measure.rounds import Figure, Round, measure, summarise, time_epoch

CPU = torch.device("cpu")


class Counter(Sequential):
    """Delivers empty tensors and remembers how many were taken."""

    taken = 0

    def epoch(self, batches: Sequence[Sequence[int]]) -> Iterator[torch.Tensor]:
        self.asked.append([list(batch) for batch in batches])
        for batch in batches:
            self.taken += 1
            yield torch.empty(len(batch))


def test_an_epoch_is_timed_between_its_lead_in_and_its_lead_out_and_is_emptied() -> None:
    candidate = Counter([], setting())
    figure = time_epoch(candidate, [[0, 1], [2, 3], [4]], lead=2, device=CPU)
    assert candidate.asked == [[[0, 1], [2, 3], [0, 1], [2, 3], [4], [0, 1], [2, 3]]]
    assert candidate.taken == 7
    assert figure.samples == 5 and figure.samples_per_second == pytest.approx(5 / figure.seconds)


def test_all_candidates_of_a_round_get_the_same_order_and_rounds_differ() -> None:
    candidates = {name: Counter([], setting()) for name in "abc"}
    turns = measure(candidates, range(12), rounds=6, warmup=1, batch_size=4, lead=0, seed=0, device=CPU)
    assert len(turns) == 6
    asked = candidates["a"].asked
    assert asked == candidates["b"].asked == candidates["c"].asked and len(asked) == 7
    assert len({str(order) for order in asked}) > 1
    assert all(sorted(number for batch in order for number in batch) == list(range(12)) for order in asked)
    assert len({tuple(turn.order) for turn in turns}) > 1
    assert all(sorted(turn.order) == ["a", "b", "c"] for turn in turns)


def test_warm_up_rounds_are_told_and_dropped() -> None:
    told = []
    measure({"a": Counter([], setting())}, range(4), rounds=2, warmup=2, batch_size=2, lead=1, seed=0, device=CPU,
            told=lambda name, number, figure: told.append(number))  # fmt: skip
    assert told == [-2, -1, 0, 1]


def test_the_ratio_is_that_of_each_round_and_ours_has_none() -> None:
    rounds = [
        Round(["ours", "x"], {"ours": Figure(4, 1, rate, 0.1), "x": Figure(4, 1, rate / 2, 0.2)})
        for rate in (10.0, 4.0, 6.0)
    ]
    summary = summarise(rounds)
    assert summary["x"]["ratio_of_ours"]["median"] == summary["x"]["ratio_of_ours"]["low"] == 2.0
    assert "ratio_of_ours" not in summary["ours"]
    assert summary["ours"]["samples_per_second"]["median"] == 6.0


def test_cpu_time_counts_children_that_run_and_children_that_have_ended() -> None:
    burn = "import time\nwhile time.process_time() < 0.4: pass\n"
    before = cpu_seconds()
    subprocess.run([sys.executable, "-c", burn], check=True)
    ended = cpu_seconds()
    assert ended - before >= 0.3
    wait = "import sys; print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", burn + wait]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None and child.stdout is not None
        child.stdout.readline()
        assert cpu_seconds() - ended >= 0.3
        child.stdin.close()


def test_memory_counts_what_children_hold() -> None:
    before = resident()
    hold = "import sys; held = b'x' * (64 << 20); print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", hold]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None and child.stdout is not None
        child.stdout.readline()
        assert resident() - before >= 60
        child.stdin.close()
    assert resident() - before < 60


def _summary(**reached: float) -> dict[str, dict[str, dict[str, float]]]:
    return {name: {"ratio_of_ours": {"median": ratio}} for name, ratio in reached.items()}


def test_a_goal_is_held_against_the_quickest_peer_of_its_kind() -> None:
    kinds = {"slow": "usual", "quick": "usual", "good": "best"}
    verdicts = goals.judge({"usual": 2.0, "best": 1.0}, "shared", kinds, _summary(slow=4.0, quick=1.9, good=1.0))
    assert [(v.peer, v.ratio, v.met) for v in verdicts] == [("quick", 1.9, False), ("good", 1.0, True)]


def test_a_goal_that_could_not_be_measured_is_missed() -> None:
    (verdict,) = goals.judge({"best": 1.0}, "shared", {"good": "best"}, {})
    assert verdict.ratio is None and not verdict.met


def test_goals_are_read_from_text_and_mistakes_are_named() -> None:
    assert goals.parse("usual=2.0,best=1") == {"usual": 2.0, "best": 1.0}
    for text in ("usual", "usual=x", "fastest=1"):
        with pytest.raises(argparse.ArgumentTypeError, match=text):
            goals.parse(text)
