"""Videos of three classes that differ by colour, in a train and a test split: learned in seconds by any classifier."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

from dali_pipes import Corpus

COLOURS = {"blue": (80, 80, 170), "green": (80, 170, 80), "red": (170, 80, 80)}


def make_colour_video(path: Path, colour: tuple[int, int, int], seed: int, *, frames: int = 10) -> None:
    """Noise about one colour; motion JPEG of 48 x 32 pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draws = np.random.default_rng(seed)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuvj420p"
        for _ in range(frames):
            picture = np.clip(draws.normal(colour, 25, (32, 48, 3)), 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def colour_corpus(root: Path, *, train: int = 8, test: int = 4) -> Corpus:
    """So many videos of each class, under ROOT/SPLIT/CLASS, and ROOT/corpus.parquet."""
    seed = 0
    for split, count in (("train", train), ("test", test)):
        for name, colour in COLOURS.items():
            for number in range(count):
                seed += 1
                make_colour_video(root / split / name / f"{split}{name}{number}.mkv", colour, seed)
    return Corpus.build(root, output=root / "corpus.parquet", progress=False, workers=1)
