"""What one mode did in one round of `bench step`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Turn:
    """One mode in one round.

    Attributes:
        steps_per_second: Steps a second.
        clips_per_second: Clips a second that went through them.
        waiting: Share of the time spent waiting for clips.
        cpu_seconds_per_step: CPU time of this process and its children.
        loads: What the monitor saw meanwhile.
    """

    steps_per_second: float
    clips_per_second: float
    waiting: float
    cpu_seconds_per_step: float
    loads: dict[str, float]
