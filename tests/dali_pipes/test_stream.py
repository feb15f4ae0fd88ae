"""Requests in, the right frames out: every start of every kind of video, and what goes wrong on the way."""

from __future__ import annotations

import gc
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loader_checks import (
    FRAMES,
    ZOO,
    check_frame_numbers,
    check_kept_batches,
    check_pixels,
    corpus_of,
    expected,
    keyed,
    make_coloured,
    make_plain,
    numbers_shown,
    psnr,
)
from make_videos import make_video

from dali_pipes import (
    Augment,
    ClipBatch,
    ClipRequest,
    ClipSampler,
    ClipStream,
    Corpus,
    DataError,
    Draws,
    View,
    even_requests,
    read_frames,
)

pytest_plugins = ["loader_fixtures"]


def stream_of(corpus: Corpus, **options: Any) -> ClipStream:
    usual: dict[str, Any] = {"frames": 4, "size": 32, "batch_size": 8, "device": "cpu", "dtype": "uint8", "threads": 1}
    usual["decoder"] = "dali"  # wherever it can: the twin of what a GPU does
    return ClipStream(corpus, **(usual | options))


def one_batch(corpus: Corpus, requests: list[ClipRequest], **options: Any) -> ClipBatch:
    with stream_of(corpus, views=len(requests[0].views), **options) as stream:
        stream.submit(requests)
        return stream.get()


@pytest.mark.parametrize("shared", [False, True], ids=["independent", "shared"])
def test_every_start_of_every_kind_of_video_shows_the_right_frames(zoo: Corpus, shared: bool) -> None:
    check_frame_numbers(zoo, 96, "cpu", shared=shared)


def test_dali_and_host_decoded_videos_share_a_batch(zoo: Corpus) -> None:
    requests = [ClipRequest(i, (View(1, 50), View(2, 9))) for i in range(len(zoo))]
    batch = one_batch(zoo, requests, batch_size=len(zoo), size=96)
    for request, clips in zip(requests, batch.clips, strict=True):
        for view, clip in zip(request.views, clips, strict=True):
            assert numbers_shown(clip) == expected(view.start, view.speed, 4, FRAMES)


def test_dali_decodes_the_colours_that_pyav_does(tmp_path: Path) -> None:
    vp9 = {"crf": "20", "b": "0", "deadline": "good", "cpu-used": "5"}
    paths = [
        make_coloured(tmp_path / "colours.avi", "mjpeg", "yuvj420p", {"qscale": "2", "flags": "+qscale"}),
        make_coloured(tmp_path / "colours.webm", "libvpx-vp9", "yuv420p", vp9),
    ]
    check_pixels(paths, 96, "cpu", least=40)


def test_frames_of_a_host_decoded_video_are_those_of_read_frames_to_the_bit(zoo: Corpus) -> None:
    for kind in ("h264_long_gop.mp4", "mpeg4.avi", "hevc.mp4"):
        video = list(ZOO).index(kind)
        clip = one_batch(zoo, [ClipRequest(video, (View(2, 41),))], size=96).clips[0, 0]
        frames = read_frames(zoo, video, expected(41, 2, 4, FRAMES))
        assert np.array_equal(clip.permute(1, 2, 3, 0).numpy(), frames), kind


def test_many_views_of_one_request_are_decoded_together(zoo: Corpus) -> None:
    request = even_requests(zoo, 0, frames=8, clips=10, speed=2.0)
    batch = one_batch(zoo, [request], frames=8, size=96)
    assert batch.clips.shape == (1, 10, 3, 8, 96, 96)
    assert batch.starts.tolist() == [[view.start for view in request.views]]
    assert batch.starts[0, [0, -1]].tolist() == [0, FRAMES - 15]
    for view, clip in zip(request.views, batch.clips[0], strict=True):
        assert numbers_shown(clip) == expected(view.start, 2, 8, FRAMES)


@pytest.mark.parametrize("short", ["loop", "pad"])
def test_short_videos_begin_again_or_hold_their_last_frame(tmp_path: Path, short: Any) -> None:
    corpus = corpus_of(
        [make_video(tmp_path / f"{c}.mkv", codec=c, frames=5, size=(64, 64)) for c in ("mjpeg", "vp9", "h264")]
    )
    batch = one_batch(corpus, [ClipRequest(i, (View(2, 0), View(1, 3))) for i in range(3)], short=short, size=64)
    wanted = [[0, 2, 4, 1], [3, 4, 0, 1]] if short == "loop" else [[0, 2, 4, 4], [3, 4, 4, 4]]
    assert [[numbers_shown(clip) for clip in clips] for clips in batch.clips] == [wanted] * 3


def test_a_clip_past_the_end_is_refused_where_short_is_skip(zoo: Corpus) -> None:
    with stream_of(zoo, short="skip") as stream:
        stream.submit([ClipRequest(0, (View(1, 58),))])
        with pytest.raises(DataError, match=r"vp9\.webm.* 60 frames"):
            stream.get()


@pytest.mark.parametrize("codec", ["vp9", "mpeg4"])
def test_a_variable_rate_is_followed_in_time(tmp_path: Path, codec: str) -> None:
    stamps = np.cumsum([0] + [10, 90, 40, 25, 70] * 8)
    path = make_video(
        tmp_path / "vfr.mkv", codec=codec, frames=len(stamps), size=(64, 64), rate=1000, timestamps=stamps.tolist()
    )
    corpus = corpus_of([path])
    assert not corpus[0].constant
    requests = [ClipRequest(0, (View(1, s), View(1.5, 30 - s))) for s in range(0, 30, 5)]
    batch = one_batch(corpus, requests, size=64, frames=5, fps=25.0)
    for request, clips in zip(requests, batch.clips, strict=True):
        for view, clip in zip(request.views, clips, strict=True):
            times = stamps[view.start] + np.arange(5) * 40 * view.speed
            assert numbers_shown(clip) == [int(np.abs(stamps - time).argmin()) for time in times]


def test_a_reference_rate_sets_what_1x_means(tmp_path: Path) -> None:
    corpus = corpus_of(
        [
            make_video(tmp_path / f"{rate}.mkv", codec="mjpeg", rate=rate, frames=40, size=(64, 64))
            for rate in (10, 25, 50)
        ]
    )
    batch = one_batch(corpus, [ClipRequest(i, (View(1, 4),)) for i in range(3)], size=64, fps=25.0)
    assert [numbers_shown(clips[0]) for clips in batch.clips] == [[4, 4, 5, 5], [4, 5, 6, 7], [4, 6, 8, 10]]


def test_fractional_speeds_round_half_up(zoo: Corpus) -> None:
    batch = one_batch(zoo, [ClipRequest(1, (View(1.5, 10), View(0.5, 10)))], size=96, frames=6)
    assert [numbers_shown(clip) for clip in batch.clips[0]] == [[10, 12, 13, 15, 16, 18], [10, 11, 11, 12, 12, 13]]


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_output_types_and_the_rest_of_a_batch(zoo: Corpus, dtype: Any) -> None:
    batch = one_batch(zoo, [keyed(1, 7, View(1, 3), View(2, 4)), keyed(4, 8, View(1, 5), View(2, 6))], dtype=dtype)
    assert batch.clips.shape == (2, 2, 3, 4, 32, 32)
    assert batch.clips.dtype == getattr(torch, dtype)
    assert (batch.speeds.tolist(), batch.speeds.dtype) == ([[1, 2], [1, 2]], torch.float32)
    assert (batch.videos.tolist(), batch.videos.dtype) == ([1, 4], torch.int64)
    assert (batch.starts.tolist(), batch.starts.dtype) == ([[3, 4], [5, 6]], torch.int64)
    assert (batch.positions.tolist(), batch.epoch, len(batch)) == ([7, 8], -1, 2)
    if dtype != "uint8":
        raw = one_batch(zoo, list(batch.requests)).clips.permute(0, 1, 3, 4, 5, 2).double() / 255
        plain = Augment()
        wanted = ((raw - torch.tensor(plain.mean)) / torch.tensor(plain.std)).permute(0, 1, 5, 2, 3, 4)
        # uint8 rounds the resized picture, the others keep its fractions.
        assert (batch.clips.double() - wanted).abs().max() <= 0.5 / 255 / min(plain.std) + 2**-9


@pytest.mark.parametrize("corner", ["left", "right"])
def test_draws_given_with_a_view_are_the_ones_applied(tmp_path: Path, corner: str) -> None:
    corpus = corpus_of([make_video(tmp_path / "v.mkv", codec="mjpeg", frames=6, size=(128, 64))])
    left = 0.0 if corner == "left" else 0.5
    request = ClipRequest(0, (View(1, 1, Draws(left, 0.0, left + 0.5, 1.0, flip=True)),))
    clip = one_batch(corpus, [request], size=64).clips[0, 0].permute(1, 2, 3, 0).numpy()
    frames = read_frames(corpus, 0, [1, 2, 3, 4])[:, :, int(left * 128) :][:, :, :64]
    assert psnr(clip, frames[:, :, ::-1]) > 45


@pytest.mark.parametrize("draws", [Draws(brightness=2.0), Draws(saturation=0.0), Draws(blur=2.0)])
def test_draws_that_the_graph_cannot_apply_are_refused(zoo: Corpus, draws: Draws) -> None:
    # Without an augmentation the graph has no colour operator; ignoring what was asked for would be silent.
    with pytest.raises(DataError, match="augment"):
        one_batch(zoo, [ClipRequest(0, (View(1, 0, draws),))], augment=None)


def test_random_draws_come_from_the_key_and_differ_between_views(zoo: Corpus) -> None:
    augment = Augment()
    requests = [keyed(1, position, View(1, 5), View(1, 5)) for position in (0, 1, 0)]
    clips = one_batch(zoo, requests, augment=augment).clips
    assert torch.equal(clips[0], clips[2])
    assert not torch.equal(clips[0], clips[1])
    assert not torch.equal(clips[0, 0], clips[0, 1])


def test_all_frames_of_an_augmented_clip_are_treated_alike(tmp_path: Path) -> None:
    still = make_video(tmp_path / "still.mkv", codec="mjpeg", frames=1, size=(64, 64))
    corpus = corpus_of([still])
    clips = one_batch(
        corpus, [keyed(0, p, View(1, 0), View(2, 0)) for p in range(6)], augment=Augment(blur=0.5), dtype="float32"
    ).clips
    assert torch.equal(clips, clips[:, :, :, :1].expand_as(clips))


def test_batches_come_in_the_order_of_asking_whatever_the_threads(zoo: Corpus) -> None:
    requests = [
        [keyed(i % len(zoo), 10 * n + i, View(1, (7 * n + i) % 50)) for i in range(1 + n % 8)] for n in range(9)
    ]
    found: dict[int, list[ClipBatch]] = {}
    for threads in (1, 4):
        with stream_of(zoo, threads=threads, augment=Augment()) as stream:
            for batch in requests:
                stream.submit(batch)
            assert stream.pending == 9
            found[threads] = [stream.get() for _ in requests]
            assert (stream.stats.batches, stream.stats.samples) == (9, sum(len(batch) for batch in requests))
    for asked, a, b in zip(requests, found[1], found[4], strict=True):
        assert a.requests == b.requests == tuple(asked)
        assert torch.equal(a.clips, b.clips)


def test_a_request_gives_the_same_clip_in_any_batch(zoo: Corpus) -> None:
    requests = [keyed(i, i, View(1, 5 * i)) for i in range(8)]
    together = one_batch(zoo, requests, augment=Augment()).clips
    with stream_of(zoo, augment=Augment()) as stream:
        alone = [batch.clips[0] for batch in stream.map([request] for request in reversed(requests))]
    assert torch.equal(together, torch.stack(alone[::-1]))


@pytest.mark.parametrize("views", [1, 2])
def test_a_batch_that_is_kept_does_not_change(mixed: Corpus, views: int) -> None:
    check_kept_batches(mixed, "cpu", views)


@pytest.mark.parametrize("known", [True, False], ids=["the index knows", "DALI finds out"])
def test_a_video_whose_size_changes_does_not_poison_its_batch(videos: Path, tmp_path: Path, known: bool) -> None:
    odd = videos / "odd" / "fate__vp9_vp90-2-05-resize.mp4"
    good = make_plain(tmp_path, 3, 64, codec="vp9", suffix=".webm")
    corpus = corpus_of([good[0], odd, *good[1:]], **({} if known else {"uniform": True, "sliceable": True}))
    middle = corpus[1].frames // 2
    requests = [ClipRequest(i, (View(1, 0 if i != 1 else middle),)) for i in (0, 1, 2, 3)]
    with stream_of(corpus, size=64) as stream:
        for batch in stream.map([requests] * 3):
            assert batch.videos.tolist() == [0, 1, 2, 3]
            for at, first in ((0, 0), (2, 100), (3, 200)):
                assert numbers_shown(batch.clips[at, 0]) == list(range(first, first + 4))
            decoded = read_frames(corpus, 1, range(middle, middle + 4))
            height, width = decoded.shape[1:3]
            assert (
                abs(batch.clips[1].double().mean() - decoded[:, :, (width - height) // 2 :][:, :, :height].mean()) < 6
            )
        assert stream.stats.replaced == 0
        assert set(stream.stats.host_decoded) == (set() if known else {str(odd)})


def test_one_batch_that_cannot_be_made_leaves_the_others_alone(zoo: Corpus) -> None:
    with stream_of(zoo, size=96) as stream:
        stream.submit([ClipRequest(0, (View(1, 0),))])
        stream.submit([ClipRequest(1, (View(1, 99),))])
        stream.submit([ClipRequest(2, (View(1, 20),))])
        assert numbers_shown(stream.get().clips[0, 0])[0] == 0
        with pytest.raises(DataError, match=r"mjpeg\.avi: start=99 is outside the video's frames 0\.\.59"):
            stream.get()
        assert stream.pending == 1
        assert numbers_shown(stream.get().clips[0, 0])[0] == 20
        with pytest.raises(DataError, match="without a batch asked for"):
            stream.get()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"frames": 0}, "frames=0 must be at least 1"),
        ({"size": 0}, "size=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"views": 0}, "views=0"),
        ({"dtype": "bfloat16"}, "dtype='bfloat16' must be one of float16, float32, uint8"),
        ({"short": "cut"}, "short='cut' must be one of loop, skip, pad"),
        ({"device": "tpu"}, "device='tpu' must be auto, cpu, cuda or cuda:N"),
        ({"device": "mps"}, "device='mps' must be auto"),
        ({"decoder": "nvdec"}, "decoder='nvdec' must be one of auto, dali, host"),
        ({"window": "none"}, r"window='none' must be one of independent, shared, adjacent, adjacent\(n\)"),
        ({"window": "adjacent(3)", "views": 2}, r"window='adjacent\(3\)' asks for 3 views .* views=2"),
        ({"prefetch": 0}, "prefetch=0 must be at least 1"),
        ({"threads": 0}, "threads=0 must be at least 1, or None"),
    ],
)
def test_mistakes_name_the_key_the_value_and_what_would_be_right(
    zoo: Corpus, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        stream_of(zoo, **options)


@pytest.mark.parametrize("window", ["adjacent", "adjacent(2)"])
def test_a_replacement_has_windows_that_lie_to_each_other_as_asked(tmp_path: Path, window: str) -> None:
    paths = make_plain(tmp_path, 2, 96)
    corpus = corpus_of(paths)
    paths[0].unlink()
    sampler = ClipSampler(corpus, frames=4, speeds=(1, 2), window=window)
    position = next(p for p in range(2) if sampler.video(0, p) == 0)
    batch = one_batch(corpus, [sampler.request(0, position)], window=window)
    first, second = batch.starts[0].tolist()
    assert batch.videos.tolist() == [1] and second == first + 4
    assert numbers_shown(batch.clips[0, 1])[0] == 100 + second


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named(zoo: Corpus) -> None:
    with pytest.raises(DataError, match=r"device='cuda:0': torch .* sees no CUDA GPU; use auto or cpu"):
        stream_of(zoo, device="cuda:0")
    with stream_of(zoo, device="auto") as stream:
        assert stream.device == torch.device("cpu")


def test_requests_that_do_not_fit_the_stream_are_refused_at_once(zoo: Corpus) -> None:
    with stream_of(zoo, batch_size=2) as stream:
        one = ClipRequest(0, (View(1, 0),))
        with pytest.raises(DataError, match="3 requests in one batch; this stream takes 1 to 2"):
            stream.submit([one] * 3)
        with pytest.raises(DataError, match="0 requests"):
            stream.submit([])
        with pytest.raises(DataError, match="2 views; this stream makes 1"):
            stream.submit([ClipRequest(0, (View(1, 0), View(2, 0)))])
        with pytest.raises(DataError, match="without a batch asked for"):
            stream.get()


def test_a_corpus_without_usable_videos_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(DataError, match="none of the corpus's 1 videos is usable"):
        stream_of(corpus_of([tmp_path / "a.mp4"]))


def test_a_closed_stream_says_so_and_leaves_no_thread(zoo: Corpus) -> None:
    before = set(threading.enumerate())
    stream = stream_of(zoo, threads=3)
    for _ in range(5):
        stream.submit([ClipRequest(i, (View(1, 0),)) for i in range(8)])
    stream.close()
    stream.close()
    assert set(threading.enumerate()) <= before
    with pytest.raises(DataError, match="the stream is closed"):
        stream.submit([ClipRequest(0, (View(1, 0),))])
    with pytest.raises(DataError, match="the stream is closed"):
        stream.get()


@pytest.mark.parametrize("cycle", [False, True])
def test_a_stream_that_is_dropped_leaves_no_thread(zoo: Corpus, cycle: bool) -> None:
    before = set(threading.enumerate())
    stream = stream_of(zoo, threads=3)
    for _ in range(3):
        stream.submit([ClipRequest(i, (View(1, 0),)) for i in range(8)])
    if cycle:
        stream.itself = stream  # type: ignore[attr-defined]
    del stream
    gc.collect()
    assert set(threading.enumerate()) <= before


def test_sampled_requests_are_delivered_as_they_are(zoo: Corpus) -> None:
    sampler = ClipSampler(zoo, frames=4, seed=4, speeds=(1, 2, 4))
    requests = [sampler.request(0, position) for position in range(len(sampler))]
    batch = one_batch(zoo, requests, batch_size=len(sampler), size=96)
    assert batch.requests == tuple(requests)
    for request, clips in zip(requests, batch.clips, strict=True):
        for view, clip in zip(request.views, clips, strict=True):
            assert numbers_shown(clip) == expected(view.start, view.speed, 4, FRAMES)


def test_the_graph_may_have_fewer_threads_than_there_are_decoders(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", frames=30)
    corpus = Corpus.build(tmp_path, "folders")
    options: dict[str, Any] = {"frames": 4, "size": 16, "batch_size": 2, "device": "cpu", "dtype": "float32"}
    clips = []
    for graph_threads in (None, 1):
        with ClipStream(corpus, **options, threads=3, graph_threads=graph_threads) as stream:
            assert stream.threads == 3
            stream.submit([ClipRequest(0, (View(speed=1, start=3),)), ClipRequest(0, (View(speed=2, start=9),))])
            clips.append(stream.get().clips.clone())
    assert torch.equal(*clips)
    with pytest.raises(DataError, match="graph_threads=0 must be at least 1"):
        ClipStream(corpus, **options, graph_threads=0)
