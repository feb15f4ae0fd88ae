"""The search behind `bench sweep`, on made-up objectives with noise and a clock of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from bench.sweep.halving import Found, Halving, LeftOut, TooShort

START = 0.5


@dataclass
class Machine:
    """Settings are whole numbers. Measuring takes time and comes with noise that longer measuring averages out."""

    rate: Callable[[int], float]
    noise: float = 0.05
    drift: float = 0.0
    seed: int = 0
    now: float = 0.0
    asked: list[tuple[int, int, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)

    def __call__(self, setting: int, turn: int, seconds: float, limit: float) -> float:
        self.asked.append((setting, turn, seconds))
        self.now += min(START + seconds, limit)
        spell = 1 + self.drift * np.sin(turn)
        return float(self.rate(setting) * spell * (1 + self.noise * self.random.normal() / np.sqrt(seconds)))


def search(machine: Machine, default: int, settings: range, *, budget: float = 300.0) -> Found[int]:
    order = np.random.default_rng(machine.seed).permutation(list(settings)).tolist()
    halving = Halving(
        default,
        lambda incumbent, seen: [s for s in order if s not in seen],
        machine,
        budget=budget,
        shortest=1.0,
        cost=lambda setting: setting,
        seed=machine.seed,
        clock=lambda: machine.now,
    )
    return halving.run()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("default", "peak"), [(4, 12), (12, 4), (2, 1)])
def test_the_optimum_is_found_above_and_below_the_default(seed: int, default: int, peak: int) -> None:
    machine = Machine(lambda setting: 100.0 / (1 + 0.15 * abs(setting - peak)), drift=0.3, seed=seed)
    found = search(machine, default, range(1, 17))
    true = machine.rate(found.best) / machine.rate(default)
    assert machine.rate(found.best) >= 0.85 * machine.rate(peak)
    assert found.gain is not None and found.gain.low > 1
    assert found.gain.median == pytest.approx(true, rel=0.1)


def test_the_default_is_kept_when_all_are_equal() -> None:
    kept = 0
    for seed in range(20):
        found = search(Machine(lambda setting: 100.0, seed=seed), 8, range(1, 17))
        kept += found.best == 8
        if found.best == 8:
            assert found.gain is None and found.stopped
    # The interval holds the truth 95 times in 100, and two finalists each get a chance.
    assert kept >= 17


def test_a_gain_below_two_percent_keeps_the_default() -> None:
    found = search(Machine(lambda setting: 101.0 if setting == 3 else 100.0, noise=0.0), 8, range(1, 17))
    assert found.best == 8 and found.stopped == "the gain is within noise"


def test_a_tie_of_winners_is_won_by_the_cheapest_of_them() -> None:
    # 5 and more are all as good; the search goes on around a winner and comes down to the cheap end.
    machine = Machine(lambda setting: 100.0 if setting >= 5 else 50.0, noise=0.001)
    found = search(machine, 1, range(1, 9), budget=2000.0)
    assert found.best == 5


@pytest.mark.parametrize("budget", [40.0, 60.0, 180.0, 600.0])
def test_the_budget_is_kept(budget: float) -> None:
    machine = Machine(lambda setting: 100.0 + setting)
    search(machine, 8, range(1, 65), budget=budget)
    assert machine.now <= budget + 3 * (START + 1)
    assert machine.now >= 0.25 * budget


def test_more_time_tries_more_settings_and_measures_the_better_ones_longer() -> None:
    short, long = Machine(lambda setting: 100.0 + setting), Machine(lambda setting: 100.0 + setting)
    few = {trial.setting for trial in search(short, 8, range(1, 65), budget=60.0).trials}
    trials = search(long, 8, range(1, 65), budget=600.0).trials
    assert len(few) < len({trial.setting for trial in trials})
    rungs = [trial for trial in trials if trial.stage == "rung" and trial.bracket == 1]
    by_turn = {turn: [t for t in rungs if t.turn == turn] for turn in sorted({t.turn for t in rungs})}
    sizes = [len(part) for part in by_turn.values()]
    seconds = [part[0].seconds for part in by_turn.values()]
    assert len(sizes) >= 3 and sizes == sorted(sizes, reverse=True) and seconds == sorted(seconds)
    # The incumbent is among them in each rung.
    assert all(8 in {trial.setting for trial in part} for part in by_turn.values())


def test_a_budget_too_short_says_how_much_is_needed() -> None:
    with pytest.raises(TooShort) as raised:
        search(Machine(lambda setting: 100.0), 8, range(1, 17), budget=10.0)
    enough = search(Machine(lambda setting: 100.0), 8, range(1, 17), budget=raised.value.needed + 1)
    assert any(trial.stage == "rung" for trial in enough.trials)


def test_a_setting_that_fails_is_left_out_with_the_reason() -> None:
    machine = Machine(lambda setting: 100.0 + 10 * setting, noise=0.01)

    def measure(setting: int, turn: int, seconds: float, limit: float) -> float:
        if setting > 6:
            machine.now += START
            raise LeftOut("takes 9 GiB")
        return machine(setting, turn, seconds, limit)

    halving = Halving(
        2, lambda incumbent, seen: [s for s in range(1, 9) if s not in seen], measure, budget=600.0, shortest=1.0,
        cost=lambda setting: setting, clock=lambda: machine.now,
    )  # fmt: skip
    found = halving.run()
    assert found.best == 6
    assert found.left_out == {7: "takes 9 GiB", 8: "takes 9 GiB"}


def test_a_default_that_takes_all_the_time_is_a_budget_too_short() -> None:
    machine = Machine(lambda setting: 100.0)

    def measure(setting: int, turn: int, seconds: float, limit: float) -> float:
        machine.now += limit
        raise LeftOut("not under way")

    with pytest.raises(TooShort) as raised:
        Halving(
            1, lambda *_: [2], measure, budget=60.0, shortest=1.0, cost=lambda setting: setting,
            clock=lambda: machine.now,
        ).run()  # fmt: skip
    assert raised.value.needed > 60


def test_a_default_that_fails_ends_the_search() -> None:
    def measure(setting: int, turn: int, seconds: float, limit: float) -> float:
        raise LeftOut("no video")

    with pytest.raises(LeftOut, match="no video"):
        Halving(1, lambda *_: [2], measure, budget=600.0, shortest=1.0, cost=lambda setting: setting).run()
