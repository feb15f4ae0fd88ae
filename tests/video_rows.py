"""Corpus rows of videos that need not exist, for what looks at rows only: sampler and frame numbers."""

from __future__ import annotations

from typing import Any

from dali_pipes import Corpus


def row(i: int, frames: int, *, split: str = "", error: str = "", rate: float = 25.0, **columns: Any) -> dict[str, Any]:
    """One row; columns given here replace the usual ones."""
    plain = {
        "uri": f"/videos/{i}.mp4", "label": "", "split": split, "group": "", "codec": "h264", "pixel_format": "yuv420p",
        "width": 64, "height": 64, "rotation": 0, "frames": frames, "time_base_num": 1, "time_base_den": 1000,
        "start": 0, "step": 1000 / rate, "rate": rate, "constant": True, "key_frames": [0], "key_timestamps": [0],
        "timestamps": None, "numbering": "pts", "uniform": True, "sliceable": True, "duration": frames / rate,
        "bytes": 1, "mtime_ns": 0, "error": error, "notes": "",
    }  # fmt: skip
    return plain | columns


def corpus_of_lengths(*lengths: int, **columns: Any) -> Corpus:
    """A corpus of videos of so many frames each."""
    return Corpus.from_rows([row(i, n, **columns) for i, n in enumerate(lengths)])
