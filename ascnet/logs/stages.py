"""What the stages of loading take while a run goes on: the numbers behind `rate/wait_share`."""

from __future__ import annotations

from typing import Any


class StageLoad:
    """Times of a loader's stages since the last look, for each sample, in this process."""

    def __init__(self, *streams: Any) -> None:
        """
        Args:
            streams: Loader and stream: what has `stats`, a `dali_pipes.StreamStats`; others, and None, are left out.
        """
        self._stats = [stats for stats in (getattr(stream, "stats", None) for stream in streams) if stats is not None]
        self._last = [(stats.times.snapshot(), stats.samples, stats.batches, stats.ready) for stats in self._stats]

    def read(self) -> dict[str, float]:
        """Means over the samples delivered since the last call; nothing where none was.

        Returns:
            stage/NAME_ms, milliseconds of the stage's thread, of these stage/NAME_blocked_ms neither running nor
            waiting for a core, and data/ready_share, the batches that were ready when they were asked for.
        """
        now = [(stats.times.snapshot(), stats.samples, stats.batches, stats.ready) for stats in self._stats]
        last, self._last = self._last, now
        samples = sum(new[1] - old[1] for new, old in zip(now, last, strict=True))
        batches = sum(new[2] - old[2] for new, old in zip(now, last, strict=True))
        if samples <= 0 or batches <= 0:
            return {}
        found: dict[str, float] = {}
        for (times, *_), (before, *_) in zip(now, last, strict=True):
            for name, total in times.items():
                spent = total - before[name] if name in before else total
                for key, seconds in ((f"stage/{name}_ms", spent.wall), (f"stage/{name}_blocked_ms", spent.blocked)):
                    found[key] = found.get(key, 0.0) + 1000 * seconds / samples
        found["data/ready_share"] = sum(new[3] - old[3] for new, old in zip(now, last, strict=True)) / batches
        return found
