"""What limits a loader, what it costs, and what would change it: docs/bench-verdict.md says how."""

from __future__ import annotations

from bench.verdict.judge import Verdict, judge
from bench.verdict.meter import Meter, Reading, observe
from bench.verdict.model import CORES, WINDOW, Change, Observed, Pool, Stage, bounds, predict, stages_of

__all__ = [
    "CORES",
    "WINDOW",
    "Change",
    "Meter",
    "Observed",
    "Pool",
    "Reading",
    "Stage",
    "Verdict",
    "bounds",
    "judge",
    "observe",
    "predict",
    "stages_of",
]
