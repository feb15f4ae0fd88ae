"""`bench decode`: who is wrong, crashes, hangs or is missing is told apart from who is slow, and hurts nobody else."""

from __future__ import annotations

import json
from pathlib import Path

import bench_decode_helpers as helpers
import pytest
from bench_decode_helpers import FRAMES, job_of
from make_videos import make_video

from bench.__main__ import main
from bench.decoders import DECODERS, Decoder
from bench.decoders.contest import Contest, summarise
from bench.decoders.running import Runner, Turn, peak_memory, reset_peak_memory
from dali_pipes import Corpus


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    make_video(root / "a" / "one.mp4", codec="h264", frames=24, size=(64, 48), bframes=2)
    make_video(root / "b" / "two.webm", codec="vp9", frames=24, size=(48, 64))
    return root


@pytest.fixture(scope="module")
def corpus(folder: Path) -> Corpus:
    return Corpus.build(folder, "folders", progress=False)


def contest(corpus: Corpus, **decoders: type[Decoder]) -> Contest:
    return Contest(decoders, job_of(corpus, 4), timeout=300, seed=0)


def test_one_that_delivers_other_frames_is_wrong_with_the_reason(corpus: Corpus) -> None:
    with contest(corpus, right=helpers.Slow, late=helpers.Late, grey=helpers.Grey) as run:
        checks = run.compare(range(4), 24.0)
    assert checks["right"].right and checks["right"].psnr > 50 and checks["right"].told_apart
    assert "frames are others" in checks["late"].reason and not checks["late"].right
    assert checks["grey"].reason.startswith("ValueError: uint8 (") and "instead of uint8 (" in checks["grey"].reason
    assert not run.failed and not run.missing


def test_one_that_is_absent_or_cannot_be_opened_is_listed(corpus: Corpus) -> None:
    with contest(corpus, absent=helpers.Absent, broken=helpers.Broken, right=helpers.Slow) as run:
        assert set(run.compare(range(2), 24.0)) == {"right"}
    assert run.missing == {"absent": "no_such_module_anywhere: not installed"}
    assert run.failed["broken"].startswith("RuntimeError: no licence in ") and "/" not in run.failed["broken"]


def test_crashes_and_errors_while_timing_are_reported_and_the_others_go_on(corpus: Corpus) -> None:
    decoders: dict[str, type[Decoder]] = {"right": helpers.Slow, "crashes": helpers.Crashes, "stops": helpers.Stops}
    with contest(corpus, **decoders) as run:
        names = [name for name, check in run.compare(range(4), 24.0).items() if check.right]
        assert names == list(decoders)
        rounds = run.time(names, range(4), rounds=3, warmup=0, what="test")
        again = run.time(names, range(4), rounds=1, warmup=0, what="test")
    assert run.failed == {
        "crashes": "killed by SIGSEGV, after it said: heap corrupted in libfoo.so",
        "stops": "ValueError: out of surfaces",
    }
    assert [(turn.order, set(turn.figures)) for turn in [*rounds, *again]] == [(["right"], {"right"})] * 4
    assert summarise(rounds)["right"]["clips/s"]["count"] == 3


def test_one_that_hangs_has_failed_after_its_time(corpus: Corpus) -> None:
    with contest(corpus, hangs=helpers.Hangs) as run:
        assert run.compare(range(2), 24.0)["hangs"].right
        run.timeout = 1
        assert summarise(run.time(["hangs"], range(4), rounds=2, warmup=1, what="test")) == {}
    assert run.failed == {"hangs": "no answer within 1 s"}


def test_memory_is_that_of_the_round_alone(corpus: Corpus) -> None:
    # Other tests of this process may have held more.
    reset_peak_memory()
    before = peak_memory()
    block = bytearray(b"x" * (200 << 20))
    assert peak_memory() >= before + (100 << 20)
    del block
    reset_peak_memory()
    if peak_memory() > before + (100 << 20):
        pytest.skip("this kernel does not let a process reset its peak")
    runner = Runner(helpers.Hungry, job_of(corpus, 4))
    assert runner.open() is None
    turns: list[Turn] = [runner.turn([[0, 1], [2, 3]], 1) for _ in range(3)]
    assert turns[1].memory_mib > 290
    assert turns[2].memory_mib < turns[1].memory_mib - 200


def test_ratios_are_ours_to_each_other_and_frames_are_counted_once(corpus: Corpus) -> None:
    ours = DECODERS["ours-cpu"]
    with contest(corpus, **{"ours-cpu": ours, "slow": helpers.Slow}) as run:
        rounds = run.time(["ours-cpu", "slow"], range(4), rounds=2, warmup=1, what="test")
        frames = sum(len(request.unique) for request in run.job.requests)
    summary = summarise(rounds)
    assert "ours-cpu / it" not in summary["ours-cpu"]
    ratio = [r.figures["ours-cpu"].samples_per_second / r.figures["slow"].samples_per_second for r in rounds]
    assert summary["slow"]["ours-cpu / it"]["median"] == pytest.approx(sum(ratio) / 2)
    for turn in rounds:
        for done in turn.figures.values():
            assert isinstance(done, Turn)
            assert done.samples == 4 and done.decoder_load is None
            assert done.frames_per_second == pytest.approx(frames / done.seconds)
            assert done.cpu_seconds_per_sample > 0


def test_the_command_ranks_who_is_right_and_lists_the_rest(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(DECODERS, "decord", helpers.Late)
    monkeypatch.setitem(DECODERS, "spdl", helpers.Absent)
    output = tmp_path / "results" / "tiny.json"
    chosen = "ours-cpu,pyav,decord,spdl,dali-decoder-cpu,ours-cuda"
    arguments = ["--candidates", chosen, "--frames", str(FRAMES), "--clips", "4", "--rounds", "2", "--warmup", "0",
                 "--workers", "2", "--window", "both", "--device", "cpu", "--output", str(output)]  # fmt: skip
    assert main(["decode", str(folder), *arguments]) == 0
    result = json.loads(output.read_text())
    assert {"format", "benchmark", "created", "arguments", "environment", "corpus", "candidates", "missing", "failed",
            "windows", "figures"} == set(result)  # fmt: skip
    assert result["benchmark"] == "decode" and result["arguments"]["batch_size"] == 2
    assert set(result["missing"]) == {"spdl", "dali-decoder-cpu", "ours-cuda"} and result["failed"] == {}
    assert result["missing"]["ours-cuda"] == "needs a GPU (--device cuda)"
    for window in ("independent", "shared"):
        part = result["windows"][window]
        assert set(part["summary"]) == {"ours-cpu", "pyav"}
        assert part["checks"]["decord"]["wrong"] > 0
        assert [sorted(turn["figures"]) for turn in part["rounds"]] == [["ours-cpu", "pyav"]] * 2
        ratio = result["figures"][f"decode ours-cpu / pyav ({window})"]
        assert ratio["unit"] == "x" and ratio["better"] == "higher" and ratio["count"] == 2
        rate = result["figures"][f"decode pyav clips/s ({window})"]
        assert rate["unit"] == "clips/s" and 0 < rate["low"] <= rate["median"] <= rate["high"]
    assert str(folder) not in output.read_text()
    shown = capsys.readouterr().out
    assert "WRONG" in shown and "missing" in shown and "window: shared" in shown


def test_ours_being_wrong_ends_with_1(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DECODERS, "ours-cpu", helpers.Late)
    arguments = ["--candidates", "ours-cpu", "--frames", str(FRAMES), "--clips", "2", "--device", "cpu"]
    assert main(["decode", str(folder), *arguments]) == 1


def test_an_unknown_decoder_is_refused_before_any_work(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["decode", "no-such-folder", "--candidates", "ours-cpu,nobody"])
    assert stopped.value.code == 2 and "nobody" in capsys.readouterr().err


def test_real_videos_come_out_right_of_every_decoder_that_is_here(videos: Path, tmp_path: Path) -> None:
    output = tmp_path / "real.json"
    (tmp_path / "videos").mkdir()
    for name in ("kinetics400/sample_0000.mp4", "kinetics400/flipping_a_pancake.mkv"):
        (tmp_path / "videos" / Path(name).name).symlink_to(videos / name)
    arguments = ["--clips", "2", "--check", "2", "--rounds", "1", "--warmup", "0", "--workers", "2", "--candidates",
                 "ours-cpu,torchcodec-cpu,pyav,decord,opencv,spdl"]  # fmt: skip
    code = main(["decode", str(tmp_path / "videos"), *arguments, "--device", "cpu", "--output", str(output)])
    result = json.loads(output.read_text())
    part = result["windows"]["independent"]
    assert code == 0 and result["failed"] == {}
    assert {name: check["reason"] for name, check in part["checks"].items() if check["reason"]} == {}
    assert set(part["summary"]) == set(result["candidates"]) - set(result["missing"])
    assert "ours-cpu" in part["summary"]
