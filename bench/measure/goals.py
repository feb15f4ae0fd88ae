"""Goals that a benchmark can miss."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

KINDS = ("usual", "best", "dali")


@dataclass(frozen=True)
class Verdict:
    """One goal in one setting.

    Attributes:
        window: The setting.
        kind: Kind of peer that ours is set beside.
        goal: Least ratio of ours to the quickest peer of that kind.
        peer: The quickest peer of that kind that was right; "" where there is none.
        ratio: Median ratio reached; None where it could not be measured.
        met: Whether the goal is reached. What could not be measured is missed.
    """

    window: str
    kind: str
    goal: float
    peer: str
    ratio: float | None
    met: bool

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def parse(text: str) -> dict[str, float]:
    """`usual=2.0,best=1.0` -> kind of peer -> least ratio, for argparse."""
    goals = {}
    for part in text.split(","):
        kind, _, value = part.partition("=")
        try:
            goals[kind.strip()] = float(value)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{part!r}: expected KIND=RATIO, for example usual=2.0") from None
        if kind.strip() not in KINDS:
            raise argparse.ArgumentTypeError(f"{part!r}: the kind must be one of {', '.join(KINDS)}")
    return goals


def judge(
    goals: Mapping[str, float], window: str, kinds: Mapping[str, str], summary: Mapping[str, Mapping[str, Any]]
) -> list[Verdict]:
    """Hold ours against the quickest peer of each kind, the one with the lowest ratio.

    Args:
        goals: Kind of peer -> least ratio.
        window: The setting that was measured.
        kinds: Candidate -> its kind.
        summary: Candidate -> figures, of those that were ranked.
    """
    verdicts = []
    for kind, goal in goals.items():
        reached = {
            name: float(figures["ratio_of_ours"]["median"])
            for name, figures in summary.items()
            if kinds.get(name) == kind and "ratio_of_ours" in figures
        }
        peer = min(reached, key=lambda name: reached[name], default="")
        ratio = reached.get(peer)
        verdicts.append(Verdict(window, kind, goal, peer, ratio, ratio is not None and ratio >= goal))
    return verdicts
