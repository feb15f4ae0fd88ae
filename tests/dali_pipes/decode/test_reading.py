"""Opening videos by their headers alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from loader_checks import ZOO

from dali_pipes import Corpus
from dali_pipes.corpus import Video
from dali_pipes.corpus.probe import open_video
from dali_pipes.decode.reading import reading

pytest_plugins = ["loader_fixtures"]


def packets(video: Video, *, quick: bool) -> list[tuple[int | None, bool, bytes]]:
    """Time stamp, key frame or not, and bytes of each packet."""
    opened = reading(video, "read", undecoded=True) if quick else open_video(video.uri)
    with opened as container:
        return [(one.pts, one.is_keyframe, bytes(one)) for one in container.demux(video=0) if one.size]


@pytest.mark.parametrize("kind", ZOO)
def test_packets_read_by_the_header_alone_are_those_that_are_read_in_full(zoo: Corpus, kind: str) -> None:
    video = zoo[list(ZOO).index(kind)]
    assert packets(video, quick=True) == packets(video, quick=False)


def test_packets_of_odd_files_read_by_the_header_alone_are_those_that_are_read_in_full(videos: Path) -> None:
    corpus = Corpus.build(videos / "odd", progress=False)
    sliceable = [video for video in corpus if not video.error and video.sliceable]
    assert len(sliceable) > 30
    for video in sliceable:
        assert packets(video, quick=True) == packets(video, quick=False), video.uri
