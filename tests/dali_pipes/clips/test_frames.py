"""Reverse, jitter and any speed, against a slow reference that looks through all frames for each one shown."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from video_rows import row

from dali_pipes import ClipRequest, ClipSampler, Corpus, Key, View
from dali_pipes.clips.frames import clip_frames
from dali_pipes.clips.sampler import replacement, timing_of
from dali_pipes.clips.speed import Timing, frame_indices, last_start, span

UNEVEN = np.cumsum([0] + [10, 10, 70, 40, 5, 90, 33, 33] * 12).astype(np.int64) + 1234
TICKS = 1000.0  # a second


def assert_nearest(times: np.ndarray, clip: np.ndarray, start: int, per_second: float) -> None:
    """Frame i is wanted i / per_second seconds after the first one, and no frame of the video lies nearer."""
    for i, number in enumerate(clip):
        wanted = float(times[start]) + i / per_second
        assert abs(times[number] - wanted) <= min(abs(times - wanted)) + 1e-9, (start, i, number)


@pytest.mark.parametrize("fps", [None, 10.0, 24.0])
@pytest.mark.parametrize("speed", [0.25, 0.37, 1.0, 1.7, 3.0, 16.0])
def test_any_speed_shows_the_frames_nearest_in_time(speed: float, fps: float | None) -> None:
    uneven = (UNEVEN - UNEVEN[0]) / TICKS
    even = np.arange(600) / 30.1
    clocks = [
        (uneven, Timing(len(UNEVEN), (len(UNEVEN) - 1) / float(uneven[-1]), UNEVEN)),
        (even, Timing(600, 30.1)),
    ]
    for times, timing in clocks:
        per_second = (fps or timing.rate) / speed
        for start in range(0, 60, 7):
            fits = min(8, int((times[-1] - times[start]) * per_second) + 1)
            assert_nearest(times, frame_indices(timing, start, fits, speed, fps=fps), start, per_second)


def request_of(view: View, position: int = 0) -> ClipRequest:
    return ClipRequest(0, (View(1, 0), view), Key(3, 1, position))


@pytest.mark.parametrize("timing", [Timing(97, 25.0), Timing(len(UNEVEN), 25.0, UNEVEN)])
def test_reverse_shows_the_same_window_backwards(timing: Timing) -> None:
    for speed in (0.5, 1.0, 1.5, 4.0):
        forwards = clip_frames(timing, request_of(View(speed, 20)), 1, 8)
        backwards = clip_frames(timing, request_of(View(speed, 20, reverse=True)), 1, 8)
        assert backwards.tolist() == forwards.tolist()[::-1]
        jittered = [
            clip_frames(timing, request_of(View(speed, 20, None, r, 0.4)), 1, 8).tolist() for r in (False, True)
        ]
        assert jittered[0] == jittered[1][::-1]


@pytest.mark.parametrize("timing", [Timing(97, 25.0), Timing(len(UNEVEN), 25.0, UNEVEN)])
@pytest.mark.parametrize("speed", [0.5, 1.0, 3.0, 5.5])
def test_jitter_keeps_the_order_and_the_window_and_moves_no_frame_too_far(timing: Timing, speed: float) -> None:
    start = last_start(timing, 8, speed)
    even = frame_indices(timing, start, 8, speed, short="skip")
    seen = set()
    for position in range(60):
        request = request_of(View(speed, start, jitter=0.5), position)
        got = clip_frames(timing, request, 1, 8, short="skip")
        assert got.tolist() == clip_frames(timing, request, 1, 8, short="skip").tolist()
        assert (np.diff(got) >= 0).all()
        assert even[0] <= got[0] and got[-1] <= even[-1]
        if timing.timestamps is None:
            assert np.abs(got - even).max() <= speed / 2 + 1
        seen.add(tuple(got.tolist()))
    assert len(seen) > 5 or speed <= 1  # half a frame and less is rounded away


def test_jitter_is_spread_evenly_over_both_sides() -> None:
    timing, moved = Timing(10_000, 25.0), []
    for position in range(400):
        moved.append(
            clip_frames(timing, request_of(View(16, 50, jitter=0.25), position), 1, 8) - 50 - np.arange(8) * 16
        )
    inner = np.concatenate(moved).reshape(-1, 8)[:, 1:-1]  # the first and the last one cannot leave the window
    assert (inner.min(), inner.max()) == (-4, 4)
    assert abs(inner.mean()) < 0.2


def test_two_views_of_a_request_are_moved_apart() -> None:
    request = ClipRequest(0, (View(8, 5, jitter=0.5),) * 2, Key(1))
    first, second = (clip_frames(Timing(400, 25.0), request, view, 8).tolist() for view in (0, 1))
    assert first != second


def test_jitter_of_short_videos_loops_like_the_rest() -> None:
    for timing in (Timing(9, 25.0), Timing(9, 25.0, UNEVEN[:9])):
        for position in range(30):
            got = clip_frames(timing, request_of(View(4, 0, jitter=0.5), position), 1, 8)
            assert got.min() >= 0 and got.max() < 9


@pytest.mark.parametrize(
    ("view", "words"),
    [
        (View(1, 0, jitter=0.7), "jitter=0.7 must lie in 0..0.5"),
        (View(0.1, 0), "speed=0.1 must be a number in 0.25..16"),
    ],
)
def test_views_out_of_range_are_named(view: View, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        clip_frames(Timing(50, 25.0), request_of(view), 1, 4)


def test_a_sampler_draws_reverse_and_speed_for_each_view_and_shifts_nothing_else() -> None:
    corpus = Corpus.from_rows([row(i, 500) for i in range(500)])
    plain = ClipSampler(corpus, frames=8, speeds=(1, 2), seed=4)
    varied = ClipSampler(corpus, frames=8, speeds=(1, 2), seed=4, reverse=0.3, jitter=0.2)
    views = []
    for a, b in zip(plain.requests(0, 0, 500), varied.requests(0, 0, 500), strict=True):
        assert [(v.speed, v.start) for v in a.views] == [(v.speed, v.start) for v in b.views]
        assert not any(v.reverse or v.jitter for v in a.views)
        assert all(v.jitter == 0.2 for v in b.views)
        views.append([v.reverse for v in b.views])
    share = np.array(views)
    assert np.abs(share.mean(0) - 0.3).max() < 0.08
    assert abs(np.corrcoef(share.T)[0, 1]) < 0.15
    assert {v.reverse for r in ClipSampler(corpus, frames=8, reverse=1).requests(0, 0, 50) for v in r.views} == {True}


def test_a_view_with_several_speeds_draws_one_for_each_request() -> None:
    corpus = Corpus.from_rows([row(i, 500) for i in range(300)])
    sampler = ClipSampler(corpus, frames=8, speeds=(1, (0.5, 2, 8), (4,)), seed=4)
    assert sampler.speed_classes == (0.5, 1.0, 2.0, 4.0, 8.0)
    drawn = np.array([[v.speed for v in request.views] for request in sampler.requests(2, 0, 300)])
    assert set(drawn[:, 0]) == {1.0} and set(drawn[:, 2]) == {4.0}
    for speed in (0.5, 2.0, 8.0):
        assert abs((drawn[:, 1] == speed).mean() - 1 / 3) < 0.1
    # A request is a function of its place: made alone it is the same.
    assert sampler.request(2, 77) == ClipSampler(corpus, frames=8, speeds=(1, (0.5, 2, 8), 4), seed=4).request(2, 77)
    shuffled = ClipSampler(corpus, frames=8, speeds=(1, (0.5, 2, 8), 4), seed=4, speed_order="random")
    for position in range(50):
        speeds = [v.speed for v in shuffled.request(2, position).views]
        assert sorted(speeds) == sorted(drawn[position])


def test_a_replacement_keeps_speed_reverse_and_jitter_of_each_view() -> None:
    corpus = Corpus.from_rows([row(i, 300) for i in range(20)])
    sampler = ClipSampler(corpus, frames=8, speeds=((1, 2), 4), window="adjacent", reverse=0.5, jitter=0.1)
    for position in range(20):
        old = sampler.request(0, position)
        new = replacement(old, 1, corpus, sampler.videos, 8, None, "adjacent")
        kept = [[(v.speed, v.reverse, v.jitter) for v in request.views] for request in (old, new)]
        assert kept[0] == kept[1] and new.video != old.video
        assert new.views[1].start == new.views[0].start + span(8, new.views[0].speed)


def adjacent_windows(corpus: Corpus, sampler: ClipSampler, position: int) -> list[list[int]]:
    request = sampler.request(0, position)
    timing = timing_of(corpus, request.video)
    return [clip_frames(timing, request, v, 8, fps=sampler.fps).tolist() for v in range(len(request.views))]


@pytest.mark.parametrize("fps", [None, 20.0])
@pytest.mark.parametrize("constant", [True, False])
def test_adjacent_windows_follow_one_another_and_reach_both_ends(constant: bool, fps: float | None) -> None:
    rate = 25.0 if constant else TICKS * (len(UNEVEN) - 1) / float(UNEVEN[-1] - UNEVEN[0])
    stamps = {} if constant else {"constant": False, "timestamps": UNEVEN.tolist()}
    corpus = Corpus.from_rows([row(0, len(UNEVEN), rate=rate, **stamps)])
    sampler = ClipSampler(
        corpus, frames=8, speeds=(1, 2, 0.5), window="adjacent", short="skip", clips_per_video=900, fps=fps
    )
    first, last = set(), 0
    for position in range(900):
        windows = adjacent_windows(corpus, sampler, position)
        for before, after in pairwise(windows):
            assert after[0] == before[-1] + 1
        assert all(window == sorted(window) for window in windows)
        first.add(windows[0][0])
        last = max(last, windows[-1][-1])
    assert first == set(range(max(first) + 1))
    assert last >= len(UNEVEN) - (1 if constant else 4)


def test_adjacent_windows_of_short_videos_start_at_frame_0_and_loop() -> None:
    for stamps in ({}, {"constant": False, "timestamps": UNEVEN[:20].tolist()}):
        corpus = Corpus.from_rows([row(0, 20, **stamps)])
        sampler = ClipSampler(corpus, frames=8, speeds=(2, 2, 1), window="adjacent")
        windows = adjacent_windows(corpus, sampler, 0)
        assert windows[0][0] == 0
        assert [w[0] for w in windows[1:]] == [(w[-1] + 1) % 20 for w in windows[:-1]]


def test_adjacent_with_a_number_repeats_a_single_speed() -> None:
    corpus = Corpus.from_rows([row(0, 100), row(1, 23)])
    sampler = ClipSampler(corpus, frames=8, speeds=(1,), window="adjacent(3)", short="skip")
    assert (sampler.window, sampler.speeds, sampler.videos.tolist()) == ("adjacent", (1.0, 1.0, 1.0), [0])
    starts = [view.start for view in sampler.request(0, 0).views]
    assert np.diff(starts).tolist() == [8, 8]
