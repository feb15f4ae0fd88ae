"""The sampler is a pure function of seed, epoch and position."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from video_rows import corpus_of_lengths, row

from dali_pipes import ClipSampler, Corpus, DataError, Key, even_requests
from dali_pipes.clips.sampler import replacement
from dali_pipes.clips.speed import Timing, frame_indices, span

CORPUS = corpus_of_lengths(*range(40, 60))


def test_an_epoch_visits_every_video_once_and_the_next_in_another_order() -> None:
    sampler = ClipSampler(CORPUS, frames=8)
    orders = [[sampler.video(epoch, p) for p in range(len(sampler))] for epoch in range(4)]
    assert all(sorted(order) == list(range(20)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4


def test_more_clips_per_video_are_further_passes_in_other_orders() -> None:
    sampler = ClipSampler(CORPUS, frames=8, clips_per_video=3)
    order = [sampler.video(0, p) for p in range(60)]
    assert all(sorted(order[i : i + 20]) == list(range(20)) for i in (0, 20, 40))
    assert order[:20] != order[20:40] != order[40:]
    visits = [sampler.request(0, p).views for p, video in enumerate(order) if video == 3]
    assert len(set(visits)) == 3


def test_without_shuffle_the_order_is_that_of_the_corpus() -> None:
    sampler = ClipSampler(CORPUS, frames=8, shuffle=False)
    assert [sampler.video(5, p) for p in range(20)] == list(range(20))


def test_requests_do_not_depend_on_the_order_in_which_they_are_made() -> None:
    forwards, backwards = (ClipSampler(CORPUS, frames=8, seed=3) for _ in range(2))
    places = [(epoch, position) for epoch in range(5) for position in range(20)]
    first = {place: forwards.request(*place) for place in places}
    assert {place: backwards.request(*place) for place in reversed(places)} == first
    assert all(request.key == Key(3, *place) for place, request in first.items())


def test_another_seed_is_another_run() -> None:
    a, b = (ClipSampler(CORPUS, frames=8, seed=seed) for seed in (0, 1))
    assert [a.request(0, p).views for p in range(20)] != [b.request(0, p).views for p in range(20)]
    assert [a.video(0, p) for p in range(20)] != [b.video(0, p) for p in range(20)]


def test_clips_never_run_past_the_end_and_reach_both_ends() -> None:
    sampler = ClipSampler(corpus_of_lengths(20), frames=8, speeds=(1, 2), clips_per_video=400)
    starts = np.array([[view.start for view in sampler.request(0, p).views] for p in range(400)])
    assert (starts.min(0).tolist(), starts.max(0).tolist()) == ([0, 0], [20 - 8, 20 - 15])
    assert np.corrcoef(starts.T)[0, 1] < 0.2  # independent windows


def test_a_shared_window_starts_all_views_together_and_holds_the_fastest() -> None:
    sampler = ClipSampler(corpus_of_lengths(20), frames=8, speeds=(1, 2), window="shared", clips_per_video=200)
    starts = [[view.start for view in sampler.request(0, p).views] for p in range(200)]
    assert all(a == b for a, b in starts)
    assert {a for a, _ in starts} == set(range(6))


def test_random_speed_order_is_a_fair_coin_and_keeps_the_set_of_speeds() -> None:
    sampler = ClipSampler(CORPUS, frames=8, speeds=(1, 2), speed_order="random", clips_per_video=20)
    orders = Counter(tuple(view.speed for view in sampler.request(0, p).views) for p in range(400))
    assert set(orders) == {(1.0, 2.0), (2.0, 1.0)}
    assert abs(orders[1.0, 2.0] - 200) < 50
    given = ClipSampler(CORPUS, frames=8, speeds=(2, 1))
    assert {tuple(view.speed for view in given.request(0, p).views) for p in range(20)} == {(2.0, 1.0)}


def test_one_clip_for_another_request_depends_on_place_and_role_only() -> None:
    sampler = ClipSampler(CORPUS, frames=8, seed=9, speed_order="random")
    request = sampler.single(4, 2, epoch=1, position=17, role=2)
    sampler.request(1, 17)
    assert request == ClipSampler(CORPUS, frames=8, seed=9).single(4, 2, epoch=1, position=17, role=2)
    assert (request.video, request.key, [view.speed for view in request.views]) == (4, Key(9, 1, 17, 2), [2.0])
    others = {sampler.single(4, 2, epoch=1, position=17, role=role).views[0].start for role in range(30)}
    assert len(others) > 10


@pytest.mark.parametrize("window", ["independent", "shared"])
def test_short_videos_start_at_their_first_frame_or_are_left_out(window: Any) -> None:
    corpus = corpus_of_lengths(14, 15, 16)
    looped = ClipSampler(corpus, frames=8, speeds=(2,), window=window, clips_per_video=30)
    starts = {(r.video, r.views[0].start) for r in (looped.request(0, p) for p in range(90))}
    assert starts == {(0, 0), (1, 0), (2, 0), (2, 1)}
    assert ClipSampler(corpus, frames=8, speeds=(2,), short="skip").videos.tolist() == [1, 2]


def test_skip_counts_the_frames_that_the_reference_rate_asks_for() -> None:
    corpus = Corpus.from_rows([row(0, 20, rate=25.0), row(1, 20, rate=50.0)])
    assert ClipSampler(corpus, frames=8, speeds=(2,), short="skip", fps=25).videos.tolist() == [0]
    slow = ClipSampler(corpus, frames=8, speeds=(1,), short="skip", fps=50)
    assert slow.videos.tolist() == [0, 1]
    assert max(slow.request(e, p).views[0].start for e in range(99) for p in range(2) if slow.video(e, p) == 0) == 15


def test_only_usable_videos_of_the_split_are_taken() -> None:
    corpus = Corpus.from_rows(
        [row(0, 9, split="train"), row(1, 9, split="test"), row(2, 9, split="train", error="broken"), row(3, 9)]
    )
    assert ClipSampler(corpus, frames=4, split="train").videos.tolist() == [0]
    assert ClipSampler(corpus, frames=4).videos.tolist() == [0, 1, 3]


@pytest.mark.parametrize(
    "options",
    [{"short": "skip"}, {"short": "loop"}, {"short": "skip", "window": "shared", "speed_order": "random"}],
)
def test_clips_of_a_variable_rate_stay_within_a_video_that_is_long_enough(options: dict[str, Any]) -> None:
    # Slow, then fast: 30 frames 70 ms apart, 30 frames 10 ms apart.
    stamps = np.cumsum([0] + [70] * 29 + [10] * 30)
    corpus = Corpus.from_rows([row(0, 60, constant=False, timestamps=stamps.tolist(), rate=1000 * 59 / stamps[-1])])
    sampler = ClipSampler(corpus, frames=8, speeds=(1, 2), clips_per_video=100, **options)
    timing = Timing(60, float(corpus.rate[0]), stamps)
    clips = [
        frame_indices(timing, view.start, 8, view.speed, short="skip")
        for position in range(100)
        for view in sampler.request(0, position).views
    ]
    assert all((np.diff(clip) >= 0).all() for clip in clips)
    even = even_requests(corpus, 0, frames=8, clips=5, speed=2.0)
    for view in even.views:
        assert (np.diff(frame_indices(timing, view.start, 8, 2.0, short="skip")) >= 0).all()


@pytest.mark.parametrize("clips", [1, 2, 3, 10])
def test_evaluation_clips_are_spread_evenly_from_first_to_last(clips: int) -> None:
    for video, total in ((0, 40), (10, 50), (19, 59)):
        request = even_requests(CORPUS, video, frames=16, clips=clips, speed=2.0)
        starts = [view.start for view in request.views]
        room = total - span(16, 2.0)
        assert len(starts) == clips
        assert all(view.draws is None and view.speed == 2.0 for view in request.views)
        if clips == 1:
            assert abs(starts[0] - room / 2) <= 0.5
        else:
            assert (starts[0], starts[-1]) == (0, room)
            assert np.abs(np.diff(starts) - room / (clips - 1)).max() <= 1


def test_evaluation_clips_of_a_short_video_all_start_at_its_first_frame() -> None:
    assert [v.start for v in even_requests(corpus_of_lengths(5), 0, frames=8, clips=3).views] == [0, 0, 0]


def test_a_replacement_depends_on_the_key_and_keeps_the_speeds() -> None:
    videos = np.arange(20)
    request = ClipSampler(CORPUS, frames=8, seed=2, speed_order="random").request(0, 6)
    first = replacement(request, 1, CORPUS, videos, 8, None)
    assert first == replacement(request, 1, CORPUS, videos, 8, None)
    assert first.key == request.key
    assert [v.speed for v in first.views] == [v.speed for v in request.views]
    assert {replacement(request, attempt, CORPUS, videos, 8, None).video for attempt in range(1, 40)} > {first.video}
    assert all(replacement(request, a, CORPUS, videos, 8, None).video != request.video for a in range(1, 200))


def test_the_only_video_cannot_be_replaced() -> None:
    corpus = corpus_of_lengths(30)
    with pytest.raises(DataError, match=r"/videos/0\.mp4 .* no other video"):
        replacement(ClipSampler(corpus, frames=4).request(0, 0), 1, corpus, np.arange(1), 4, None)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"frames": 0}, "frames=0 must be at least 1"),
        ({"speeds": ()}, r"speeds=\(\) must be one or more numbers"),
        ({"speeds": (1, 0)}, r"speeds=\(1, 0\): 0 must be a number in 0\.25\.\.16"),
        ({"speeds": (0.2, 1)}, r"0\.2 must be a number in 0\.25\.\.16"),
        ({"speeds": (1, (2, 17))}, r"17 must be a number in 0\.25\.\.16"),
        ({"speeds": (1, ())}, "must be one or more numbers"),
        ({"speeds": 2}, r"speeds=2 must be a list with one for each view, such as \(1, 2\)"),
        ({"speeds": ("2x",)}, "must be one or more numbers"),
        ({"reverse": 1.5}, "reverse=1.5 must be a probability"),
        ({"jitter": 0.6}, r"jitter=0\.6 must lie in 0\.\.0\.5"),
        ({"window": "adjacent(3)"}, "asks for 3 views and speeds has 2"),
        ({"speeds": (float("inf"),)}, r"speeds=\(inf,\)"),
        ({"speeds": (float("nan"),)}, r"speeds=\(nan,\)"),
        ({"window": "both"}, "window='both' must be one of independent, shared"),
        ({"short": "stop"}, "short='stop' must be one of loop, skip, pad"),
        ({"speed_order": "any"}, "speed_order='any' must be one of given, random"),
        ({"clips_per_video": 0}, "clips_per_video=0 must be at least 1"),
        ({"seed": -1}, "seed=-1 must not be negative"),
        ({"fps": 0}, "fps=0 must be a positive frame rate"),
        ({"split": "valid"}, "split 'valid'"),
        ({"frames": 100, "short": "skip"}, "no video has the 199 frames .* use short='loop'"),
    ],
)
def test_mistakes_name_the_key_the_value_and_what_would_be_right(options: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        ClipSampler(CORPUS, **({"frames": 8} | options))


def test_a_corpus_without_usable_videos_is_refused() -> None:
    with pytest.raises(DataError, match="no usable video among the corpus's 1"):
        ClipSampler(Corpus.from_rows([row(0, 0, error="empty")]), frames=4)


def test_a_position_outside_the_epoch_is_refused() -> None:
    with pytest.raises(IndexError, match=r"0\.\.19"):
        ClipSampler(CORPUS, frames=4).request(0, 20)


def test_requests_leave_nothing_behind_in_memory_and_threads_draw_alike() -> None:
    corpus = corpus_of_lengths(*[40] * 5000)
    sampler = ClipSampler(corpus, frames=8, seed=3)
    alone = list(sampler.requests(1, 0, 2000))
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda position: sampler.request(1, position), range(2000)))
    assert together == alone
    tracemalloc.start()
    for _ in sampler.requests(1, 0, 200):
        pass
    before = tracemalloc.get_traced_memory()[0]
    for _ in sampler.requests(1, 0, 5000):
        pass
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert after - before < 20_000
