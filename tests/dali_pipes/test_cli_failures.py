"""What the machine refuses ends a command with one line and exit code 1, and the command goes on later."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest
from make_videos import make_video

from dali_pipes.cli import main
from dali_pipes.corpus import Corpus


def with_files_up_to(limit: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command that cannot write larger files: what a full disk looks like, without one."""
    return subprocess.run(
        [sys.executable, "-m", "dali_pipes.cli", *arguments],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_index_that_cannot_be_written_is_one_line_and_goes_on_later(tmp_path: Path) -> None:
    make_video(tmp_path / "videos" / "a.mp4", frames=10)
    output = tmp_path / "c.parquet"
    command = ["index", str(tmp_path / "videos"), "-o", str(output), "--workers", "1", "--quiet"]
    for limit in (100, 2000):  # the journal, the corpus
        done = with_files_up_to(limit, *command)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
        assert "File too large; make room, then run it again" in done.stderr
        assert not output.exists() and not list(tmp_path.glob(".*"))
    assert main(command) == 0
    assert len(Corpus.open(output)) == 1 and sorted(path.name for path in tmp_path.iterdir()) == ["c.parquet", "videos"]


@pytest.mark.parametrize("option", ["--output", "--table"])
def test_a_result_of_verify_that_cannot_be_written_leaves_nothing(tmp_path: Path, option: str) -> None:
    make_video(tmp_path / "videos" / "a.mp4", frames=10)
    done = with_files_up_to(20, "verify", str(tmp_path / "videos"), option, str(tmp_path / "out"), "--quiet")
    assert done.returncode == 1 and done.stderr.startswith(f"dali-pipes: {tmp_path / 'out'}: ")
    assert done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["videos"]
