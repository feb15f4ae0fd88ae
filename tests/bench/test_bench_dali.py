"""DALI's own ways: the clips asked for, on codecs that its CPU decoder takes, and a reason where it does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from bench_helpers import FRAMES, SIZE, requests_of, setting
from make_videos import make_video

from bench.measure.check import compare
from bench.measure.plan import Request, draw, in_batches
from bench.measure.reference import frames_around
from bench.peers.dali import DaliCandidate, DaliDecoder, DaliReader
from dali_pipes import Corpus

pytest.importorskip("nvidia.dali")
BOTH = pytest.mark.parametrize("candidate", [DaliDecoder, DaliReader])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    root = tmp_path_factory.mktemp("with a space")
    make_video(root / "a" / "one.avi", codec="mjpeg", frames=24, size=(64, 48))
    make_video(root / "a" / "two.webm", codec="vp9", frames=24, size=(48, 64))
    make_video(root / "b" / "three.webm", codec="vp8", frames=17, size=(72, 40))
    return Corpus.build(root, "folders", progress=False)


def plan_of(corpus: Corpus, speeds: tuple[float, ...], count: int = 6) -> list[Request]:
    rows = [(i, corpus[i]) for i in range(len(corpus))]
    return draw(rows, count=count, frames=FRAMES, speeds=speeds, window="independent", seed=1)


def delivered(
    kind: type[DaliCandidate], requests: list[Request], batches: list[list[int]], **changes: object
) -> list[torch.Tensor]:
    candidate = kind(requests, setting(**changes))
    try:
        return list(candidate.epoch(batches))
    finally:
        candidate.close()


@BOTH
@pytest.mark.parametrize("speeds", [(1.0, 2.0), (1.0, 4.0)])
def test_clips_of_several_codecs_and_sizes_are_those_asked_for(
    candidate: type[DaliCandidate], speeds: tuple[float, ...], corpus: Corpus
) -> None:
    requests = plan_of(corpus, speeds)
    # And a clip to the very last frame, where a reader's range reaches past the end.
    one, end = requests[0], corpus[requests[0].video].frames
    start = end - 1 - (FRAMES - 1) * int(speeds[1])
    numbers = (one.numbers[0], tuple(range(start, end, int(speeds[1]))))
    requests.append(replace(one, starts=(one.starts[0], start), numbers=numbers))
    batches = delivered(candidate, requests, in_batches(range(len(requests)), 2))
    check = compare(batches, requests, frames_around(requests, SIZE, reach=3), size=SIZE, lowest_psnr=24.0)
    assert check.right, check.reason
    assert [len(batch) for batch in batches] == [2, 2, 2, 1]


@pytest.mark.parametrize("speeds", [(1.0, 2.0), (2.0, 4.0), (3.0, 2.0)])
def test_views_that_begin_together_are_read_once(speeds: tuple[float, ...], corpus: Corpus) -> None:
    rows = [(i, corpus[i]) for i in range(len(corpus))]
    requests = draw(rows, count=6, frames=FRAMES, speeds=speeds, window="shared", seed=2)
    assert len(DaliReader(requests, setting()).readings) == 1
    batches = delivered(DaliReader, requests, in_batches(range(6), 2))
    check = compare(batches, requests, frames_around(requests, SIZE, reach=3), size=SIZE, lowest_psnr=24.0)
    assert check.right, check.reason


@BOTH
def test_any_order_and_short_batches_in_between_are_kept(candidate: type[DaliCandidate], corpus: Corpus) -> None:
    requests = plan_of(corpus, (1.0, 2.0))
    whole = torch.cat(delivered(candidate, requests, in_batches(range(6), 2)))
    mixed = delivered(candidate, requests, [[5, 0], [3], [1, 1], [4]])
    assert [len(batch) for batch in mixed] == [2, 1, 2, 1]
    assert torch.equal(torch.cat(mixed), whole[[5, 0, 3, 1, 1, 4]])


@BOTH
def test_half_precision_is_delivered_where_asked_for(candidate: type[DaliCandidate], corpus: Corpus) -> None:
    batch = delivered(candidate, plan_of(corpus, (1.0,)), [[0]], dtype=torch.float16)[0]
    assert batch.dtype == torch.float16 and batch.shape == (1, 1, 3, FRAMES, SIZE, SIZE)


@BOTH
def test_a_codec_that_the_cpu_decoder_does_not_take_is_the_reason_given(
    candidate: type[DaliCandidate], corpus: Corpus, tmp_path: Path
) -> None:
    assert candidate.refuses(plan_of(corpus, (1.0, 2.0)), setting(corpus=corpus)) is None
    path = make_video(tmp_path / "a" / "one.mp4", codec="h264", frames=24, size=(64, 48))
    other = Corpus.build(tmp_path, "folders", progress=False)
    reason = candidate.refuses(requests_of(path, 24), setting(corpus=other))
    assert reason is not None and "does not take h264" in reason


def test_a_reader_refuses_speeds_between_whole_frames(corpus: Corpus) -> None:
    reason = DaliReader.refuses(plan_of(corpus, (1.0, 1.5)), setting(corpus=corpus))
    assert reason is not None and "speed 1.5" in reason
    assert DaliDecoder.refuses(plan_of(corpus, (1.0, 1.5)), setting(corpus=corpus)) is None
