"""Training clips as the network sees them, written as pictures that people can look at.

The clips come out of a `SpeedLoader` with its defaults; the normalisation is undone with the numbers that it was done
with, so that what is shown is what was delivered and nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, get_args

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dali_pipes.augment import PLAIN, Augment
from dali_pipes.clips.request import ClipBatch
from dali_pipes.corpus import Corpus
from dali_pipes.errors import DataError
from dali_pipes.loader import SpeedLoader
from dali_pipes.tools.sheet import contact_sheet, side_by_side
from dali_pipes.writing import replacing

Format = Literal["mp4", "webp"]
SHEET, MOVING = "contact_sheet.png", "clips"
# What somebody may expect to get and does not; other suffixes may be part of a folder's name.
_OTHERS = (".avi", ".gif", ".jpeg", ".jpg", ".m4v", ".mkv", ".mov", ".webm")
# Slow enough to follow: a clip of 16 frames lasts two seconds.
RATE = 8


@dataclass(frozen=True)
class Preview:
    """Clips to look at.

    Attributes:
        clips: (B, V, T, S, S, 3) uint8 RGB.
        labels: File name, speed and first frame of each clip, B lists of V.
        replaced: Videos that could not be decoded, with reasons; others were shown in their place.
    """

    clips: NDArray[np.uint8]
    labels: list[list[str]]
    replaced: dict[str, str]


def draw_clips(
    corpus: Corpus,
    *,
    videos: int = 6,
    speeds: Sequence[float] = (1, 2),
    frames: int = 16,
    size: int = 112,
    seed: int = 0,
    augment: Augment | None = Augment(),  # noqa: B008 -- frozen
    device: str = "auto",
) -> Preview:
    """Take the first batch of an epoch out of a loader.

    Args:
        corpus: The videos.
        videos: How many at most; fewer where the corpus has fewer.
        speeds: Playback speed of each view.
        frames: Frames per clip, T.
        size: Side of the pictures, S.
        seed: Another seed, other videos and draws.
        augment: As for `SpeedLoader`; None: the centred square.
        device: As for `SpeedLoader`.

    Raises:
        DataError: An argument is out of range, or no video can be used.
    """
    if videos < 1:
        raise DataError(f"videos={videos} must be at least 1")
    usable = len(corpus.select("train" if "train" in corpus.splits else None))
    with SpeedLoader(
        corpus,
        frames=frames,
        size=size,
        speeds=speeds,
        batch_size=max(min(videos, usable), 1),
        device=device,
        seed=seed,
        augment=augment,
        prefetch=1,
    ) as loader:
        batch = next(iter(loader))
        replaced = dict(loader.stats.bad)
    labels = [
        [f"{Path(corpus[request.video].uri).name}  {view.speed:g}x  from frame {view.start}" for view in request.views]
        for request in batch.requests
    ]
    return Preview(pictures(batch, augment or PLAIN), labels, replaced)


def pictures(batch: ClipBatch, augment: Augment) -> NDArray[np.uint8]:
    """Delivered clips, normalised floating point, as pictures.

    Args:
        batch: Clips (B, V, C, T, H, W).
        augment: What they were normalised with.

    Returns:
        (B, V, T, H, W, 3) uint8 RGB.
    """
    values = batch.clips.detach().float().cpu().numpy().transpose(0, 1, 3, 4, 5, 2)
    shown = values * np.array(augment.std, np.float32) + np.array(augment.mean, np.float32)
    return (255 * shown + 0.5).clip(0, 255).astype(np.uint8)


def write(preview: Preview, output: str | os.PathLike[str], kind: Format = "mp4") -> list[Path]:
    """Write a contact sheet and moving clips.

    Args:
        preview: The clips.
        output: A folder for both, made if absent; or a file, `.png` for the sheet alone, `.mp4` or `.webp` for the
            moving clips alone.
        kind: Of the moving clips in a folder.

    Returns:
        The files written.

    Raises:
        DataError: The output cannot be written, is a file of another kind, or there is no encoder for it.
    """
    if kind not in get_args(Format):
        raise DataError(f"format={kind!r} must be one of {', '.join(get_args(Format))}")
    path = Path(output)
    suffix = path.suffix.lower()
    if suffix in _OTHERS:
        raise DataError(f"{path}: give a folder, or a file that ends in .png, .mp4 or .webp")
    if suffix in (".png", ".mp4", ".webp") and not path.is_dir():
        if not path.parent.is_dir():
            raise DataError(f"{path}: there is no folder {path.parent} to write to")
        targets = [path]
    else:
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{path}: cannot be made a folder: {error.strerror}") from error
        targets = [path / SHEET, path / f"{MOVING}.{kind}"]
    for target in targets:
        _written(target, _writer(preview, target.suffix.lower()))
    return targets


def _writer(preview: Preview, suffix: str) -> Callable[[str], None]:
    if suffix == ".png":
        batch, views = preview.clips.shape[:2]
        flat = preview.clips.reshape(batch * views, *preview.clips.shape[2:])
        sheet = contact_sheet(flat, [label for labels in preview.labels for label in labels])
        return lambda name: Image.fromarray(sheet).save(name, "PNG")
    moving = side_by_side(preview.clips, ["   |   ".join(labels) for labels in preview.labels])
    if suffix == ".webp":
        return lambda name: _write_webp(moving, name)
    return lambda name: _write_mp4(moving, name)


def _written(target: Path, write_to: Callable[[str], None]) -> None:
    try:
        with replacing(target) as temporary:
            write_to(str(temporary))
    except OSError as error:  # FFmpeg's errors are such too
        raise DataError(f"{target}: cannot be written: {error.strerror or error}") from error


def _write_webp(moving: list[NDArray[np.uint8]], name: str) -> None:
    images = [Image.fromarray(picture) for picture in moving]
    # Lossless: flat colours and small letters come out as they are. Equal neighbours become one longer frame.
    images[0].save(name, "WEBP", save_all=True, append_images=images[1:], duration=1000 // RATE, loop=0, lossless=True)


def _write_mp4(moving: list[NDArray[np.uint8]], name: str) -> None:
    encoder, pixel_format, options = mp4_encoder()
    height, width = moving[0].shape[:2]
    with av.open(name, "w", format="mp4") as container:
        stream: Any = container.add_stream(encoder, rate=Fraction(RATE), options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        for picture in moving:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame.reformat(format=pixel_format)))
        container.mux(stream.encode())


def mp4_encoder() -> tuple[str, str, dict[str, str]]:
    """Encoder, pixel format and options: H.264 where PyAV has an encoder for it, else MJPEG.

    Raises:
        DataError: PyAV has neither.
    """
    for encoder, pixel_format, options in (
        ("libx264", "yuv420p", {"crf": "15", "preset": "fast"}),
        ("libopenh264", "yuv420p", {"b": "4M"}),
        ("mjpeg", "yuvj420p", {"qscale": "2", "flags": "+qscale"}),
    ):
        if encoder in av.codecs_available:
            return encoder, pixel_format, options
    raise DataError("PyAV is built without encoders for H.264 and MJPEG; use --format webp")
