"""The pictures of the demo corpus: one labelled moving object before a cluttered, changing background.

What a video keeps from its first frame to its last is what its label names, the object's shape and texture and the path
it moves on, and its own natural speed. All else is drawn without regard to the label and changes while the video runs:
the camera pans over cluttered places and cuts from one to another; light and the object's hue, size, tilt and distance
from the middle drift. So colour says nothing about the label, and what two distant clips of a video share is the label.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]

PERIOD = 24.0
"""Frames that one turn of a path takes at natural speed 1."""

SHOT = 12
"""Frames between two cuts, on average."""

RADIUS = (0.28, 0.36)
"""Between which the object's radius drifts, parts of the picture."""

MIDDLE = (0.38, 0.62)
"""Between which the middle of the path drifts, parts of the picture."""

SLOW = (40.0, 100.0)
"""Frames that one such swing takes."""

PACE = (0.5, 2.0)
"""Speed of the camera, 64ths of the picture per frame."""

THINGS = 24
"""Boxes and blobs that lie about in a place."""

THING = (0.03, 0.15)
"""Half the width and height of such a thing, parts of the place."""


def _disc(u: Array, v: Array) -> Array:
    return np.sqrt(u * u + v * v) - 1.0


def _square(u: Array, v: Array) -> Array:
    return np.maximum(np.abs(u), np.abs(v)) - 0.85


def _triangle(u: Array, v: Array) -> Array:
    return np.maximum(np.abs(u) * 0.866 + v * 0.5, -v) - 0.6


def _cross(u: Array, v: Array) -> Array:
    across = np.maximum(np.abs(u) - 1.05, np.abs(v) - 0.36)
    down = np.maximum(np.abs(u) - 0.36, np.abs(v) - 1.05)
    return np.minimum(across, down)


def _star(u: Array, v: Array) -> Array:
    return np.sqrt(u * u + v * v) - (0.78 + 0.32 * np.cos(5.0 * np.arctan2(u, v)))


def _ring(u: Array, v: Array) -> Array:
    return np.abs(np.sqrt(u * u + v * v) - 0.75) - 0.32


SHAPES: dict[str, Callable[[Array, Array], Array]] = {
    "disc": _disc,
    "square": _square,
    "triangle": _triangle,
    "cross": _cross,
    "star": _star,
    "ring": _ring,
}
"""Outlines: a function of the object's own coordinates (units of its radius), negative inside."""


def _plain(u: Array, v: Array) -> Array:
    return np.full_like(u, 1.0)


def _stripes(u: Array, v: Array) -> Array:
    return np.sin(7.0 * u)


def _checks(u: Array, v: Array) -> Array:
    return 3.0 * np.sin(5.0 * u) * np.sin(5.0 * v)


def _dots(u: Array, v: Array) -> Array:
    return np.cos(7.0 * u) + np.cos(7.0 * v) - 0.6


def _halves(u: Array, v: Array) -> Array:
    return 4.0 * v


TEXTURES: dict[str, Callable[[Array, Array], Array]] = {
    "plain": _plain,
    "stripes": _stripes,
    "checks": _checks,
    "dots": _dots,
    "halves": _halves,
}
"""Surfaces: positive where the object shows its first colour, negative where it shows its second."""

Pose = tuple[Array, Array, Array, Array]


def _orbit(phase: Array) -> Pose:
    zero = np.zeros_like(phase)
    return 0.15 * np.cos(phase), 0.15 * np.sin(phase), zero, zero


def _sway(phase: Array) -> Pose:
    zero = np.zeros_like(phase)
    return 0.2 * np.sin(phase), zero, zero, zero


def _bob(phase: Array) -> Pose:
    zero = np.zeros_like(phase)
    return zero, 0.2 * np.sin(phase), zero, zero


def _spin(phase: Array) -> Pose:
    zero = np.zeros_like(phase)
    return zero, zero, zero, phase


def _pulse(phase: Array) -> Pose:
    zero = np.zeros_like(phase)
    return zero, zero, 0.45 * np.sin(phase), zero


MOTIONS: dict[str, Callable[[Array], Pose]] = {
    "orbit": _orbit,
    "spin": _spin,
    "sway": _sway,
    "pulse": _pulse,
    "bob": _bob,
}
"""Paths: phase (radians, one per frame) to offset x and y (parts of the picture), log2 of size, and angle (radians)."""

APPEARANCES: tuple[tuple[str, str], ...] = (
    ("disc", "stripes"),
    ("square", "checks"),
    ("triangle", "plain"),
    ("cross", "dots"),
    ("star", "halves"),
    ("ring", "stripes"),
)
"""Pairs of shape and texture, in the order in which a corpus takes them."""


@dataclass(frozen=True)
class Scene:
    """All that is needed to draw one video.

    Attributes:
        shape: Key of `SHAPES`.
        texture: Key of `TEXTURES`.
        motion: Key of `MOTIONS`.
        speed: Natural speed: turns of the path per `PERIOD` frames.
        seed: Seeds everything that is not the label: place, camera, light, colours, size, phase.
        frames: Number of frames.
        size: Edge of the square picture, pixels.
    """

    shape: str
    texture: str
    motion: str
    speed: float
    seed: tuple[int, ...]
    frames: int = 64
    size: int = 64

    @property
    def label(self) -> str:
        """Name of the class: appearance and motion."""
        return f"{self.texture}_{self.shape}_{self.motion}"


def hue_to_rgb(hue: Array | float, saturation: float = 1.0, value: float = 1.0) -> Array:
    """RGB in 0..1, shape (..., 3), of a hue in turns (HSV colour model)."""
    turns = np.asarray(hue, dtype=np.float32)[..., None] + np.array([0.0, 2 / 3, 1 / 3], dtype=np.float32)
    ramp = np.clip(np.abs((turns % 1.0) * 6.0 - 3.0) - 1.0, 0.0, 1.0)
    return (value * (1.0 - saturation + saturation * ramp)).astype(np.float32)


def draw_place(rng: np.random.Generator, size: int) -> Array:
    """A cluttered picture that repeats at its edges, for a camera to pan over.

    Args:
        rng: Source of all randomness.
        size: Edge in pixels.

    Returns:
        RGB in 0..1, shape (size, size, 3).
    """
    place = np.empty((size, size, 3), dtype=np.float32)
    place[:] = hue_to_rgb(rng.random(), rng.uniform(0.1, 0.6), rng.uniform(0.3, 0.8))
    axis = np.arange(size, dtype=np.float32)
    for _ in range(THINGS):
        x, y = rng.uniform(0, size, 2)
        # Distances wrap round, so that the place has no border.
        dx = (axis - x + size / 2) % size - size / 2
        dy = (axis - y + size / 2) % size - size / 2
        wide, high = size * rng.uniform(*THING, 2)
        if rng.random() < 0.5:
            inside = (np.abs(dy) < high)[:, None] & (np.abs(dx) < wide)[None, :]
        else:
            inside = (dy[:, None] / high) ** 2 + (dx[None, :] / wide) ** 2 < 1.0
        place[inside] = hue_to_rgb(rng.random(), rng.uniform(0.2, 0.9), rng.uniform(0.2, 1.0))
    return place


def _background(rng: np.random.Generator, scene: Scene) -> Array:
    """Camera pans over a few places with cuts between them: (T, H, W, 3) in 0..1."""
    picture = np.empty((scene.frames, scene.size, scene.size, 3), dtype=np.float32)
    cuts = max(1, round(scene.frames / SHOT))
    ends = np.linspace(0, scene.frames, cuts + 1).astype(int)
    ends[1:-1] += rng.integers(-SHOT // 4, SHOT // 4 + 1, cuts - 1)
    window = np.arange(scene.size)
    for first, last in pairwise(ends):
        place = draw_place(rng, 2 * scene.size)
        start, heading = rng.uniform(0, 2 * scene.size, 2), rng.uniform(0, 2 * np.pi)
        pace = rng.uniform(*PACE) * scene.size / 64
        for frame in range(first, last):
            moved = start + pace * (frame - first) * np.array([np.cos(heading), np.sin(heading)])
            rows, columns = (np.rint(moved).astype(int)[:, None] + window) % (2 * scene.size)
            picture[frame] = place[rows[:, None], columns[None, :]]
    return picture


def render(scene: Scene) -> NDArray[np.uint8]:
    """Draw a scene.

    Returns:
        RGB frames, uint8, shape (T, H, W, 3); the same scene always gives the same pixels.
    """
    rng = np.random.default_rng(scene.seed)
    picture = _background(rng, scene)
    time = np.arange(scene.frames, dtype=np.float32)

    def drift(low: float, high: float) -> Array:
        """A slow swing between two bounds, once in 40 to 100 frames: one value a frame."""
        turns = rng.random() + rng.choice([-1.0, 1.0]) * time / rng.uniform(*SLOW)
        return (low + (high - low) * (0.5 + 0.5 * np.sin(2 * np.pi * turns))).astype(np.float32)

    turns = rng.random() + rng.choice([-1.0, 1.0]) * scene.speed * time / PERIOD
    x, y, growth, angle = MOTIONS[scene.motion]((2 * np.pi * turns).astype(np.float32))
    x, y = x + drift(*MIDDLE), y + drift(*MIDDLE)
    radius, angle = drift(*RADIUS) * 2.0**growth, angle + drift(-0.4, 0.4)

    axis = (np.arange(scene.size, dtype=np.float32) + 0.5) / scene.size
    cos, sin, scale, x, y = (part[:, None, None] for part in (np.cos(angle), np.sin(angle), radius, x, y))
    dx, dy = (axis[None, None, :] - x) / scale, (axis[None, :, None] - y) / scale
    u, v = cos * dx + sin * dy, cos * dy - sin * dx

    # Edges are about a pixel soft, or the outline would flicker as it moves.
    sharp = scale * scene.size
    cover = np.clip(0.5 - SHAPES[scene.shape](u, v) * sharp, 0.0, 1.0)[..., None]
    first = np.clip(0.5 + TEXTURES[scene.texture](u, v) * sharp * 0.15, 0.0, 1.0)[..., None]

    # Hue goes round the whole circle within every video, so no video has a colour of its own.
    hue = rng.random() + rng.choice([-1.0, 1.0]) * rng.uniform(0.8, 1.6) * time / 64
    light, dark = hue_to_rgb(hue, 0.6, 1.0), hue_to_rgb(hue + 0.5, 0.8, 0.3)
    thing = first * light[:, None, None] + (1.0 - first) * dark[:, None, None]
    picture += cover * (thing - picture)
    picture *= drift(0.6, 1.0)[:, None, None, None]
    return np.rint(picture * 255.0).astype(np.uint8)
