"""A whole corpus encoded anew: labels kept, only what is needed done, failures told and left out."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from make_videos import decode_all, make_video, read_number, truncate
from storage_servers import http_server, make_tar

from dali_pipes.cli import main
from dali_pipes.corpus import Corpus
from dali_pipes.corpus.transcode import Preset
from dali_pipes.corpus.transcode_job import Outcome, transcode
from dali_pipes.corpus.transcode_names import copy_names
from dali_pipes.errors import DataError

SMALL = Preset("h264", short_side=64, gop=8, quality=20)
NAMES = ("walk/a", "walk/b", "run/a", "run/c")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Four videos in two classes, indexed."""
    for place, name in enumerate(NAMES):
        make_video(tmp_path / "in" / "train" / f"{name}.mp4", frames=24, first=100 * place, bframes=2)
    return index(tmp_path)


def index(folder: Path) -> Path:
    Corpus.build(folder / "in", output=folder / "in.parquet", workers=1, progress=False)
    return folder / "in.parquet"


def run(corpus: Path, preset: Preset = SMALL) -> Outcome:
    return transcode(
        Corpus.open(corpus), corpus.parent / "out", preset, engine={"workers": 1, "timeout": 60.0}, progress=False
    )


def times(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*.mp4")}


def test_copies_lie_as_the_sources_do_and_keep_what_the_corpus_says(source: Path, tmp_path: Path) -> None:
    before = Corpus.open(source)
    groups = [f"person{i % 2}" for i in range(len(before))]
    rows = [row | {"group": group} for row, group in zip(before.table.to_pylist()[::-1], groups, strict=True)]
    Corpus.from_rows(rows).save(source)
    before = Corpus.open(source)
    outcome = run(source)
    after = Corpus.open(tmp_path / "out" / "corpus.parquet")
    assert (outcome.encoded, outcome.kept, outcome.failed) == (4, 0, [])
    for name in ("label", "split", "group"):
        assert after.column(name).tolist() == before.column(name).tolist()
    assert sorted(times(tmp_path / "out")) == sorted(f"{name}.mp4" for name in NAMES)
    assert after.usable.all() and after.column("sliceable").all()
    for old, new in zip(before, after, strict=True):
        assert new.uri.startswith(str(tmp_path / "out"))
        assert [read_number(f) for f in decode_all(new.uri)] == [read_number(f) for f in decode_all(old.uri)]
        assert new.key_frames.tolist() == [0, 8, 16]
    assert len(outcome.psnr) == 4 and min(outcome.psnr) > 30
    assert outcome.bytes_before == before.column("bytes").sum()
    assert outcome.bytes_after == after.column("bytes").sum()


def test_again_only_what_is_new_changed_or_gone_is_encoded(source: Path, tmp_path: Path) -> None:
    run(source)
    out = tmp_path / "out"
    first = times(out)
    again = run(source)
    assert (again.encoded, again.kept) == (0, 4)
    assert times(out) == first and len(again.psnr) == 4

    make_video(tmp_path / "in" / "train" / "walk" / "a.mp4", frames=30, first=500)
    make_video(tmp_path / "in" / "train" / "run" / "d.mp4", frames=20, first=600)
    (out / "run" / "c.mp4").unlink()
    truncate(out / "walk" / "b.mp4", tmp_path / "cut.mp4", 0.5)
    os.replace(tmp_path / "cut.mp4", out / "walk" / "b.mp4")
    changed = run(index(tmp_path))
    assert (changed.encoded, changed.kept) == (4, 1)
    now = times(out)
    assert [name for name in first if now[name] == first[name]] == ["run/a.mp4"]
    assert read_number(next(decode_all(out / "walk" / "a.mp4"))) == 500
    assert changed.corpus.usable.all() and len(changed.corpus) == 5


def test_another_preset_encodes_everything_anew(source: Path, tmp_path: Path) -> None:
    run(source)
    other = run(source, Preset("h264", short_side=48, gop=6, quality=20))
    assert (other.encoded, other.kept) == (4, 0)
    assert set(other.corpus.column("height").tolist()) == {48}
    assert other.corpus[0].key_frames.tolist() == [0, 6, 12, 18]


def test_one_bad_video_does_not_stop_the_rest(source: Path, tmp_path: Path) -> None:
    (tmp_path / "in" / "train" / "run" / "b.mp4").write_text("no video")
    index(tmp_path)
    make_video(tmp_path / "in" / "train" / "run" / "a.mp4", frames=10)  # after it was indexed
    (tmp_path / "in" / "train" / "walk" / "b.mp4").unlink()
    outcome = run(source)
    reasons = {Path(uri).name: reason for uri, reason in outcome.failed}
    assert outcome.encoded == 2
    assert set(reasons) == {"a.mp4", "b.mp4"}
    assert "index it again" in reasons["a.mp4"] and "No such file" in reasons["b.mp4"]
    errors = dict(zip(map(Path, outcome.corpus.column("uri")), outcome.corpus.column("error"), strict=True))
    assert "not transcoded: has changed" in errors[tmp_path / "in" / "train" / "run" / "a.mp4"]
    assert "cannot be opened" in errors[tmp_path / "in" / "train" / "run" / "b.mp4"]
    assert outcome.corpus.column("label").tolist() == ["run", "run", "run", "walk", "walk"]
    assert outcome.corpus.usable.sum() == 2
    assert not list((tmp_path / "out").rglob(".*.tmp"))


def test_a_worker_that_is_killed_leaves_nothing_half_written(source: Path, tmp_path: Path) -> None:
    make_video(tmp_path / "in" / "train" / "run" / "long.mp4", frames=300, size=(320, 240))
    index(tmp_path)
    outcome = transcode(
        Corpus.open(source),
        tmp_path / "out",
        Preset("hevc", short_side=None, quality=4, speed="veryslow"),
        engine={"workers": 1, "timeout": 1.0},
        progress=False,
    )
    assert "took longer than 1 s" in dict(outcome.failed)[str(tmp_path / "in" / "train" / "run" / "long.mp4")]
    assert not list((tmp_path / "out").rglob(".*.tmp"))
    assert not (tmp_path / "out" / "run" / "long.mp4").exists()


def test_interrupted_it_leaves_nothing_half_written_and_goes_on_later(source: Path, tmp_path: Path) -> None:
    first = make_video(tmp_path / "in" / "train" / "run" / "000.mp4", frames=60, size=(320, 240))
    for number in range(1, 20):
        shutil.copy(first, first.with_name(f"{number:03}.mp4"))
    index(tmp_path)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "dali_pipes.cli", "transcode", str(source), str(out), "--workers", "1"]
    process = subprocess.Popen([*command, "--speed", "slower"], stderr=subprocess.PIPE, text=True)
    ledger, deadline = out / "transcode.jsonl", time.monotonic() + 60
    while not (ledger.exists() and ledger.read_text().count("\n") > 3):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 143
    done = times(out)
    assert 3 < len(done) < 24
    assert not list(out.rglob(".*.tmp")) and not (out / "corpus.parquet").exists()
    # A run that was killed outright may leave such a file, and half a line.
    (out / "run" / ".000.mp4.x.tmp").write_text("half")
    with ledger.open("a") as file:
        file.write('{"source": "half')
    assert main(["transcode", str(source), str(out), "--workers", "1", "--speed", "slower"]) == 0
    now = times(out)
    # What was verified before the signal is taken over: all copies but perhaps the last.
    assert sum(now[name] != done[name] for name in done) <= 1
    assert len(now) == 24 and not list(out.rglob(".*.tmp"))
    assert len([json.loads(line) for line in ledger.read_text().splitlines()]) == 24


def test_a_full_disk_is_one_line_and_exit_code_1(source: Path, tmp_path: Path) -> None:
    make_video(tmp_path / "in" / "train" / "walk" / "z.mp4", frames=100, size=(320, 240))
    index(tmp_path)
    command = [sys.executable, "-m", "dali_pipes.cli", "transcode", str(source), str(tmp_path / "out"), "--quiet"]
    ended = subprocess.run(
        [*command, "--workers", "1", "--short-side", "full", "--quality", "4"],
        capture_output=True,
        text=True,
        # The nearest to a full disk that needs no disk: no file may become larger than this.
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000)),
    )
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1 and "File too large" in ended.stderr
    assert not list((tmp_path / "out").rglob(".*.tmp"))
    assert main(["transcode", str(source), str(tmp_path / "out"), "--quiet", "--short-side", "full"]) == 0


def test_sources_are_never_overwritten(source: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="would be overwritten"):
        transcode(Corpus.open(source), tmp_path / "in" / "train", SMALL, progress=False)


def test_two_runs_into_one_folder_are_refused(source: Path, tmp_path: Path) -> None:
    import fcntl

    run(source)
    with (tmp_path / "out" / "transcode.jsonl").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another process"):
            run(source)


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_a_source_is_never_overwritten_whatever_its_address(source: Path, tmp_path: Path, prefix: str) -> None:
    rows = [row | {"uri": prefix + row["uri"]} for row in Corpus.open(source).table.to_pylist()]
    with pytest.raises(DataError, match=r"/walk/[ab].mp4 is a source|/run/[ac].mp4 is a source"):
        transcode(Corpus.from_rows(rows), tmp_path / "in" / "train", SMALL, progress=False)


def test_a_source_by_a_file_address_is_encoded_and_noticed_when_it_changes(source: Path, tmp_path: Path) -> None:
    rows = [row | {"uri": f"file://{row['uri']}"} for row in Corpus.open(source).table.to_pylist()]
    Corpus.from_rows(rows).save(source)
    assert (run(source).encoded, run(source).kept) == (4, 4)
    assert sorted(times(tmp_path / "out")) == sorted(f"{name}.mp4" for name in NAMES)
    # Neither is a copy of the earlier one taken over, nor is one made by a row that no longer fits.
    os.utime(tmp_path / "in" / "train" / "walk" / "a.mp4", ns=(1, 1))
    (tmp_path / "in" / "train" / "run" / "c.mp4").unlink()
    outcome = run(source)
    reasons = {Path(uri).name: reason for uri, reason in outcome.failed}
    assert (outcome.kept, set(reasons)) == (2, {"a.mp4", "c.mp4"})
    assert "has changed since it was indexed" in reasons["a.mp4"] and "No such file" in reasons["c.mp4"]


def test_remote_videos_are_encoded_and_taken_over_without_a_question(tmp_path: Path) -> None:
    make_video(tmp_path / "in" / "walk" / "a.mp4", frames=24, first=300)
    with http_server(tmp_path / "in") as server:
        Corpus.build(server.url, output=tmp_path / "in.parquet", workers=1, progress=False)
        outcome = run(tmp_path / "in.parquet")
        asked = len(server.log)
        assert (run(tmp_path / "in.parquet").kept, len(server.log)) == (1, asked)
    assert read_number(next(decode_all(outcome.corpus[0].uri))) == 300


def test_rows_with_malformed_addresses_do_no_harm(source: Path) -> None:
    rows = Corpus.open(source).table.to_pylist()
    bad = [rows[0] | {"uri": uri, "frames": 0, "error": "bad"} for uri in ("tar://x.mp4", "tar://x.mp4::/", "s3://")]
    Corpus.from_rows([*rows, *bad]).save(source)
    outcome = run(source)
    assert outcome.encoded == 4 and outcome.corpus.column("error").tolist()[4:] == ["bad"] * 3


def test_names_of_copies_are_unique_and_stay_below_the_folder() -> None:
    assert copy_names(["/v/walk/a.avi", "/v/walk/b.avi"], ["walk"]) == ["walk/a.mp4", "walk/b.mp4"]
    assert copy_names(["/v/walk/a.avi", "/v/run/b.avi"]) == ["walk/a.mp4", "run/b.mp4"]
    names = copy_names(["/v/a.avi", "/v/a.mkv", "/v/a.avi.mp4", "/v/a.avi.mkv"])
    assert len(set(names)) == 4 and all(name.endswith(".mp4") for name in names)
    assert copy_names(["tar://w/a.mp4::/s/0.tar", "tar://../../a.mp4::s3://s/1.tar"]) == ["0/w/a.mp4", "1/a.mp4"]
    assert copy_names(["https://h/k/x.mp4?token=1", "https://h/y.webm"]) == ["k/x.mp4", "y.mp4"]
    assert copy_names(["file:///v/k/what?.mp4", "/v/k/y.webm", "/v/l/z.mp4"]) == ["k/what?.mp4", "k/y.mp4", "l/z.mp4"]


def test_the_command_says_what_it_did(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    arguments = ["transcode", str(source), str(out), "--preset", "tiny", "--workers", "1"]
    assert main([*arguments, "--codec", "vp9", "--short-side", "64", "--gop", "5", "--fps", "12.5"]) == 0
    printed = capsys.readouterr().out
    assert "4 encoded, 0 kept, 0 failed" in printed and "dB median" in printed and str(out) in printed
    video = Corpus.open(out / "corpus.parquet")[0]
    assert (video.codec, video.rate, video.frames, video.key_frames.tolist()) == ("vp9", 12.5, 12, [0, 5, 10])
    assert main([*arguments, "--quality", "99"]) == 2
    assert capsys.readouterr().err == "dali-pipes: quality=99 must be 0 to 51 for h264\n"


def test_without_any_copy_the_exit_code_is_1(source: Path, tmp_path: Path) -> None:
    for path in (tmp_path / "in").rglob("*.mp4"):
        path.unlink()
    assert main(["transcode", str(source), str(tmp_path / "out"), "--workers", "1", "--quiet"]) == 1


def test_members_of_a_tar_shard_become_files(tmp_path: Path) -> None:
    clips = {
        f"{n:03}.mp4": make_video(tmp_path / f"{n}.mp4", frames=20, first=50 * n, bframes=2).read_bytes()
        for n in range(3)
    }
    shard = make_tar(tmp_path / "shard.tar", clips)
    corpus = Corpus.build(shard, output=tmp_path / "in.parquet", workers=1, progress=False)
    outcome = run(tmp_path / "in.parquet")
    assert outcome.encoded == len(corpus) == 3
    paths = [Path(video.uri) for video in outcome.corpus]
    assert paths == [tmp_path / "out" / f"{n:03}.mp4" for n in range(3)]
    assert [read_number(next(decode_all(path))) for path in paths] == [0, 50, 100]
    assert run(tmp_path / "in.parquet").kept == 3
    os.utime(shard, ns=(1, 1))
    assert {reason for _, reason in run(tmp_path / "in.parquet").failed} == {
        "has changed since it was indexed; index it again"
    }
