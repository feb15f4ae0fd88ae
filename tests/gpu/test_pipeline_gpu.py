"""The graph on a GPU: NVDEC's frames are the right ones and look as PyAV's, and the operators agree with the CPU's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from loader_checks import OPEN_GOP, check_frame_numbers, check_pixels, corpus_of, make_coloured, make_zoo
from make_videos import make_video

from dali_pipes import Augment, ClipRequest, ClipStream, Corpus, Key, View
from dali_pipes.decode.choice import choose

# NVDEC takes HEVC from 144 x 144 up.
SIDE = 160


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return make_zoo(tmp_path_factory.mktemp("gpu_zoo"), SIDE)


def test_nvdec_is_what_decodes_the_usual_codecs(zoo: Corpus) -> None:
    by_codec = {video.codec: choose(video, "gpu").decoder for video in zoo if video.numbering == "pts"}
    assert {codec: by_codec[codec] for codec in ("h264", "hevc", "mpeg4", "vp9")} == dict.fromkeys(
        ("h264", "hevc", "mpeg4", "vp9"), "dali"
    )


@pytest.mark.parametrize("shared", [False, True], ids=["independent", "shared"])
def test_every_start_of_every_kind_of_video_shows_the_right_frames(zoo: Corpus, shared: bool) -> None:
    check_frame_numbers(zoo, SIDE, "cuda", shared=shared)


@pytest.mark.parametrize("name", ["open.mkv", "open.mp4", "closed.mp4", "mpeg4.avi", "vp9.webm"])
def test_windows_far_apart_in_long_videos_show_the_right_frames(tmp_path: Path, name: str) -> None:
    coding = {
        "open.mkv": {"codec": "h264", "gop": 15, "bframes": 3, "options": OPEN_GOP},
        "open.mp4": {"codec": "hevc", "gop": 16, "bframes": 3},
        "closed.mp4": {"codec": "h264", "gop": 15, "bframes": 3},
        "mpeg4.avi": {"codec": "mpeg4", "gop": 12, "bframes": 2},
        "vp9.webm": {"codec": "vp9", "gop": 20},
    }[name]
    corpus = corpus_of([make_video(tmp_path / name, frames=400, size=(SIDE, SIDE), **coding)])
    check_frame_numbers(corpus, SIDE, "cuda", shared=False)


def test_nvdec_decodes_the_colours_that_pyav_does(tmp_path: Path) -> None:
    quality = {"crf": "15"}
    paths = [
        make_coloured(tmp_path / "h264.mp4", "libx264", "yuv420p", quality, SIDE),
        make_coloured(tmp_path / "hevc.mp4", "libx265", "yuv420p", {"x265-params": "log-level=none:crf=15"}, SIDE),
        make_coloured(tmp_path / "mpeg4.mp4", "mpeg4", "yuv420p", {"qscale": "2", "flags": "+qscale"}, SIDE),
        make_coloured(tmp_path / "vp9.webm", "libvpx-vp9", "yuv420p", {"crf": "20", "b": "0", "cpu-used": "5"}, SIDE),
    ]
    check_pixels(paths, SIDE, "cuda", least=40)


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_operators_agree_with_the_cpu(zoo: Corpus, dtype: str) -> None:
    # Both decode on the host, so that only the operators differ.
    clips = {}
    requests = [ClipRequest(i, (View(1, 5), View(2, 9)), Key(0, 0, i)) for i in range(len(zoo))]
    for device in ("cpu", "cuda"):
        with ClipStream(
            zoo,
            frames=4,
            size=64,
            batch_size=len(zoo),
            views=2,
            device=device,
            dtype=dtype,  # type: ignore[arg-type]
            augment=Augment(blur=0.5),
            decoder="host",
            threads=2,
        ) as stream:
            stream.submit(requests)
            clips[device] = stream.get().clips.cpu().double()
    difference = (clips["cpu"] - clips["cuda"]).abs()
    unit = 1.0 if dtype == "uint8" else 1 / 255 / min(Augment().std)
    assert difference.mean() < 0.5 * unit
    assert np.quantile(difference.numpy(), 0.999) < 4 * unit


def test_a_batch_lies_on_the_device_that_was_asked_for(zoo: Corpus) -> None:
    device = torch.device("cuda", torch.cuda.device_count() - 1)
    with ClipStream(zoo, frames=4, size=32, batch_size=2, device=str(device), threads=2) as stream:
        stream.submit([ClipRequest(3, (View(1, 0),)), ClipRequest(1, (View(1, 0),))])
        batch = stream.get()
    assert batch.clips.device == batch.speeds.device == batch.videos.device == device
    assert batch.clips.dtype == torch.float16
