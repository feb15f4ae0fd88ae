"""Damaged variants of real video files: a pure function of the file's bytes and a random generator."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

# Where sizes, counts and tables begin in MP4, AVI and Matroska; the values after them are overwritten.
_MARKERS: tuple[bytes, ...]
_MARKERS = (b"tkhd", b"avc1", b"hvc1", b"mp4v", b"stsz", b"stts", b"stsc", b"stco", b"ctts", b"elst", b"mdhd", b"trun")
_MARKERS += (b"avih", b"strh", b"strf", b"idx1", b"\xe0\xb0", b"\xb0\x82", b"\x16\x54\xae\x6b", b"\x1c\x53\xbb\x6b")
_EXTREMES = (0, 1, 0x7FFF, 0x10000, 0x00FFFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_HEADER = 4096


def _flip(data: np.ndarray, rng: np.random.Generator, end: int) -> None:
    density = 10.0 ** rng.uniform(-6, -2)
    count = max(1, round(density * end))
    places = rng.integers(0, end, count)
    data[places] ^= (1 << rng.integers(0, 8, count)).astype(np.uint8)


def flip_anywhere(data: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Single bits, one in a million bytes to one in a hundred."""
    _flip(data, rng, len(data))
    return data


def flip_header(data: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Single bits within the first or last bytes, where containers keep their tables."""
    size = min(_HEADER, len(data))
    part = data[:size] if rng.random() < 0.5 else data[-size:]
    _flip(part, rng, size)
    _flip(part, rng, size)
    return data


def truncate(data: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The file ends early."""
    return data[: int(rng.integers(0, len(data)))]


def zero_block(data: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A block that was never written."""
    size = int(rng.integers(1, max(2, min(1 << 16, len(data) // 4))))
    begin = int(rng.integers(0, max(1, len(data) - size)))
    data[begin : begin + size] = 0
    return data


def swap_blocks(data: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Two blocks in each other's place."""
    size = int(rng.integers(1, max(2, min(1 << 16, len(data) // 4))))
    a, b = (int(place) for place in rng.integers(0, max(1, len(data) - size), 2))
    first, second = data[a : a + size].copy(), data[b : b + size].copy()
    data[a : a + size] = second
    data[b : b + size] = first
    return data


def hostile_sizes(data: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Extreme numbers behind the names of header fields."""
    text = data.tobytes()
    places = [place for marker in _MARKERS if (place := text.find(marker)) >= 0]
    for _ in range(int(rng.integers(1, 4))):
        place = int(rng.choice(places)) if places else 0
        at = place + 4 + int(rng.integers(0, 40))
        value = int(rng.choice(_EXTREMES)).to_bytes(4, "big" if rng.random() < 0.7 else "little")
        part = data[at : at + 4]
        part[:] = np.frombuffer(value, np.uint8)[: len(part)]
    return data


MUTATIONS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    function.__name__: function
    for function in (flip_anywhere, flip_header, truncate, zero_block, swap_blocks, hostile_sizes)
}


def variant(seed: int, number: int, files: int) -> tuple[int, str, np.random.Generator]:
    """Which file becomes variant ``number``, how, and the generator that damages it."""
    rng = np.random.default_rng([seed, number])
    return int(rng.integers(files)), str(rng.choice(list(MUTATIONS))), rng


def damaged(data: bytes, mutation: str, rng: np.random.Generator) -> bytes:
    """The damaged bytes."""
    return MUTATIONS[mutation](np.frombuffer(data, np.uint8).copy(), rng).tobytes()
