"""The loader on a GPU: twins of tests/dali_pipes/test_loader.py and test_stream.py, by the same checks."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from loader_checks import (
    check_kept_batches,
    check_lost_corpus,
    check_ranks,
    check_replacement,
    check_resume,
    check_settings_do_not_matter,
    corpus_of,
    kept,
    keyed,
    loader_of,
    make_plain,
    numbers_shown,
)

from dali_pipes import Augment, ClipStream, Corpus, View

SIDE = 160


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Four MJPEG videos, which the host decodes, and three H.264 ones, which NVDEC does."""
    folder = tmp_path_factory.mktemp("gpu_mixed")
    return corpus_of(make_plain(folder, 4, SIDE) + make_plain(folder, 3, SIDE, codec="h264", suffix=".mp4"))


def test_threads_and_prefetch_change_no_bit(mixed: Corpus) -> None:
    check_settings_do_not_matter(mixed, "cuda")


def test_two_ranks_make_together_what_one_makes_alone(mixed: Corpus) -> None:
    check_ranks(mixed, "cuda")


def test_a_resumed_loader_goes_on_to_the_bit_over_the_end_of_the_epoch(mixed: Corpus) -> None:
    check_resume(mixed, "cuda")


@pytest.mark.parametrize(("codec", "suffix"), [("h264", ".mkv"), ("vp9", ".webm"), ("mjpeg", ".mkv")])
def test_files_that_go_bad_are_replaced_alike_in_every_run(tmp_path: Path, codec: str, suffix: str) -> None:
    check_replacement(tmp_path, SIDE, "cuda", codec=codec, suffix=suffix)


def test_a_corpus_of_which_nothing_is_left_is_an_error_that_names_a_video(tmp_path: Path) -> None:
    check_lost_corpus(tmp_path, "cuda")


@pytest.mark.parametrize("views", [1, 2])
def test_a_batch_that_is_kept_does_not_change(mixed: Corpus, views: int) -> None:
    check_kept_batches(mixed, "cuda", views)


def test_a_batch_used_on_another_cuda_stream_is_whole(mixed: Corpus) -> None:
    requests = [[keyed(i, n, View(1, n), View(2, n)) for i in range(4)] for n in range(20)]
    found = {}
    for side_stream in (False, True):
        stream = torch.cuda.Stream() if side_stream else torch.cuda.default_stream()
        with (
            torch.cuda.stream(stream),
            ClipStream(
                mixed, frames=8, size=SIDE, batch_size=4, views=2, device="cuda", augment=Augment(), threads=2
            ) as clips,
        ):
            # Batches are dropped as soon as they are used, so their memory is there for the next ones.
            found[side_stream] = torch.stack([batch.clips.double().mean() for batch in clips.map(requests)]).cpu()
    assert torch.equal(found[False], found[True])


def test_a_video_whose_size_changes_does_not_poison_its_batch(videos: Path, tmp_path: Path) -> None:
    odd = videos / "odd" / "fate__vp9_vp90-2-05-resize.mp4"
    good = make_plain(tmp_path, 3, SIDE, codec="h264", suffix=".mp4")
    # As if the index had not seen it, so that NVDEC meets it.
    corpus = corpus_of([good[0], odd, *good[1:]], uniform=True, sliceable=True)
    requests = [keyed(i, i, View(1, 0)) for i in range(4)]
    with ClipStream(corpus, frames=4, size=SIDE, batch_size=4, device="cuda", dtype="uint8", threads=2) as stream:
        for batch in stream.map([requests] * 3):
            assert batch.videos.tolist() == [0, 1, 2, 3]
            for at, first in ((0, 0), (2, 100), (3, 200)):
                assert numbers_shown(batch.clips[at, 0]) == list(range(first, first + 4))


def test_one_epoch_over_a_folder_of_real_videos(videos: Path) -> None:
    suffixes = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".wmv", ".ts", ".gif"}
    paths = sorted(path for path in videos.rglob("*") if path.suffix in suffixes)
    with loader_of(corpus_of(paths), "cuda", batch_size=8, frames=8, size=112, threads=8, split=None) as loader:
        batches = list(loader)
        assert len(batches) == len(loader)
        assert all(batch.clips.isfinite().all() for batch in batches)
        assert len(loader.stats.bad) <= 3, loader.stats.bad


def test_closing_leaves_no_thread_and_keeps_delivered_batches(mixed: Corpus) -> None:
    before = set(threading.enumerate())
    with loader_of(mixed, "cuda", threads=2) as loader:
        batches = kept(loader, 3)
    assert set(threading.enumerate()) <= before
    assert all(batch.clips.isfinite().all() for batch in batches)
