"""Which copy of a corpus to advise."""

from __future__ import annotations

from dali_pipes.corpus.transcode import PRESETS


def advised(where: str) -> str:
    """Words that name the command, its preset for a device (cpu or gpu) and what it does."""
    preset = PRESETS[where]
    return (
        f"`dali-pipes transcode --preset {where}` makes copies with GOPs of {preset.gop} frames "
        f"and a short side of {preset.short_side} pixels"
    )
