"""What the sampler draws does not change from one version to the next: published results depend on it."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from video_rows import row

from dali_pipes import ClipRequest, ClipSampler, Corpus
from dali_pipes.clips.sampler import replacement

STAMPS = np.cumsum([0] + [70] * 29 + [10] * 30)
CORPUS = Corpus.from_rows(
    [row(i, 20 + 7 * i) for i in range(9)]
    + [row(9, 60, constant=False, timestamps=STAMPS.tolist(), rate=1000 * 59 / STAMPS[-1])]
)
OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "shared": {"window": "shared"},
    "random": {"speed_order": "random", "speeds": (1, 2, 4)},
    "fps": {"fps": 20.0, "speeds": (0.5, 1.5)},
    "skip": {"short": "skip", "speeds": (4,)},
    "order": {"shuffle": False},
}
PLACES = ((0, 0), (0, 3), (0, 13), (3, 5), (3, 7), (2, 1))
# Video, key and (speed, start) of each view, as version 1.0 drew them.
DRAWN: dict[str, list[Any]] = {
    "default": [
        (5, (11, 0, 0, 0), ((1.0, 23), (2.0, 19))),
        (1, (11, 0, 3, 0), ((1.0, 1), (2.0, 3))),
        (6, (11, 0, 13, 0), ((1.0, 33), (2.0, 32))),
        (6, (11, 3, 5, 0), ((1.0, 10), (2.0, 34))),
        (2, (11, 3, 7, 0), ((1.0, 20), (2.0, 12))),
        (4, (11, 2, 1, 0), ((1.0, 6), (2.0, 29))),
    ],
    "shared": [
        (5, (11, 0, 0, 0), ((1.0, 19), (2.0, 19))),
        (1, (11, 0, 3, 0), ((1.0, 1), (2.0, 1))),
        (6, (11, 0, 13, 0), ((1.0, 29), (2.0, 29))),
        (6, (11, 3, 5, 0), ((1.0, 9), (2.0, 9))),
        (2, (11, 3, 7, 0), ((1.0, 15), (2.0, 15))),
        (4, (11, 2, 1, 0), ((1.0, 5), (2.0, 5))),
    ],
    "random": [
        (5, (11, 0, 0, 0), ((2.0, 35), (4.0, 10), (1.0, 27))),
        (1, (11, 0, 3, 0), ((1.0, 1), (4.0, 0), (2.0, 10))),
        (6, (11, 0, 13, 0), ((2.0, 14), (4.0, 11), (1.0, 29))),
        (6, (11, 3, 5, 0), ((1.0, 30), (4.0, 19), (2.0, 47))),
        (2, (11, 3, 7, 0), ((1.0, 3), (4.0, 4), (2.0, 0))),
        (4, (11, 2, 1, 0), ((4.0, 6), (2.0, 16), (1.0, 22))),
    ],
    "fps": [
        (5, (11, 0, 0, 0), ((0.5, 24), (1.5, 19))),
        (1, (11, 0, 3, 0), ((0.5, 2), (1.5, 4))),
        (6, (11, 0, 13, 0), ((0.5, 35), (1.5, 33))),
        (6, (11, 3, 5, 0), ((0.5, 11), (1.5, 35))),
        (2, (11, 3, 7, 0), ((0.5, 22), (1.5, 13))),
        (4, (11, 2, 1, 0), ((0.5, 6), (1.5, 30))),
    ],
    "skip": [
        (4, (11, 0, 0, 0), ((4.0, 9),)),
        (7, (11, 0, 3, 0), ((4.0, 3),)),
        (8, (11, 0, 13, 0), ((4.0, 29),)),
        (7, (11, 3, 5, 0), ((4.0, 7),)),
        (2, (11, 3, 7, 0), ((4.0, 4),)),
        (8, (11, 2, 1, 0), ((4.0, 7),)),
    ],
    "order": [
        (0, (11, 0, 0, 0), ((1.0, 6), (2.0, 2))),
        (3, (11, 0, 3, 0), ((1.0, 3), (2.0, 7))),
        (3, (11, 0, 13, 0), ((1.0, 20), (2.0, 18))),
        (5, (11, 3, 5, 0), ((1.0, 9), (2.0, 29))),
        (7, (11, 3, 7, 0), ((1.0, 47), (2.0, 34))),
        (1, (11, 2, 1, 0), ((1.0, 3), (2.0, 11))),
    ],
}


def plain(request: ClipRequest) -> tuple[Any, ...]:
    return request.video, tuple(request.key), tuple((view.speed, view.start) for view in request.views)


def sampler_of(name: str = "default") -> ClipSampler:
    return ClipSampler(CORPUS, frames=8, seed=11, clips_per_video=2, **OPTIONS[name])


@pytest.mark.parametrize("name", DRAWN)
def test_requests_are_drawn_as_ever(name: str) -> None:
    sampler = sampler_of(name)
    assert [plain(sampler.request(*place)) for place in PLACES] == DRAWN[name]


def test_eight_hundred_requests_are_drawn_as_ever() -> None:
    sampler = sampler_of()
    digest = hashlib.sha256()
    for epoch in range(40):
        for position in range(20):
            digest.update(repr(plain(sampler.request(epoch, position))).encode())
    assert digest.hexdigest()[:16] == "77cbc85cdb018ffb"


def test_clips_for_the_place_of_another_request_are_drawn_as_ever() -> None:
    sampler = sampler_of()
    assert plain(sampler.single(4, 2, epoch=1, position=17, role=2)) == (4, (11, 1, 17, 2), ((2.0, 0),))
    assert plain(sampler.single(9, 1.5, epoch=1, position=17, role=1)) == (9, (11, 1, 17, 1), ((1.5, 12),))


def test_replacements_are_drawn_as_ever() -> None:
    sampler = sampler_of()
    request = sampler.request(1, 4)
    apart = [plain(replacement(request, a, CORPUS, sampler.videos, 8, None)) for a in (1, 2, 7)]
    shared = [plain(replacement(request, a, CORPUS, sampler.videos, 8, None, "shared")) for a in (1, 2, 7)]
    assert apart == [
        (2, (11, 1, 4, 0), ((1.0, 16), (2.0, 3))),
        (8, (11, 1, 4, 0), ((1.0, 2), (2.0, 53))),
        (9, (11, 1, 4, 0), ((1.0, 11), (2.0, 7))),
    ]
    assert shared == [
        (2, (11, 1, 4, 0), ((1.0, 12), (2.0, 12))),
        (8, (11, 1, 4, 0), ((1.0, 2), (2.0, 2))),
        (9, (11, 1, 4, 0), ((1.0, 9), (2.0, 9))),
    ]


def test_large_seeds_and_epochs_are_drawn_as_ever() -> None:
    request = ClipSampler(CORPUS, frames=8, seed=2**63 + 5).request(2**40, 3)
    assert plain(request) == (7, (9223372036854775813, 1099511627776, 3, 0), ((1.0, 46), (2.0, 34)))
