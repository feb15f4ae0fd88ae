"""Draws the pictures of the README and the docs from the real code.

    python docs/make_pictures.py VIDEO docs/images

VIDEO is any video file; the committed pictures show one of `dali-pipes demo-corpus`.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from dali_pipes import Augment, ClipRequest, ClipStream, Corpus, Key, View, read_frames
from dali_pipes.clips.frames import clip_frames
from dali_pipes.clips.sampler import Window
from dali_pipes.clips.speed import Timing, adjacent_starts, frame_indices

FRAMES = 8


def speeds(corpus: Corpus, target: Path) -> None:
    """One video, two windows: which frames the 1x and the 2x clip take, and what the network sees of them."""
    video = corpus[0]
    views = (View(1.0, 4), View(2.0, 12))
    with ClipStream(
        corpus, frames=FRAMES, size=96, batch_size=1, views=2, device="cpu", dtype="uint8", augment=Augment()
    ) as stream:
        stream.submit([ClipRequest(0, views, Key(seed=3, position=5))])
        clips = stream.get().clips[0].permute(0, 2, 3, 4, 1).numpy()  # (V, T, H, W, C)
    shown = 32
    strip = read_frames(corpus, 0, np.arange(shown), short_side=64)
    figure = plt.figure(figsize=(10, 4.6), dpi=110)
    grid = figure.add_gridspec(3, shown, height_ratios=(1, 3, 3), hspace=0.12, wspace=0.04)
    colours = ("#1f77b4", "#d62728")
    timing = Timing(video.frames, video.rate, video.timestamps)
    picked = [frame_indices(timing, view.start, FRAMES, view.speed) for view in views]
    for number in range(shown):
        axis = figure.add_subplot(grid[0, number])
        axis.imshow(strip[number])
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_title(str(number), fontsize=6, pad=2)
        for spine in axis.spines.values():
            spine.set_visible(False)
        for row, numbers in enumerate(picked):
            if number in numbers:
                axis.plot([0.08, 0.92], [-0.14 - 0.16 * row] * 2, color=colours[row], lw=3, clip_on=False,
                          transform=axis.transAxes)  # fmt: skip
    for row, (view, numbers) in enumerate(zip(views, picked, strict=True)):
        for place, number in enumerate(numbers):
            width = shown // FRAMES
            axis = figure.add_subplot(grid[row + 1, place * width : (place + 1) * width])
            axis.imshow(clips[row, place])
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_xlabel(f"frame {number}", fontsize=7, labelpad=2)
            if place == 0:
                axis.set_ylabel(f"{view.speed:g}x", fontsize=12, color=colours[row], fontweight="bold")
            for spine in axis.spines.values():
                spine.set_color(colours[row])
                spine.set_linewidth(1.5)
    figure.suptitle(
        "One video, one decode, two playback speeds: frames taken, and the clips as the network sees them", fontsize=9
    )
    figure.savefig(target, bbox_inches="tight")
    plt.close(figure)


def windows(kind: Window) -> tuple[View, ...]:
    """A 1x and a 2x view of 4 frames each, as the kind of window lays them."""
    if kind == "adjacent":
        first, second = adjacent_starts(Timing(32, 25.0), 6, 4, (1.0, 2.0))
    else:
        first, second = (3, 19) if kind == "independent" else (10, 10)
    return View(1.0, first), View(2.0, second)


def sampling(target: Path) -> None:
    """What each setting samples: a row for each, the frames of the video on a common axis of time."""
    even = Timing(32, 25.0)
    # Frames that come in bursts; the mean period is that of the rows above.
    gaps = [1.0, 1.0, 2.4, 0.4, 0.4, 0.4, 0.4, 2.0, 1.0, 1.0, 1.0, 0.5, 0.5, 1.0, 1.0, 2.0] * 2
    stamps = np.cumsum([0.0, *gaps[:31]])
    uneven = Timing(32, 25.0, np.round(stamps * 31 / stamps[-1] * 1000).astype(np.int64))
    rows: list[tuple[str, Timing, tuple[View, ...]]] = [
        ("1x", even, (View(1.0, 2),)),
        ("2x", even, (View(2.0, 2),)),
        ("0.5x", even, (View(0.5, 2),)),
        ("1.5x", even, (View(1.5, 2),)),
        ("2x, reverse", even, (View(2.0, 2, reverse=True),)),
        ("4x", even, (View(4.0, 2),)),
        ("4x, jitter=0.4", even, (View(4.0, 2, jitter=0.4),)),
        ("2x, variable rate", uneven, (View(2.0, 2),)),
        ("independent", even, windows("independent")),
        ("shared", even, windows("shared")),
        ("adjacent", even, windows("adjacent")),
    ]
    colours = ("#1f77b4", "#d62728")
    figure, axis = plt.subplots(figsize=(10, 5.2), dpi=110)
    for place, (_, timing, views) in enumerate(rows):
        times = np.arange(32.0) if timing.timestamps is None else timing.timestamps / 1000
        axis.plot(times, np.full(32, place), "|", color="#bbbbbb", markersize=13, zorder=1)
        length = 8 if len(views) == 1 else 4
        request = ClipRequest(0, views, Key(seed=2))
        for number, view in enumerate(views):
            taken = clip_frames(timing, request, number, length)
            height = place + (0 if len(views) == 1 else 0.17 * (2 * number - 1))
            axis.plot(times[taken], np.full(length, height), "-", color=colours[number], lw=1, alpha=0.4, zorder=2)
            axis.plot(times[taken], np.full(length, height), "o", color=colours[number], markersize=6, zorder=3)
            for frame in np.unique(taken):
                orders = [str(order) for order in np.flatnonzero(taken == frame)]
                if len(views) == 1:
                    axis.text(times[frame], place - 0.26, ",".join(orders), fontsize=6.5, ha="center", color="#333333")
            if len(views) > 1:
                axis.text(times[taken[-1]] + 0.4, height, f"{view.speed:g}x", fontsize=7, va="center",
                          color=colours[number])  # fmt: skip
    axis.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_xlim(-0.8, 31.8)
    axis.set_xticks(range(0, 32, 2))
    axis.set_xlabel("time, in mean frame periods; grey: the video's frames, small numbers: order within the clip")
    axis.tick_params(length=0)
    for spine in axis.spines.values():
        spine.set_visible(False)
    figure.savefig(target, bbox_inches="tight")
    plt.close(figure)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("video", type=Path, help="a video file")
    parser.add_argument("out", type=Path, help="folder for the pictures")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(arguments.video, folder)
        corpus = Corpus.build(folder, progress=False)
        speeds(corpus, arguments.out / "speeds.png")
    sampling(arguments.out / "sampling.png")


if __name__ == "__main__":
    main()
