"""Generated videos that the loader's tests share; a test module takes them with ``pytest_plugins``."""

from __future__ import annotations

import pytest
from loader_checks import corpus_of, make_plain, make_zoo

from dali_pipes import Corpus


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """One video of each kind, 60 frames of 96 x 96, frame i carrying the number i; see loader_checks.ZOO."""
    return make_zoo(tmp_path_factory.mktemp("zoo"), 96)


@pytest.fixture(scope="session")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Four MJPEG videos, which DALI decodes everywhere on the CPU, and three H.264 ones, which it does not."""
    folder = tmp_path_factory.mktemp("mixed")
    return corpus_of(make_plain(folder, 4, 64) + make_plain(folder, 3, 64, codec="h264", suffix=".mp4"))
