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
from dali_pipes.clips.speed import Timing, frame_indices

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


if __name__ == "__main__":
    main()
