"""Every adapter delivers the frames asked for, at full size and upright, from many requests at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bench_decode_helpers import Slow, Together, job_of
from make_videos import make_video, read_number

from bench.decoders import DECODERS, Decoder, Job
from bench.decoders.running import on_host
from bench.measure.plan import WINDOWS, Window
from dali_pipes import Corpus

PLAIN = ("ours-cpu", "torchcodec-cpu", "pyav", "decord", "opencv", "spdl")
DALI = ("ours-dali-cpu", "dali-decoder-cpu", "dali-reader-cpu")
ORDER = [[5, 0], [3], [1, 1], [4]]


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    root = tmp_path_factory.mktemp("with a space")
    make_video(root / "a" / "one.mp4", codec="h264", frames=40, size=(64, 48), bframes=2)
    make_video(root / "a" / "two.mkv", codec="h264", frames=30, size=(64, 96), gop=5)
    make_video(root / "b" / "three.avi", codec="mpeg4", frames=24, size=(128, 48))
    return Corpus.build(root, "folders", progress=False)


@pytest.fixture(scope="module")
def open_codecs(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    root = tmp_path_factory.mktemp("with a space")
    make_video(root / "a" / "one.avi", codec="mjpeg", frames=24, size=(64, 48))
    make_video(root / "a" / "two.webm", codec="vp9", frames=24, size=(48, 64))
    make_video(root / "b" / "three.webm", codec="vp8", frames=17, size=(72, 40))
    return Corpus.build(root, "folders", progress=False)


def opened(name: str, job: Job) -> Decoder:
    kind = DECODERS[name]
    reason = kind.missing(job)
    if reason:
        pytest.skip(f"{name}: {reason}")
    return kind(job)


def check(decoder: Decoder, job: Job, batches: list[list[int]]) -> None:
    """Each part has the numbers that it claims, and the parts of a request hold all that was asked for."""
    for batch, samples in zip(batches, decoder.epoch(batches), strict=True):
        assert len(samples) == len(batch)
        for number, parts in zip(batch, samples, strict=True):
            request = job.requests[number]
            for numbers, frames in parts:
                pictures = on_host(frames)
                assert pictures.dtype == np.uint8
                assert pictures.shape == (len(numbers), request.height, request.width, 3)
                assert [read_number(picture) for picture in pictures] == list(numbers)
            assert sorted({n for numbers, _ in parts for n in numbers}) == request.unique


@pytest.mark.parametrize("name", PLAIN)
def test_plain_decoders_deliver_the_frames_asked_for_in_any_order_and_epoch_after_epoch(
    name: str, usual: Corpus
) -> None:
    job = job_of(usual)
    decoder = opened(name, job)
    try:
        for _ in range(2):
            check(decoder, job, ORDER)
    finally:
        decoder.close()


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("name", DALI)
def test_dali_decoders_do_so_too_for_the_codecs_that_they_take(name: str, window: Window, open_codecs: Corpus) -> None:
    pytest.importorskip("nvidia.dali")
    job = job_of(open_codecs, window=window)
    decoder = opened(name, job)
    try:
        for _ in range(2):
            check(decoder, job, ORDER)
    finally:
        decoder.close()


@pytest.mark.parametrize("name", DALI)
def test_dali_decoders_name_the_codec_that_they_do_not_take(name: str, usual: Corpus) -> None:
    pytest.importorskip("nvidia.dali")
    assert "does not take" in (DECODERS[name].missing(job_of(usual)) or "")


def test_a_reader_says_that_its_stride_is_whole(open_codecs: Corpus) -> None:
    pytest.importorskip("nvidia.dali")
    assert "stride" in (DECODERS["dali-reader-cpu"].missing(job_of(open_codecs, speeds=(1, 1.5))) or "")


def test_as_many_clips_as_workers_are_decoded_at_a_time_and_no_more(usual: Corpus) -> None:
    job = job_of(usual, workers=3)
    decoder = Together(job)
    try:
        assert len(list(decoder.epoch([[0, 1, 2], [3, 4, 5]]))) == 2
        assert decoder.pool._max_workers == 3
    finally:
        decoder.close()


def test_a_file_that_cannot_be_read_is_named_without_its_folder(usual: Corpus, tmp_path: Path) -> None:
    job = job_of(usual)
    gone = tmp_path / "gone.mp4"
    decoder = Slow(replace(job, requests=[replace(job.requests[0], path=str(gone))]))
    try:
        with pytest.raises(Exception, match=r"^gone\.mp4: ") as raised:
            next(decoder.epoch([[0]]))
        assert str(tmp_path) not in str(raised.value)
    finally:
        decoder.close()


def test_all_cuda_adapters_can_be_asked_without_a_gpu_whether_they_are_missing(usual: Corpus) -> None:
    for kind in DECODERS.values():
        assert kind.notes and kind.where in ("cpu", "cuda")
        if kind.where == "cuda":
            answer = kind.missing(job_of(usual))
            assert answer is None or isinstance(answer, str)
