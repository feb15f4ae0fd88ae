"""Shared fixtures: the folder of real videos where there is one, and small generated videos everywhere else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def videos() -> Path:
    """The folder of real test videos (see docs/development.md); tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("DALI_PIPES_VIDEOS", ROOT.parent / "shared" / "videos"))
    if not folder.is_dir():
        pytest.skip(f"no real test videos at {folder}; set DALI_PIPES_VIDEOS to a folder that holds them")
    return folder
