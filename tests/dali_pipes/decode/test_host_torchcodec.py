"""Small copies decoded by torchcodec: the same frames as by PyAV and in a full decode, or none at all."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from loader_checks import corpus_of, pictures
from make_videos import make_video

from dali_pipes import Video
from dali_pipes.corpus.transcode import Preset, encode
from dali_pipes.decode import host_av, host_torchcodec
from dali_pipes.decode.host import decode_frames

FRAMES = 60


@pytest.fixture(autouse=True)
def _installed() -> None:
    if host_torchcodec.missing():
        pytest.skip(f"torchcodec cannot be used: {host_torchcodec.missing()}")


def copy_of(source: Path, target: Path, preset: Preset) -> Video:
    encode(corpus_of([source])[0], target, preset)
    return corpus_of([target])[0]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "source.mp4"
    make_video(path, frames=FRAMES, size=(212, 160))
    return path


@pytest.fixture(scope="module")
def video(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Video:
    return copy_of(source, tmp_path_factory.mktemp("copy") / "copy.mp4", Preset(short_side=112))


@pytest.mark.parametrize("codec", ["h264", "hevc", "vp9", "mjpeg"])
def test_every_start_of_a_copy_equals_the_sequential_decode(source: Path, tmp_path: Path, codec: str) -> None:
    quality = {"mjpeg": 3, "vp9": 24}.get(codec, 18)
    speed = {"vp9": "8", "mjpeg": "veryfast"}.get(codec, "ultrafast")
    video = copy_of(source, tmp_path / "copy.mp4", Preset(codec, 112, 8, quality, speed))
    assert host_torchcodec.takes(video)
    truth = pictures(video.uri)
    for start in range(0, FRAMES, 3):
        frames = np.unique(np.concatenate([start + np.arange(6), (start + 31) % FRAMES + 2 * np.arange(6)]))
        frames = frames[frames < FRAMES]
        decoded = host_torchcodec.decode(video, frames)
        assert decoded is not None
        assert np.array_equal(decoded, truth[frames]), start
        assert np.array_equal(decoded, host_av.decode(video, frames, video.width, video.height))
        assert np.array_equal(decoded, decode_frames(video, frames))


def test_real_copies_decode_to_the_frames_that_pyav_finds(videos: Path, tmp_path: Path) -> None:
    sources = [next(iter(sorted((videos / name).rglob("*.*4")))) for name in ("kinetics400",)]
    sources += sorted((videos / "ucf101").rglob("*.avi"))[:2]
    for number, path in enumerate(sources):
        video = copy_of(path, tmp_path / f"{number}.mp4", Preset(short_side=112, speed="ultrafast"))
        frames = np.unique(np.random.default_rng(number).integers(video.frames, size=40))
        decoded = host_torchcodec.decode(video, frames)
        assert decoded is not None, path.name
        assert np.array_equal(decoded, host_av.decode(video, frames, video.width, video.height)), path.name


@pytest.mark.parametrize(
    "change",
    [
        {"constant": False},
        {"sliceable": False},
        {"uniform": False},
        {"numbering": "count"},
        {"rotation": 90},
        {"offset": 512},
        {"pixel_format": "yuv420p10le"},
        {"key_frames": np.array([0])},
        {"width": 1280, "height": 720},
    ],
    ids=str,
)
def test_what_it_may_get_wrong_or_does_slowly_is_left_to_pyav(video: Video, change: dict[str, object]) -> None:
    assert host_torchcodec.takes(video)
    assert not host_torchcodec.takes(replace(video, **change))  # type: ignore[arg-type]


def test_frames_with_other_time_stamps_than_the_index_has_are_refused(video: Video) -> None:
    late = replace(video, start=video.start + round(video.step))
    assert host_torchcodec.decode(video, np.array([3, 9])) is not None
    assert host_torchcodec.decode(late, np.array([3, 9])) is None


def test_a_file_that_changed_is_not_touched(video: Video, tmp_path: Path) -> None:
    other = tmp_path / "other.mp4"
    shutil.copy(video.uri, other)
    moved = corpus_of([other])[0]
    assert host_torchcodec.decode(moved, np.array([0])) is not None
    os.utime(other, (1, 1))
    assert host_torchcodec.decode(moved, np.array([0])) is None
    other.unlink()
    assert host_torchcodec.decode(moved, np.array([0])) is None


def test_a_frame_outside_the_file_is_left_to_pyav(video: Video) -> None:
    assert host_torchcodec.decode(video, np.array([0, FRAMES + 5])) is None


def test_the_calling_thread_works_alone_and_no_other_does(video: Video) -> None:
    code = f"""
import threading, torch, numpy as np
from dali_pipes import Corpus
from dali_pipes.decode import host_torchcodec
from dali_pipes.decode.host import decode_frames
torch.set_num_threads(3)
inside = []
def work():
    decode_frames(Corpus.build({str(Path(video.uri).parent)!r}, layout="folders", progress=False)[0], np.arange(4))
    inside.append(torch.get_num_threads())
thread = threading.Thread(target=work)
thread.start(); thread.join()
late = []
other = threading.Thread(target=lambda: late.append(torch.get_num_threads()))
other.start(); other.join()
print(inside[0], torch.get_num_threads(), late[0])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["1", "3", "3"]


def test_it_can_be_switched_off(video: Video) -> None:
    code = "from dali_pipes.decode import host_torchcodec as h; print(h.missing())"
    environment = os.environ | {host_torchcodec.SWITCH: "0"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "DALI_PIPES_TORCHCODEC=0"
