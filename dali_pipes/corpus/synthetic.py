"""The demo corpus: labelled generated videos and their train and test lists, written in seconds.

The label is appearance (shape and texture) times motion (path); see `synthetic_scenes` for what else happens in a
picture. The folder looks like UCF-101, so that everything that reads UCF-101 reads it: `<class>/v_<class>_gNN_cMM.mkv`
beside `splits/classInd.txt`, `splits/trainlist01.txt` and `splits/testlist01.txt`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from dali_pipes.corpus.synthetic_scenes import APPEARANCES, MOTIONS, Scene, render
from dali_pipes.errors import DataError


@dataclass(frozen=True)
class _Format:
    encoder: str
    suffix: str
    pixel_format: str
    options: dict[str, str]


FORMATS: dict[str, _Format] = {
    "mjpeg": _Format("mjpeg", ".mkv", "yuvj420p", {"qmin": "3", "qmax": "3"}),
    "vp9": _Format("libvpx-vp9", ".webm", "yuv420p", {"deadline": "realtime", "cpu-used": "8", "crf": "24", "b": "0"}),
    "h264": _Format("libx264", ".mp4", "yuv420p", {"preset": "veryfast", "crf": "20", "threads": "1"}),
}
"""What a corpus can be written as. DALI's own CPU decoder reads the first two."""

RATE = 25
"""Frames per second of every demo video."""


@dataclass(frozen=True)
class DemoVideo:
    """One video to be made: where (relative to the corpus folder), in which split, and what it shows."""

    path: str
    split: str
    scene: Scene


def plan_demo_corpus(
    videos: int = 120,
    *,
    appearances: int = 4,
    motions: int = 3,
    test_share: float = 1 / 3,
    frames: int = 64,
    size: int = 64,
    suffix: str = ".mkv",
    seed: int = 0,
) -> list[DemoVideo]:
    """Lay out a corpus without drawing it.

    Classes get the same number of videos (to within one), and so do the classes of each split. Natural speeds lie
    between 0.7 and 1.4 and know nothing of the class.

    Args:
        videos: How many in all; at least two a class.
        appearances: How many pairs of shape and texture, 1 to 6.
        motions: How many paths, 1 to 5.
        test_share: Part of each class that is kept for testing: at least one of its videos, and at most all but one.
        frames: Frames per video.
        size: Edge of the square picture, even, in pixels.
        suffix: File name ending.
        seed: The same seed gives the same corpus.

    Returns:
        One entry per video, classes taking turns.

    Raises:
        DataError: An argument is out of range.
    """
    _check_range("appearances", appearances, 1, len(APPEARANCES))
    _check_range("motions", motions, 1, len(MOTIONS))
    classes = [(*appearance, motion) for appearance in APPEARANCES[:appearances] for motion in list(MOTIONS)[:motions]]
    _check_range("videos", videos, 2 * len(classes), None, f"two for each of {len(classes)} classes")
    _check_range("frames", frames, 2, None)
    _check_range("size", size, 16, None)
    if size % 2:
        raise DataError(f"size={size}: must be even, because the codecs halve the colour planes")
    if not 0.0 < test_share < 1.0:
        raise DataError(f"test_share={test_share}: must lie between 0 and 1")

    plan = []
    for number in range(videos):
        shape, texture, motion = classes[number % len(classes)]
        turn, members = number // len(classes), len(range(number % len(classes), videos, len(classes)))
        tests = min(max(1, round(members * test_share)), members - 1)
        speed = float(0.7 * 2.0 ** np.random.default_rng((seed, number, 1)).random())
        scene = Scene(shape, texture, motion, speed, (seed, number, 0), frames, size)
        # Every video is a group of its own: no two share an object, a place or a camera.
        path = f"{scene.label}/v_{scene.label}_g{turn + 1:02d}_c01{suffix}"
        plan.append(DemoVideo(path, "test" if turn >= members - tests else "train", scene))
    return plan


def make_demo_corpus(
    root: str | os.PathLike[str],
    videos: int = 120,
    *,
    codec: str = "mjpeg",
    appearances: int = 4,
    motions: int = 3,
    test_share: float = 1 / 3,
    frames: int = 64,
    size: int = 64,
    seed: int = 0,
    workers: int | None = None,
    report: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the demo corpus.

    Read it back with `Corpus.build(root, layout="ucf101", splits=root / "splits")`.

    Args:
        root: Folder to write to; made if absent. Videos of the same name are overwritten.
        codec: Key of `FORMATS`: "mjpeg", "vp9" or "h264".
        workers: Threads; None for one per core.
        report: Called as `report(done, all)` after each video, for a progress display.
        videos, appearances, motions, test_share, frames, size, seed: See `plan_demo_corpus`.

    Returns:
        The folder with the split lists, `root/splits`.

    Raises:
        DataError: An argument is out of range.
    """
    if codec not in FORMATS:
        raise DataError(f"codec={codec!r}: must be one of {', '.join(FORMATS)}")
    form, folder = FORMATS[codec], Path(root)
    plan = plan_demo_corpus(
        videos, appearances=appearances, motions=motions, test_share=test_share, frames=frames, size=size,
        suffix=form.suffix, seed=seed,
    )  # fmt: skip
    for name in sorted({Path(video.path).parent for video in plan}):
        (folder / name).mkdir(parents=True, exist_ok=True)

    pool = ThreadPoolExecutor(workers or os.cpu_count() or 1)
    try:
        jobs = [pool.submit(_write_video, folder / video.path, video.scene, form) for video in plan]
        for done, job in enumerate(as_completed(jobs), start=1):
            job.result()
            if report is not None:
                report(done, len(plan))
    finally:
        pool.shutdown(cancel_futures=True)
    return _write_lists(folder / "splits", plan)


def _check_range(name: str, value: int, low: int, high: int | None, why: str = "") -> None:
    if value < low or (high is not None and value > high):
        right = f"at least {low}" if high is None else f"{low} to {high}"
        raise DataError(f"{name}={value}: must be {right}{f' ({why})' if why else ''}")


def _write_video(path: Path, scene: Scene, form: _Format) -> None:
    pixels = render(scene)
    partial = path.with_name(f".{path.name}.part{path.suffix}")
    try:
        encode(partial, pixels, form)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def encode(path: Path, pixels: NDArray[np.uint8], form: _Format) -> None:
    """Write RGB frames (T, H, W, 3) as a video of `RATE` frames per second."""
    # bitexact: no random identifier and no library version in the file, so that the same seed writes the same bytes.
    with av.open(str(path), "w", container_options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream(form.encoder, rate=RATE, options=dict(form.options))
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = pixels.shape[1:3]
        stream.pix_fmt, stream.time_base = form.pixel_format, Fraction(1, RATE)
        for number, image in enumerate(pixels):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _write_lists(folder: Path, plan: list[DemoVideo]) -> Path:
    """UCF-101's lists: class numbers from 1; training lines carry the number, test lines do not."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = {label: number for number, label in enumerate(sorted({video.scene.label for video in plan}), start=1)}
    lists = {
        "classInd.txt": [f"{number} {label}" for label, number in numbers.items()],
        "trainlist01.txt": [f"{v.path} {numbers[v.scene.label]}" for v in plan if v.split == "train"],
        "testlist01.txt": [v.path for v in plan if v.split == "test"],
    }
    for name, lines in lists.items():
        partial = folder / f".{name}.part"
        partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        os.replace(partial, folder / name)
    return folder
