"""Clip-consistent augmentation: drawn on the host, applied by DALI.

All of a clip's frames get the same crop, flip and colours, and each clip draws its own. The draws are a pure function
of (seed, epoch, position, view), so any clip of a run can be made again; the graph that applies them holds no random
state. The defaults are those of RSPNet (AAAI 2021), on which ASCNet's settings rest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from nvidia.dali import fn, types
from nvidia.dali.data_node import DataNode

from dali_pipes.errors import DataError


class Draws(NamedTuple):
    """What is done to one clip.

    Attributes:
        left, top, right, bottom: The region shown, as shares of the upright picture's width and height.
        flip: Whether the clip is mirrored left to right.
        brightness, contrast, saturation: Factors; 1 changes nothing. Saturation 0 is grayscale.
        hue: Turn of the colour circle, degrees.
        blur: Standard deviation of a Gaussian blur in pixels of the output; 0: none.
    """

    left: float = 0.0
    top: float = 0.0
    right: float = 1.0
    bottom: float = 1.0
    flip: bool = False
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0
    blur: float = 0.0


@dataclass(frozen=True)
class Augment:
    """What may be drawn.

    Attributes:
        crop_area: Smallest and largest share of the picture's area to show.
        crop_ratio: Smallest and largest width to height of the region.
        flip: Probability of mirroring.
        brightness, contrast, saturation: A factor is drawn from [1 - x, 1 + x].
        hue: A turn is drawn from [-x, x] of the whole colour circle; at most 0.5.
        jitter: Probability that the four above are applied at all.
        grayscale: Probability of removing colour.
        blur: Probability of a Gaussian blur.
        blur_sigma: Smallest and largest standard deviation of the blur, pixels of the output.
        mean, std: Normalisation per channel, for values in [0, 1] (ImageNet's). Not applied to uint8 output.

    Raises:
        DataError: If a value is out of range.
    """

    crop_area: tuple[float, float] = (0.4, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.4
    jitter: float = 1.0
    grayscale: float = 0.2
    blur: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        for name in ("flip", "jitter", "grayscale", "blur", "brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) <= 1:
                raise DataError(f"augment.{name}={getattr(self, name)} must lie in [0, 1]")
        if not 0 <= self.hue <= 0.5:
            raise DataError(f"augment.hue={self.hue} must lie in [0, 0.5], as a share of the colour circle")
        for name, top in (("crop_area", 1.0), ("crop_ratio", math.inf), ("blur_sigma", math.inf)):
            low, high = getattr(self, name)
            if not 0 < low <= high <= top:
                raise DataError(f"augment.{name}={(low, high)} must be (low, high) with 0 < low <= high <= {top}")

    @property
    def colours(self) -> bool:
        """Whether any colour can change; if not, the graph leaves the operator out."""
        jittered = self.jitter > 0 and max(self.brightness, self.contrast, self.saturation, self.hue) > 0
        return jittered or self.grayscale > 0

    def draw(self, rng: np.random.Generator, width: int, height: int) -> Draws:
        """Draws what is done to one clip of an upright picture of ``width`` x ``height`` pixels."""
        left, top, right, bottom = random_region(rng, width, height, self.crop_area, self.crop_ratio)
        flip, jitter, gray, blur = rng.random(4)
        factors = 1 + rng.uniform(-1, 1, 3) * (self.brightness, self.contrast, self.saturation)
        hue = rng.uniform(-1, 1) * self.hue * 360
        sigma = rng.uniform(*self.blur_sigma)
        if jitter >= self.jitter:
            factors, hue = np.ones(3), 0.0
        return Draws(
            left, top, right, bottom,
            flip=bool(flip < self.flip),
            brightness=float(factors[0]),
            contrast=float(factors[1]),
            saturation=0.0 if gray < self.grayscale else float(factors[2]),
            hue=float(hue),
            blur=float(sigma) if blur < self.blur else 0.0,
        )  # fmt: skip


# Evaluation: the largest centred square, no change of colour.
PLAIN = Augment(flip=0, jitter=0, grayscale=0)


def center_crop(width: int, height: int) -> Draws:
    """The largest centred square of a picture, on whole pixels: cutting it out needs no interpolation."""
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return Draws(left / width, top / height, (left + side) / width, (top + side) / height)


def on_pixels(draws: Draws, width: int, height: int, size: int) -> bool:
    """Whether the region is ``size`` x ``size`` whole pixels of a ``width`` x ``height`` picture: then it is copied."""
    edges = draws.left * width, draws.top * height, draws.right * width, draws.bottom * height
    whole = [round(edge) for edge in edges]
    near = all(abs(edge - pixel) < 1e-3 for edge, pixel in zip(edges, whole, strict=True))
    return near and whole[2] - whole[0] == size and whole[3] - whole[1] == size


def random_region(
    rng: np.random.Generator,
    width: int,
    height: int,
    area: tuple[float, float],
    ratio: tuple[float, float],
) -> tuple[float, float, float, float]:
    """A random region of a picture: left, top, right, bottom as shares of its width and height.

    Ten tries at an area and (evenly in the logarithm) a ratio that fit; then the centred region of the nearest ratio
    allowed. This is the random resized crop of Szegedy et al., CVPR 2015, as it is usually made. Ten draws are always
    taken, so that what is drawn next does not depend on which try fitted.
    """
    shares = rng.uniform(*area, 10)
    ratios = np.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1]), 10))
    places = rng.random((10, 2))
    widths = np.sqrt(shares * width * height * ratios)
    heights = np.sqrt(shares * width * height / ratios)
    fits = np.flatnonzero((widths <= width) & (heights <= height))
    if len(fits):
        i = fits[0]
        w, h = widths[i] / width, heights[i] / height
        left, top = places[i, 0] * (1 - w), places[i, 1] * (1 - h)
    else:
        wanted = min(max(width / height, ratio[0]), ratio[1])
        w, h = min(1.0, height * wanted / width), min(1.0, width / wanted / height)
        left, top = (1 - w) / 2, (1 - h) / 2
    return float(left), float(top), float(left + w), float(top + h)


class ViewInputs(NamedTuple):
    """The draws of one view of a batch, as the graph takes them; one row a sample.

    Attributes:
        region: ``(B, 4)`` float32: top, left, bottom, right.
        flip: ``(B, 1)`` int32.
        colour: ``(B, 4)`` float32: brightness, contrast, saturation, hue in degrees.
        blur: ``(B, 1)`` float32 standard deviations, pixels.
    """

    region: NDArray[np.float32]
    flip: NDArray[np.int32]
    colour: NDArray[np.float32]
    blur: NDArray[np.float32]


def pack(draws: list[Draws]) -> ViewInputs:
    """Arranges draws for the graph."""
    table = np.array(draws, np.float32)
    return ViewInputs(
        np.ascontiguousarray(table[:, [1, 0, 3, 2]]),
        table[:, 4:5].astype(np.int32),
        np.ascontiguousarray(table[:, 5:9]),
        np.ascontiguousarray(table[:, 9:10]),
    )


def crop_resize(clip: DataNode, region: DataNode, size: int) -> DataNode:
    """Cuts a region out of each frame and scales it to ``size`` x ``size`` in one pass; frames ``FHWC``."""
    return fn.resize(  # type: ignore[return-value]  # typed for all of its outputs; with these arguments it has one
        clip,
        size=(size, size),
        roi_start=region[0:2],
        roi_end=region[2:4],
        roi_relative=True,
        interp_type=types.DALIInterpType.INTERP_LINEAR,
        antialias=True,
    )


def twist(clip: DataNode, colour: DataNode) -> DataNode:
    """Changes brightness, contrast, saturation and hue in one pass; contrast turns about mid-grey."""
    return fn.color_twist(clip, brightness=colour[0], contrast=colour[1], saturation=colour[2], hue=colour[3])


def normalise(
    clip: DataNode,
    flip: DataNode,
    augment: Augment,
    dtype: types.DALIDataType,
    *,
    size: int | None = None,
    place: DataNode | None = None,
) -> DataNode:
    """Mirrors, normalises (unless the output is uint8), converts and turns ``FHWC`` into ``CFHW`` in one pass.

    With ``size`` it also cuts a square of so many pixels out first. ``place`` ``(2,)`` says where: top and left as
    shares of the pixels that are left over in height and width.
    """
    raw = dtype == types.DALIDataType.UINT8
    cut: dict[str, Any] = {}
    if size is not None and place is not None:
        cut = {"crop": (size, size), "crop_pos_y": place[0], "crop_pos_x": place[1]}
    return fn.crop_mirror_normalize(
        clip,
        mirror=flip[0],
        dtype=dtype,
        output_layout="CFHW",
        mean=[0.0] * 3 if raw else [255 * m for m in augment.mean],
        std=[1.0] * 3 if raw else [255 * s for s in augment.std],
        **cut,
    )
