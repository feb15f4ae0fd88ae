"""Decoding in processes of their own: the same pictures, and nothing lost when one of them goes."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from make_videos import make_video

from dali_pipes import ClipRequest, ClipStream, Corpus, Video, VideoError, View
from dali_pipes.decode import host_av, processes
from dali_pipes.decode.host import decode_frames
from dali_pipes.stages import StageTimes, stage

FRAMES = 40


@pytest.fixture(autouse=True)
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[processes._Pool]:
    """Processes of the test's own."""
    pool = processes._Pool()
    monkeypatch.setattr(processes, "_POOL", pool)
    yield pool
    pool.close()


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    folder = tmp_path / "videos"
    folder.mkdir()
    make_video(folder / "a.mp4", frames=FRAMES, codec="h264")
    make_video(folder / "b.mp4", frames=FRAMES, codec="mpeg4")
    return Corpus.build(folder, "folders", progress=False)


@pytest.mark.parametrize("short_side", [None, 24])
def test_pictures_are_those_of_this_process(corpus: Corpus, short_side: int | None) -> None:
    for video in corpus:
        frames = np.array([0, 7, 8, 33])
        apart = decode_frames(video, frames, short_side=short_side, apart=True)
        assert np.array_equal(apart, decode_frames(video, frames, short_side=short_side))


def test_videos_turned_by_their_metadata_come_upright(corpus: Corpus) -> None:
    video = replace(corpus[0], rotation=90)
    frames = np.array([3, 4])
    assert np.array_equal(decode_frames(video, frames, apart=True), decode_frames(video, frames))


def test_real_videos_give_the_same_pictures(videos: Path) -> None:
    corpus = Corpus.build(videos / "kinetics400", "folders", progress=False)
    for video in list(corpus)[::4]:
        frames = np.unique(np.linspace(0, video.frames - 1, 5).astype(np.int64))
        apart = decode_frames(video, frames, short_side=64, apart=True)
        assert np.array_equal(apart, decode_frames(video, frames, short_side=64)), video.uri


def test_memory_is_used_again_once_nobody_holds_the_pictures(corpus: Corpus, pool: processes._Pool) -> None:
    video, frames = corpus[0], np.arange(8)
    held = decode_frames(video, frames, apart=True)
    before = held.copy()
    part = decode_frames(video, frames + 8, apart=True)[2:4]  # a view keeps all of it
    (process,) = pool._all
    end = process._end
    for _ in range(3):
        decode_frames(video, frames + 20, apart=True)
        gc.collect()
    assert np.array_equal(held, before) and np.array_equal(part, host_av.decode(video, frames[2:4] + 8, 128, 96))
    # One piece each for the two that are held, and one that the three took in turn.
    assert process._end == end * 3 // 2 and len(process._free) == 1
    del held, part
    gc.collect()
    assert len(process._free) == 3


def test_larger_pictures_than_before_get_memory_of_their_own(corpus: Corpus, pool: processes._Pool) -> None:
    video = corpus[0]
    for count in (1, 30, 2, 40, 3):
        frames = np.arange(count)
        assert np.array_equal(decode_frames(video, frames, apart=True), decode_frames(video, frames)), count


def test_at_rest_the_memory_of_free_pieces_goes_back(corpus: Corpus, pool: processes._Pool) -> None:
    held = decode_frames(corpus[0], np.arange(8), apart=True)
    decode_frames(corpus[0], np.arange(8, 40), apart=True)
    gc.collect()
    (process,) = pool._all
    taken = os.fstat(process._handle).st_blocks
    processes.rest()
    assert os.fstat(process._handle).st_blocks * 512 <= taken * 512 - 32 * 128 * 96 * 3
    assert np.array_equal(held, decode_frames(corpus[0], np.arange(8)))
    assert np.array_equal(decode_frames(corpus[0], np.arange(8), apart=True), held)


def test_there_are_as_many_processes_as_are_used_at_once(corpus: Corpus, pool: processes._Pool) -> None:
    for _ in range(3):
        decode_frames(corpus[0], np.arange(4), apart=True)
    assert len(pool.members()) == 1
    processes.start(2)
    assert len(pool.members()) == 2
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda _: decode_frames(corpus[0], np.arange(20), apart=True), range(20)))
    assert len(pool.members()) == 2


def test_what_cannot_be_decoded_is_told_as_in_this_process(corpus: Corpus, tmp_path: Path) -> None:
    gone = replace(corpus[0], uri=str(tmp_path / "gone.mp4"))
    empty = replace(corpus[0], uri=str(tmp_path / "empty.mp4"))
    Path(empty.uri).write_bytes(b"")
    for video in (gone, empty):
        with pytest.raises(VideoError) as here:
            decode_frames(video, np.array([0]))
        with pytest.raises(VideoError) as there:
            decode_frames(video, np.array([0]), apart=True)
        assert str(there.value) == str(here.value)
    assert len(decode_frames(corpus[0], np.array([0]), apart=True)) == 1


def test_a_decoder_that_crashes_fails_one_video_and_is_replaced(corpus: Corpus, pool: processes._Pool) -> None:
    decode_frames(corpus[0], np.arange(4), apart=True)
    (first,) = pool.members()
    os.kill(first, signal.SIGSEGV)
    with pytest.raises(VideoError, match=r"a\.mp4: crashed the decoder \(SIGSEGV\)"):
        decode_frames(corpus[0], np.arange(4), apart=True)
    assert len(decode_frames(corpus[0], np.arange(4), apart=True)) == 4
    assert len(pool.members()) == 1 and first not in pool.members()


def test_a_decoder_that_hangs_fails_one_video_and_is_replaced(
    corpus: Corpus, pool: processes._Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode_frames(corpus[0], np.arange(4), apart=True)
    (first,) = pool.members()
    os.kill(first, signal.SIGSTOP)
    monkeypatch.setattr(processes, "LONGEST", 0.3)
    with pytest.raises(VideoError, match=r"a\.mp4: took longer than 0.3 s to decode"):
        decode_frames(corpus[0], np.arange(4), apart=True)
    monkeypatch.setattr(processes, "LONGEST", 30.0)
    assert len(decode_frames(corpus[0], np.arange(4), apart=True)) == 4
    assert len(pool.members()) == 1 and first not in pool.members()


def test_a_stream_goes_on_when_a_decoder_crashes(corpus: Corpus, pool: processes._Pool) -> None:
    requests = [[ClipRequest(0, (View(speed=1, start=at),))] for at in range(6)]
    with ClipStream(corpus, frames=4, size=16, batch_size=1, device="cpu", threads=1, max_bad=1) as stream:
        clips = []
        for number, batch in enumerate(stream.map(requests)):
            clips.append(batch.clips)
            if number == 1:
                for pid in pool.members():
                    os.kill(pid, signal.SIGKILL)
        assert len(clips) == 6
        assert list(stream.stats.bad.values()) == ["crashed the decoder (SIGKILL)"]


def test_without_processes_threads_decode(
    corpus: Corpus, pool: processes._Pool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    frames = np.arange(4)
    with caplog.at_level("WARNING", "dali_pipes"):
        for _ in range(2):
            assert np.array_equal(decode_frames(corpus[0], frames, apart=True), decode_frames(corpus[0], frames))
    assert caplog.text.count("no process can be started to decode in") == 1
    assert not pool._all and not processes.takes(corpus[0])


def test_what_is_not_on_this_machine_is_decoded_here(corpus: Corpus) -> None:
    video = corpus[0]
    assert processes.takes(video) and processes.takes(replace(video, uri=Path(video.uri).as_uri()))
    assert not processes.takes(replace(video, uri="s3://bucket/a.mp4"))
    assert not processes.takes(replace(video, offset=512))


def test_streams_with_and_without_processes_give_the_same_clips(corpus: Corpus, pool: processes._Pool) -> None:
    requests = [[ClipRequest(video, (View(speed=2, start=3), View(speed=1, start=9)))] for video in (0, 1, 0)]
    found = []
    for apart in (True, False):
        with ClipStream(
            corpus, frames=4, size=16, batch_size=1, views=2, device="cpu", threads=2, processes=apart
        ) as stream:
            found.append(torch.cat([batch.clips for batch in stream.map(requests)]))
        assert len(pool._all) == 2
    assert torch.equal(*found)


def test_the_stages_of_another_process_are_told(corpus: Corpus) -> None:
    times = StageTimes()
    with times.follow("plan"), stage("decode"):
        decode_frames(corpus[0], np.arange(30), apart=True)
    found = times.snapshot()
    assert found["decode"].count == 1 and found["read"].count > 0
    assert found["decode"].cpu > 0 and found["read"].cpu > 0
    # All of it has passed here as well, and nothing twice.
    assert found["decode"].wall > 0 and found["read"].wall > 0


def test_processes_end_with_the_program_however_it_ends(corpus: Corpus) -> None:
    code = textwrap.dedent(f"""
        import numpy as np, os, sys
        from dali_pipes import Corpus
        from dali_pipes.decode import processes
        from dali_pipes.decode.host import decode_frames
        corpus = Corpus.build({str(Path(corpus[0].uri).parent)!r}, "folders", progress=False)
        decode_frames(corpus[0], np.arange(3), apart=True)
        (process,) = processes._POOL._all
        print(process.number, flush=True)
        if sys.argv[1] == "kill":
            os.kill(os.getpid(), 9)
        if sys.argv[1] == "fork" and os.fork() == 0:
            # A fork has processes of its own, and its end leaves the program's alone.
            assert len(decode_frames(corpus[0], np.arange(3), apart=True)) == 3
            sys.exit(7)
        if sys.argv[1] == "fork":
            assert os.waitstatus_to_exitcode(os.wait()[1]) == 7
            assert len(decode_frames(corpus[0], np.arange(3), apart=True)) == 3
    """)
    for how, wanted in (("return", 0), ("kill", -9), ("fork", 0)):
        done = subprocess.run([sys.executable, "-c", code, how], stdout=subprocess.PIPE, text=True, timeout=60)
        assert done.returncode == wanted, how
        assert gone(int(done.stdout.split()[0])), how


def gone(pid: int) -> bool:
    """Whether a process ends within a few seconds; one that nobody has waited for counts as ended."""
    import time

    for _ in range(100):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def test_a_video_whose_header_does_not_tell_the_order_of_frames_is_opened_again(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, opened = host_av._decode, []

    def dropping(video: Video, *arguments: object, undecoded: bool) -> object:
        opened.append(undecoded)
        if undecoded:
            raise host_av._IncompleteError(video.uri, "1 frames could not be decoded")
        return usual(video, *arguments, undecoded=undecoded)  # type: ignore[arg-type]

    monkeypatch.setattr(host_av, "_decode", dropping)
    monkeypatch.setattr(host_av, "_UNTOLD", set())
    for _ in range(2):
        assert host_av.decode(corpus[0], np.array([5]), 128, 96).shape == (1, 96, 128, 3)
    assert opened == [True, False, False]
