"""Steps whose loss or gradient is not finite: told, counted, and the end of the run where too many come in a row."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ascnet.errors import TrainingError
from ascnet.parallel.distributed import Elsewhere, World
from ascnet.retrieval import Item

if TYPE_CHECKING:
    from dali_pipes import Corpus

SHOWN = 8
"""Videos that the error names; all are in skipped.jsonl."""


class Skips:
    """Counts the skipped steps in a row."""

    def __init__(self, most: int, run: Path, corpus: Corpus, world: World, say: Callable[[str], None]) -> None:
        """
        Args:
            most: Steps in a row that may be skipped.
            run: Folder of the run, for skipped.jsonl.
            corpus: The videos.
            world: The processes that share a batch.
            say: Shows a line.
        """
        self._most, self._file, self._corpus, self._world, self._say = most, run / "skipped.jsonl", corpus, world, say
        self._row, self._step, self._videos = 0, 0, [""]

    def saw(self, step: int, item: Item, finite: bool) -> bool:
        """Takes note of a step; all processes call it. False where there were too many in a row."""
        if finite:
            self._row = 0
            return True
        self._row, self._step = self._row + 1, step
        # Clips that are not finite themselves are the cause; otherwise any of the batch may be.
        good = item.batch.clips.isfinite().flatten(1).all(dim=1).tolist()
        own = [(self._corpus[video].uri, fine) for video, fine in zip(item.videos, good, strict=True)]
        told = [pair for videos in self._world.gather(own) for pair in videos]
        bad = [uri for uri, fine in told if not fine]
        self._videos = bad or [uri for uri, _ in told]
        if self._world.is_first:
            line = {"step": step, "clips_not_finite": bool(bad), "videos": self._videos}
            with open(self._file, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        self._say(
            f"warning: step {step} is skipped: its loss or gradient is not finite ({self._row} in a row; {self._file})"
        )
        return self._row <= self._most

    def give_up(self) -> None:
        """Ends the run.

        Raises:
            TrainingError: On the first process.
        """
        if not self._world.is_first:
            raise Elsewhere
        more = f" and {len(self._videos) - SHOWN} more ({self._file})" if len(self._videos) > SHOWN else ""
        raise TrainingError(
            f"the loss or its gradient is not finite at step {self._step}, the last of {self._row} in a row "
            f"(optim.max_skipped is {self._most}); videos: {', '.join(self._videos[:SHOWN])}{more}: look at these, "
            "lower optim.lr, set optim.clip_norm, or use precision=fp32"
        )
