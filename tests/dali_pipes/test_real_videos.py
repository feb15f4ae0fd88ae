"""The loader over a folder of real videos, the awkward and broken ones included."""

from __future__ import annotations

import faulthandler
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from loader_checks import corpus_of, loader_of, pictures

from dali_pipes import ClipRequest, ClipStream, Corpus, View, read_frames

SUFFIXES = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".wmv", ".ts", ".gif"}


@pytest.fixture(scope="module")
def everything(videos: Path) -> Corpus:
    """All files, Weizmann's thinned out: its 90 are of one kind."""
    paths = sorted(path for path in videos.rglob("*") if path.suffix in SUFFIXES)
    return corpus_of([path for i, path in enumerate(paths) if "weizmann" not in path.parts or i % 9 == 0])


@pytest.fixture(autouse=True)
def _no_hanging() -> Iterator[None]:
    faulthandler.dump_traceback_later(240, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def test_one_epoch_over_the_whole_folder_neither_ends_early_nor_loses_a_video(everything: Corpus) -> None:
    with loader_of(everything, "cpu", batch_size=8, frames=8, threads=2, split=None) as loader:
        batches = list(loader)
        stats = loader.stats
    assert len(batches) == len(loader) == len(loader.sampler) // 8
    assert all(batch.clips.isfinite().all() for batch in batches)
    seen = torch.cat([batch.videos for batch in batches]).tolist()
    assert len(set(seen)) >= len(seen) - stats.replaced
    # What the index calls usable is so, apart from a few files that are broken in the middle.
    assert stats.replaced == len(stats.bad) <= 3, stats.bad
    assert all(reason for reason in stats.bad.values())


@pytest.mark.parametrize(
    "name",
    [
        "ucf101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi",
        "hmdb51/wave/TrumanShow_wave_f_nm_np1_fr_med_26.avi",
        "kinetics400/part_0.mp4",
        "kinetics400/sample_0004.mp4",
        "misc/v_shooting_01_01.mpg",
        "odd/fate__mpeg4_packed_bframes.avi",
        "odd/exo__mp4_testvid_1022ms.mp4",
        "odd/fate__h264_mov-1elist-ends-last-bframe.mp4",
        "odd/exo__ts_sample_h265.ts",
        "odd/torchcodec__testsrc2_vp9.webm",
    ],
)
def test_frames_anywhere_in_real_files_equal_a_sequential_decode(videos: Path, name: str) -> None:
    found = list(videos.glob(name)) or list(videos.rglob(Path(name).name))
    if not found:
        pytest.skip(f"{name} is not in {videos}")
    corpus = corpus_of(found[:1])
    truth = pictures(found[0])
    total = corpus[0].frames
    assert len(truth) == total
    if corpus[0].rotation:
        truth = np.rot90(truth, -corpus[0].rotation // 90, axes=(1, 2))
    rng = np.random.default_rng(0)
    for first in (0, total - 1, *rng.integers(0, total, 2)):
        wanted = np.unique(np.concatenate([first + np.arange(8), rng.integers(0, total, 2)]).clip(0, total - 1))
        assert np.array_equal(read_frames(corpus, 0, wanted), truth[wanted]), wanted


def test_vp9_made_by_others_is_decoded_by_dali_to_the_same_pictures(videos: Path) -> None:
    paths = sorted((videos / "odd").glob("torchcodec__testsrc2_vp9.webm"))
    if not paths:
        pytest.skip(f"no VP9 file in {videos}")
    corpus = corpus_of(paths)
    starts = [0, corpus[0].frames // 2, corpus[0].frames - 4]
    side = min(corpus[0].width, corpus[0].height)
    with ClipStream(
        corpus, frames=4, size=side, batch_size=3, device="cpu", dtype="uint8", decoder="dali", threads=1
    ) as dali:
        dali.submit([ClipRequest(0, (View(1, s),)) for s in starts])
        ours = dali.get().clips
        assert dali.stats.host_decoded == {}
    with ClipStream(
        corpus, frames=4, size=side, batch_size=3, device="cpu", dtype="uint8", decoder="host", threads=1
    ) as host:
        host.submit([ClipRequest(0, (View(1, s),)) for s in starts])
        theirs = host.get().clips
    # Neither is scaled: only the conversion to RGB differs, most of it in how colour is interpolated at sharp edges.
    near = (ours.double() - theirs).abs().mean(dim=(1, 2, 4, 5))
    other = (ours.double() - theirs.roll(1, dims=3)).abs().mean(dim=(1, 2, 4, 5))
    assert (near < 2).all()
    assert (near < other).all()
