"""The command line: exit codes, messages, and clean stops."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from make_videos import make_video

from dali_pipes.cli import main
from dali_pipes.corpus import Corpus


def test_index_writes_a_corpus_and_prints_a_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_video(tmp_path / "videos" / "run" / "a.mp4", frames=20)
    output = tmp_path / "c.parquet"
    assert main(["index", str(tmp_path / "videos"), "-o", str(output), "--workers", "1"]) == 0
    printed = capsys.readouterr().out
    assert "1, of which 1 usable" in printed and "h264 1" in printed
    assert Corpus.open(output)[0].frames == 20


def test_a_mistake_is_one_line_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["index", str(tmp_path / "none"), "-o", str(tmp_path / "c.parquet")]) == 2
    shown = capsys.readouterr()
    assert shown.err == f"dali-pipes: {tmp_path / 'none'}: no such folder\n"
    assert shown.out == ""


def test_without_a_usable_video_the_exit_code_is_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.mp4").write_text("no video")
    assert main(["index", str(tmp_path), "-o", str(tmp_path / "c.parquet"), "--workers", "1"]) == 1
    assert "cannot be opened" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--workers", "0"), ("--timeout", "-1"), ("--timeout", "inf"), ("--timeout", "nan"), ("--timeout", "x"),
        ("--max-side", "0"), ("--max-frames", "-3"), ("--fold", "x"),
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["index", ".", "-o", "c.parquet", option, value])
    assert stop.value.code == 2
    assert option in capsys.readouterr().err


def test_a_full_disk_is_one_line_and_what_was_probed_is_kept(tmp_path: Path) -> None:
    first = make_video(tmp_path / "videos" / "0.mp4", frames=20)
    for copy in range(1, 20):
        shutil.copy(first, first.with_name(f"{copy}.mp4"))
    output = tmp_path / "c.parquet"
    command = ["index", str(tmp_path / "videos"), "-o", str(output), "--workers", "1", "--quiet"]
    ended = subprocess.run(
        [sys.executable, "-m", "dali_pipes.cli", *command], capture_output=True, text=True, timeout=60,
        # The nearest to a full disk that needs no disk: no file may become larger than this.
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000)),
    )  # fmt: skip
    said = f"dali-pipes: {output}: cannot be written: File too large; make room, then run it again\n"
    assert (ended.stderr, ended.returncode) == (said, 1)
    assert not output.exists()
    assert (tmp_path / "c.parquet.partial").read_text().count("\n") > 1
    assert main(command) == 0
    assert len(Corpus.open(output)) == 20
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.parquet", "videos"]


def test_demo_corpus_can_be_indexed_as_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "demo"
    assert main(["demo-corpus", str(folder), "--videos", "24", "--frames", "24"]) == 0
    command = capsys.readouterr().out.splitlines()[-1].split()
    assert command[0] == "dali-pipes"
    assert main([*command[1:], "--workers", "1"]) == 0
    corpus = Corpus.open(folder / "corpus.parquet")
    assert len(corpus.select("train")) + len(corpus.select("test")) == len(corpus) == 24
    assert (corpus.labels >= 0).all()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_stopped_by_a_signal_it_leaves_no_process_and_goes_on_later(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    folder, output = tmp_path / "videos", tmp_path / "c.parquet"
    first = make_video(folder / "0.mp4", frames=250, size=(320, 240), bframes=2)
    for copy in range(1, 200):
        shutil.copy(first, folder / f"{copy}.mp4")
    command = [sys.executable, "-m", "dali_pipes.cli", "index", str(folder), "-o", str(output), "--workers", "1"]
    process = subprocess.Popen(
        # Jobs that a shell starts in the background have Ctrl-C switched off, and so would this one.
        [*command, "--thorough"], stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    journal = tmp_path / "c.parquet.partial"
    deadline = time.monotonic() + 60
    while not (journal.exists() and journal.read_text().count("\n") > 3):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    workers = [int(word) for word in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    process.send_signal(number)
    assert process.communicate(timeout=20)[1].splitlines()[-1].startswith("dali-pipes: ")
    assert process.returncode == code
    assert workers and not any(Path(f"/proc/{worker}").exists() for worker in workers)
    assert not output.exists()
    done = journal.read_text().count("\n") - 1
    assert 3 <= done < 200
    for copy in range(20, 200):
        os.unlink(folder / f"{copy}.mp4")
    assert main(["index", str(folder), "-o", str(output), "--workers", "1", "--quiet", "--thorough"]) == 0
    assert Corpus.open(output).frames.tolist() == [250] * 20
    assert not journal.exists()
