"""The verdict: what binds, what it costs, what would bind next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from bench.verdict import words
from bench.verdict.model import Change, Observed, binding, bounds, predict, without


@dataclass(frozen=True)
class Verdict:
    """What limits a pipeline.

    Attributes:
        stage: The stage that asks most of the resource that binds.
        resource: That resource: "cores", "window" or a pool's name.
        rate: Samples a second, measured.
        without: Samples a second if that stage took no time: up to the next limit. None: nothing else takes any.
        loss: Share of `without` that the stage costs, 0 to 1. None where `without` is.
        next_stage, next_resource: What would bind then; "" where nothing would.
        explained: The rate as a share of the lowest bound. Well below 1 the clocks do not tell what the rest waits for.
        bounds: Resource -> the highest rate that it allows, samples a second.
        alternatives: Change -> samples a second predicted after it, as far as they were asked for.
        sentences: All this in words.
    """

    stage: str
    resource: str
    rate: float
    without: float | None
    loss: float | None
    next_stage: str
    next_resource: str
    explained: float
    bounds: dict[str, float]
    alternatives: dict[str, float] = field(default_factory=dict)
    sentences: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "sentences": list(self.sentences)}

    def __str__(self) -> str:
        return "\n".join(self.sentences)


def judge(observed: Observed, alternatives: Sequence[Change] = ()) -> Verdict:
    """Says what binds and what would change it.

    Args:
        observed: A pipeline at work.
        alternatives: Changes whose effect was measured elsewhere, such as a transcode preset with its stages.

    Raises:
        ValueError: If no stage takes any time.
    """
    found = bounds(observed)
    resource, stage = binding(observed)
    freed = without(observed, stage.name)
    left = freed.of(observed)
    nothing_left = not bounds(left)
    rate_without = None if nothing_left else predict(observed, freed)
    next_resource, next_stage = ("", "") if nothing_left else _names(left)
    verdict = Verdict(
        stage=stage.name,
        resource=resource,
        rate=observed.rate,
        without=rate_without,
        loss=None if rate_without is None else max(0.0, 1 - observed.rate / rate_without),
        next_stage=next_stage,
        next_resource=next_resource,
        explained=observed.rate / found[resource],
        bounds=found,
        alternatives={change.name: predict(observed, change) for change in alternatives},
    )
    return replace(verdict, sentences=tuple(words.sentences(observed, verdict)))


def _names(observed: Observed) -> tuple[str, str]:
    resource, stage = binding(observed)
    return resource, stage.name
