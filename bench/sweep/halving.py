"""The quickest of many settings by successive halving: all are measured briefly, the better half longer, and so on.

From Karnin, Koren & Somekh (2013): the time is split evenly over the rungs, all who are left in a rung are measured for
as long as each other, and the worse half leaves. From Jamieson & Talwalkar (2016): what earlier rungs found counts on.

Ours: the incumbent is measured in every rung, in random order among the others, and scores are ratios to it, so that
slow spells of the machine fall out; of equal scores the cheaper setting stays. Who comes out on top has been picked for
its luck as well; so it meets the incumbent and the default again in rounds of their own, and only those decide. After a
win the search goes on around the winner; it ends when the gain is within noise. Pure: time passes only in the callable
that measures.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np

from bench.measure.stats import Estimate, estimate, ratios

S = TypeVar("S", bound=Hashable)

# A gain below this is not worth a file of settings.
LEAST_GAIN = 0.02
ROUNDS = 7
# So many decide as well where the time is over before the last.
FEWEST_ROUNDS = 5
# Longest measurement, in shortest ones; more rounds would help more than longer ones.
LONGEST = 10
FINALISTS = 2
# How many times slower than usual a measurement may be.
PATIENCE = 10
# Of the time left: what a bracket (rungs and rounds) may take, and its rungs of that.
BRACKET, RUNGS = 0.6, 0.5


class LeftOut(Exception):
    """A setting cannot take part; the text says why."""


class TooShort(Exception):
    """The budget does not do for the least search.

    Attributes:
        needed: Seconds that would.
    """

    def __init__(self, needed: float) -> None:
        super().__init__(f"{needed:.0f} s are needed")
        self.needed = needed


class _Over(Exception):
    """The time is over."""


@dataclass(frozen=True)
class Trial(Generic[S]):
    """One measurement.

    Attributes:
        setting: What was measured.
        stage: "warm-up", "first", "rung" or "round".
        bracket: Number of the bracket, from 1; 0 before it.
        turn: Settings of the same turn were measured one after another, on the same work.
        seconds: Asked for.
        rate: More is better; None where it was left out.
        reason: Why it was left out.
    """

    setting: S
    stage: str
    bracket: int
    turn: int
    seconds: float
    rate: float | None
    reason: str = ""


@dataclass
class Found(Generic[S]):
    """What a search came to.

    Attributes:
        best: The winner; the default where nothing beats it by more than the noise.
        default: What it was held against.
        gain: Best over default in the rounds that both took part in; None where the default is kept.
        stopped: Why the search ended.
        rounds: For every round, setting -> rate.
        trials: All measurements, in order.
        left_out: Setting -> why it did not take part.
    """

    best: S
    default: S
    gain: Estimate | None = None
    stopped: str = ""
    rounds: list[dict[S, float]] = field(default_factory=list)
    trials: list[Trial[S]] = field(default_factory=list)
    left_out: dict[S, str] = field(default_factory=dict)

    def shared(self, *settings: S) -> list[dict[S, float]]:
        """The rounds in which all of these took part."""
        return [turn for turn in self.rounds if all(setting in turn for setting in settings)]


class Halving(Generic[S]):
    """A search.

    Args:
        default: The setting to beat.
        propose: (incumbent, settings seen) -> settings to try, the most promising first.
        measure: (setting, turn, seconds, limit) -> rate. Takes about `seconds` and what it takes to start, never much
            more than `limit`; may raise `LeftOut`.
        budget: Seconds in all.
        shortest: Seconds of the shortest measurement.
        cost: What a setting takes; of equals the one that costs less wins.
        seed: Of the orders.
        clock: Seconds.
        told: Called with a line of text at each rung and duel.
    """

    def __init__(
        self,
        default: S,
        propose: Callable[[S, frozenset[S]], Sequence[S]],
        measure: Callable[[S, int, float, float], float],
        *,
        budget: float,
        shortest: float,
        cost: Callable[[S], Any],
        seed: int = 0,
        clock: Callable[[], float] = time.monotonic,
        told: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.propose, self.shortest, self.cost, self.told = propose, shortest, cost, told
        self._measure_now, self._clock = measure, clock
        self._random = np.random.default_rng(seed)
        self._deadline = clock() + budget
        self._budget = budget
        self._overheads: list[float] = []
        self._bracket = self._turn = 0
        self._seen = {default}
        self.incumbent = default
        self.found = Found(default, default)

    def run(self) -> Found[S]:
        """Search.

        Raises:
            LeftOut: If the default cannot be measured.
            TooShort: If the budget is too short for any search.
        """
        found = self.found
        self._begin()
        try:
            while not found.stopped:
                self._bracket += 1
                self._one_bracket()
        except _Over:
            found.stopped = "the time was over"
        if self.incumbent != found.default:
            gain = self._ratio(found.shared(self.incumbent, found.default), self.incumbent, found.default)
            if _better(gain):
                found.best, found.gain = self.incumbent, gain
            else:
                found.stopped = "the gain did not hold in later rounds"
        return found

    @property
    def _left(self) -> float:
        return self._deadline - self._clock()

    @property
    def _overhead(self) -> float:
        """Seconds that a measurement takes beside those that it is asked for."""
        return max(0.0, float(np.median(self._overheads[-8:])))

    @property
    def _each(self) -> float:
        return self._overhead + self.shortest

    def _length(self, seconds: float) -> float:
        """How long to count in a measurement that may take so long in all."""
        return min(max(self.shortest, seconds - self._overhead), LONGEST * self.shortest)

    def _begin(self) -> None:
        """The default twice: the first time warms up, the second tells what a measurement takes."""
        default = self.found.default
        try:
            self._measure(default, "warm-up", self.shortest)
            self._overheads.clear()
            self._turn += 1
            self._measure(default, "first", self.shortest)
        except _Over:
            raise TooShort(3 * ROUNDS / BRACKET * self._budget) from None
        least = 2 * ROUNDS * self._each
        if self._left < least / BRACKET:
            raise TooShort(self._budget - self._left + least / BRACKET)

    def _one_bracket(self) -> None:
        incumbent, whole = self.incumbent, BRACKET * self._left
        candidates = [s for s in self.propose(incumbent, frozenset(self._seen)) if s not in self._seen]
        if not candidates:
            self.found.stopped = "nothing is left to try"
            return
        count = _starters(len(candidates), RUNGS * whole, self._each)
        candidates = candidates[:count]
        self._seen.update(candidates)
        finalists = self._rungs(candidates, RUNGS * whole)
        won = self._duel(finalists, (1 - RUNGS) * whole) if finalists else None
        if won is None:
            self.found.stopped = "the gain is within noise"
        else:
            self.incumbent = won

    def _rungs(self, candidates: list[S], seconds: float) -> list[S]:
        """Halve until the finalists are left; those of them that are worth a duel, the best first."""
        scores: dict[S, list[tuple[float, float]]] = {setting: [] for setting in candidates}
        rungs = max(1, _rungs_of(len(candidates)))
        for rung in range(rungs):
            each = self._length(seconds / rungs / (len(candidates) + 1))
            self.told(
                f"bracket {self._bracket}, rung {rung + 1} of {rungs}: {len(candidates)} settings, "
                f"{each:.1f} s each, {self._left:.0f} s left"
            )
            rates = self._turn_of([self.incumbent, *candidates], "rung", each)
            candidates = [setting for setting in candidates if setting in rates]
            for setting in candidates:
                scores[setting].append((each, rates[setting] / rates[self.incumbent]))
            candidates.sort(key=lambda setting: (-_grade(_mean(scores[setting])), self.cost(setting)))
            candidates = candidates[: max(FINALISTS, math.ceil(len(candidates) / 2))]
        return [s for s in candidates[:FINALISTS] if self._worth(s, _mean(scores[s]))]

    def _worth(self, setting: S, score: float) -> bool:
        cheaper = self.incumbent != self.found.default and self.cost(setting) < self.cost(self.incumbent)
        return score > (1 - LEAST_GAIN if cheaper else 1)

    def _duel(self, finalists: list[S], seconds: float) -> S | None:
        """Fresh rounds of default, incumbent and finalists; the new incumbent, or None where there is none."""
        default, incumbent = self.found.default, self.incumbent
        settings = list(dict.fromkeys([default, incumbent, *finalists]))
        while ROUNDS * len(settings) * self._each > self._left and settings[-1] in finalists:
            settings.pop()
        finalists = [setting for setting in finalists if setting in settings]
        if not finalists:
            raise _Over
        each = self._length(seconds / ROUNDS / len(settings))
        self.told(f"bracket {self._bracket}, {ROUNDS} rounds: {len(settings)} settings, {each:.1f} s each")
        rounds: list[dict[S, float]] = []
        for _ in range(ROUNDS):
            try:
                turn = self._turn_of([s for s in settings if s not in self.found.left_out], "round", each)
            except _Over:
                if len(rounds) < FEWEST_ROUNDS or incumbent in self.found.left_out:
                    raise
                break
            rounds.append(turn)
            self.found.rounds.append(turn)
        finalists = [setting for setting in finalists if setting not in self.found.left_out]

        def better(setting: S, other: S) -> bool:
            return _better(self._ratio(rounds, setting, other))

        def tied(setting: S, other: S) -> bool:
            ratio = self._ratio(rounds, setting, other)
            return ratio.low <= 1 <= ratio.high or abs(ratio.median - 1) < LEAST_GAIN

        quicker = [s for s in finalists if better(s, incumbent) and better(s, default)]
        if quicker:
            top = max(quicker, key=lambda setting: self._ratio(rounds, setting, incumbent).median)
            return min((s for s in quicker if s == top or tied(s, top)), key=self.cost)
        if incumbent == default:
            return None
        cheaper = [
            setting
            for setting in finalists
            if self.cost(setting) < self.cost(incumbent) and tied(setting, incumbent) and better(setting, default)
        ]
        return min(cheaper, key=self.cost, default=None)

    def _ratio(self, rounds: Iterable[dict[S, float]], setting: S, other: S) -> Estimate:
        turns = list(rounds)
        return estimate(ratios([turn[setting] for turn in turns], [turn[other] for turn in turns]))

    def _turn_of(self, settings: Sequence[S], stage: str, seconds: float) -> dict[S, float]:
        """All of them once, in random order; without those that had to be left out."""
        self._turn += 1
        rates = {}
        for place in self._random.permutation(len(settings)):
            rate = self._measure(settings[place], stage, seconds)
            if rate is not None:
                rates[settings[place]] = rate
        return rates

    def _measure(self, setting: S, stage: str, seconds: float) -> float | None:
        left = self._left
        if left < seconds and self._overheads:
            raise _Over
        # Some settings are many times slower than others; they must not eat up the time of all.
        known = setting in (self.incumbent, self.found.default)
        limit = left if known else min(left, PATIENCE * (self._overhead + seconds))
        begun, rate, reason = self._clock(), None, ""
        try:
            rate = self._measure_now(setting, self._turn, seconds, limit)
        except LeftOut as error:
            reason = str(error)
        self.found.trials.append(Trial(setting, stage, self._bracket, self._turn, seconds, rate, reason))
        if rate is None:
            if setting == self.found.default:
                raise _Over if self._left <= 0 else LeftOut(reason)
            self.found.left_out[setting] = reason
            if setting == self.incumbent:
                self.incumbent = self.found.default
                raise _Over
        else:
            self._overheads.append(self._clock() - begun - seconds)
        return rate


def _better(ratio: Estimate) -> bool:
    return ratio.low > 1 and ratio.median >= 1 + LEAST_GAIN


def _mean(scores: Sequence[tuple[float, float]]) -> float:
    """Mean of ratios, weighted by the seconds that they were measured for."""
    return sum(weight * ratio for weight, ratio in scores) / sum(weight for weight, _ in scores)


def _grade(score: float) -> int:
    """Scores in steps of the least gain: smaller differences count for nothing."""
    return round(math.log(score) / math.log1p(LEAST_GAIN))


def _rungs_of(count: int) -> int:
    """Rungs until only the finalists are left."""
    return max(0, math.ceil(math.log2(count / FINALISTS)))


def _starters(count: int, seconds: float, each: float) -> int:
    """How many of `count` settings can start, where all rungs together may take so long; at least 1."""
    while count > 1 and (count + 1) * each * max(1, _rungs_of(count)) > seconds:
        count -= 1
    return count
