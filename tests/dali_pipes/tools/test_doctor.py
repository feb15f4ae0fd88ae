"""`dali-pipes doctor`: what is there, what is missing, and what a corpus gets; with or without a GPU."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import av
import pytest
import torch
from make_videos import make_video

from dali_pipes import Corpus
from dali_pipes.cli import main
from dali_pipes.tools.corpora import corpus_findings
from dali_pipes.tools.findings import Finding, lines_of
from dali_pipes.tools.machine import cpu_quota, gpu, load_failure, machine, memory, optional, software


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Two MJPEG videos, which DALI's CPU decoder takes, and one of H.264 with one GOP, which it does not."""
    for i in range(2):
        make_video(tmp_path / "videos" / f"{i}.mkv", codec="mjpeg", size=(64, 64))
    make_video(tmp_path / "videos" / "long.mp4", frames=200, gop=250, size=(64, 64))
    Corpus.build(tmp_path / "videos", output=tmp_path / "c.parquet", workers=1, progress=False)
    return tmp_path / "c.parquet"


def named(findings: list[Finding], name: str) -> Finding:
    return next(finding for finding in findings if finding.name == name)


def test_a_healthy_machine_and_corpus_give_exit_code_0_and_json(
    corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", str(corpus), "--seconds", "0.2", "--device", "cpu", "--json"]) == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert answer["ok"] is True
    found = {(finding["section"], finding["name"]): finding for finding in answer["findings"]}
    assert {finding["level"] for finding in answer["findings"]} <= {"ok", "note"}
    assert found["software", "torch"]["value"] == torch.__version__
    assert found["software", "PyAV"]["value"] == av.__version__
    libavcodec = ".".join(map(str, av.library_versions["libavcodec"]))
    assert found["software", "FFmpeg in PyAV"]["value"]["libavcodec"] == libavcodec
    decoders = [f["value"] for f in answer["findings"] if f["name"] == "decoder host"]
    assert {(value["videos"], "h264" in value["reason"], "quicker" in value["reason"]) for value in decoders} == {
        (1, True, False),
        (2, False, True),
    }
    clips = found[str(corpus), "clips"]["value"]
    assert clips["clips"] >= 32 and clips["seconds"] >= 0.2
    assert clips["clips_per_second"] == pytest.approx(clips["clips"] / clips["seconds"])
    assert found[str(corpus), "reading"]["value"] > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_who_decodes_then(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert "torch sees no CUDA GPU" in text and "vp8, vp9, mjpeg" in text
    assert text.splitlines()[-1].startswith("problems 0")


def test_what_is_missing_is_named() -> None:
    finding = optional("nosuch", "nosuch_package", ("nosuch",), "nothing")
    assert finding.level == "ok" and "not installed" in finding.text
    assert load_failure("json") == ""
    assert "No module named 'nosuch_package'" in load_failure("nosuch_package")
    assert {"torchcodec", "OpenCV", "ray", "fsspec", "s3fs"} <= {finding.name for finding in software()}


def test_a_library_that_is_needed_and_missing_is_a_problem_and_no_traceback(corpus: Path) -> None:
    # An entry of None makes Python raise ImportError, as it does where a package is absent.
    code = (
        "import sys; sys.modules['nvidia.dali'] = None; from dali_pipes.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "doctor", str(corpus)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (1, "")
    assert any(line.split()[:2] == ["problem", "DALI"] for line in done.stdout.splitlines())
    assert "not looked at: first what is wrong above" in done.stdout


def test_a_corpus_that_cannot_be_used_is_a_problem_and_the_others_are_still_looked_at(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "a.mp4").write_text("no video")
    arguments = [str(tmp_path / "none.parquet"), str(bad), str(corpus), "--seconds", "0.1", "--device", "cpu"]
    assert main(["doctor", *arguments]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("problems 2")
    assert any(line.startswith("  problem  corpus") and "no such corpus file" in line for line in lines)
    assert any(line.startswith("  problem  videos") and "0 of 1" in line for line in lines)
    assert any("clips/s" in line for line in lines)


def test_missing_and_changed_files_are_found(corpus: Path, tmp_path: Path) -> None:
    with open(tmp_path / "videos" / "0.mkv", "ab") as file:
        file.write(b"\0")
    finding = named(corpus_findings(corpus, seconds=0.1, device="cpu"), "files")
    assert finding.level == "note" and finding.value["changed"] == 1 and "0.mkv" in finding.text
    (tmp_path / "videos" / "1.mkv").unlink()
    findings = corpus_findings(corpus, seconds=0.1, device="cpu")
    assert named(findings, "files").value["missing"] == 1
    assert named(findings, "clips").level == "note" and "1.mkv" in named(findings, "clips").text
    shutil.rmtree(tmp_path / "videos")
    findings = corpus_findings(corpus, seconds=0.1, device="cpu")
    assert [finding.level for finding in findings] == ["ok", "problem"]


def test_lead_in_is_measured_and_a_preset_is_advised(tmp_path: Path) -> None:
    for i in range(2):
        make_video(tmp_path / "long" / f"{i}.mp4", frames=200, gop=250, size=(64, 64))
        make_video(tmp_path / "short" / f"{i}.mkv", codec="mjpeg", size=(64, 64))
    long = named(corpus_findings(tmp_path / "long", seconds=0.1, device="cpu"), "decoding")
    assert long.level == "note" and "dali-pipes transcode --preset cpu" in long.remedy and "GOPs of 8" in long.remedy
    assert long.value["decoded"] > 5 * long.value["wanted"]
    short = named(corpus_findings(tmp_path / "short", seconds=0.1, device="cpu"), "decoding")
    assert short.level == "ok" and short.value["lead_in"] == 0 and short.value["decoded"] == short.value["wanted"]


def test_limits_of_control_groups_are_read(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert cpu_quota(tmp_path) == 1.5
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert cpu_quota(tmp_path) is None
    whole, _ = memory(tmp_path)
    (tmp_path / "memory.max").write_text(f"{1 << 20}\n")
    (tmp_path / "memory.current").write_text(f"{1 << 19}\n")
    assert memory(tmp_path) == (1 << 20, 1 << 19) and whole > 1 << 20
    (tmp_path / "memory.max").write_text("max\n")
    assert memory(tmp_path)[0] == whole


def test_the_machine_is_described() -> None:
    assert {"cores", "memory", "/dev/shm", "temporary files", "open files"} == {finding.name for finding in machine()}


def test_lines_carry_level_name_and_remedy() -> None:
    lines = lines_of([Finding("gpu", "cuda", "note", "none", "buy one"), Finding("machine", "cores", "ok", "2")])
    assert lines[0] == "gpu" and lines[1].split() == ["note", "cuda", "none"]
    assert lines[2].strip() == "-> buy one"
    assert lines[-1] == "problems 0, notes 1, ok 1"


@pytest.mark.parametrize("arguments", [["--seconds", "0"], ["--seconds", "nan"], ["--seconds", "x"]])
def test_a_time_out_of_range_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["doctor", *arguments])
    assert stop.value.code == 2


def test_a_device_that_is_none_is_a_mistake(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(corpus), "--device", "abacus"]) == 2
    assert "abacus" in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA GPU")
def test_with_a_gpu_it_is_named_and_given_the_videos(tmp_path: Path) -> None:
    make_video(tmp_path / "videos" / "a.mp4", frames=60, size=(128, 128))
    assert torch.cuda.get_device_name(0) in gpu()[0].text
    findings = corpus_findings(tmp_path / "videos", seconds=0.1, device="cuda")
    assert named(findings, "decoder dali").value == {
        "device": "gpu", "decoder": "dali", "videos": 1, "reason": "NVDEC"
    }  # fmt: skip
    assert named(findings, "clips").level == "ok"


def test_videos_in_a_tar_shard_are_looked_at_too(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as shard:
        for name in ("a.mkv", "b.mkv"):
            shard.add(make_video(tmp_path / name, codec="mjpeg", size=(64, 64)), arcname=name)
    findings = corpus_findings(tmp_path / "a.tar", seconds=0.1, device="cpu")
    assert named(findings, "videos").value == 2
    assert "not looked at" in named(findings, "files").text and "not measured" in named(findings, "reading").text
    assert named(findings, "clips").value["clips_per_second"] > 0


def test_real_videos_get_the_host_on_the_cpu(videos: Path) -> None:
    findings = corpus_findings(videos / "kinetics400", seconds=0.1, device="cpu")
    assert named(findings, "decoder host").value["videos"] == 15
    assert named(findings, "decoding").level == "note"
