"""What a user is told who asks for Ray and has none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from make_videos import make_video

from dali_pipes.corpus import Corpus


@pytest.mark.parametrize("command", ["index", "transcode"])
def test_without_ray_one_line_says_what_to_install(tmp_path: Path, command: str) -> None:
    make_video(tmp_path / "videos" / "a.mp4", frames=5)
    Corpus.build(tmp_path / "videos", output=tmp_path / "in.parquet", workers=1, progress=False)
    # A package that cannot be imported, before the real one if there is any.
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "ray.py").write_text("raise ImportError('no Ray here')")
    arguments = {
        "index": ["index", str(tmp_path / "videos"), "-o", str(tmp_path / "out.parquet")],
        "transcode": ["transcode", str(tmp_path / "in.parquet"), str(tmp_path / "out")],
    }[command]
    path = os.pathsep.join([str(tmp_path / "first"), *(entry for entry in sys.path if entry)])
    ended = subprocess.run(
        [sys.executable, "-m", "dali_pipes.cli", *arguments, "--engine", "ray"],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert ended.stderr == "dali-pipes: --engine ray needs Ray: pip install 'dali-pipes[ray]'\n"
    assert (ended.stdout, ended.returncode) == ("", 2)
    assert not (tmp_path / "out.parquet").exists()
