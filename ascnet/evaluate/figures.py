"""A picture of retrieval: queries and their nearest neighbours, right ones framed green, wrong ones red."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ascnet.evaluate.retrieve import Neighbours
from ascnet.files import written_whole
from dali_pipes import Corpus, VideoError, read_frames

RIGHT = (0, 150, 70)
WRONG = (205, 40, 40)
UNKNOWN = (130, 130, 130)
INK = (25, 25, 25)
PAPER = (255, 255, 255)

BORDER = 4
SEAM = 2
GAP = 10
LINE = 15
MOMENTS = (0.2, 0.5, 0.8)
"""Where in the video the frames of a cell are taken; one frame would hide what moves."""


def contact_sheet(
    path: str | os.PathLike[str],
    corpus: Corpus,
    found: Neighbours,
    queries: NDArray[np.int64],
    gallery: NDArray[np.int64],
    *,
    title: str = "Nearest neighbours",
    rows: int = 8,
    columns: int = 4,
    edge: int = 72,
) -> Path:
    """Draw queries and their nearest neighbours.

    The queries shown are evenly spaced over the list, never chosen by how well they did.

    Args:
        path: Where the PNG goes; it appears whole or not at all.
        corpus: The videos.
        found: Neighbours of the queries.
        queries: ``(Q,)`` row numbers of the queries in the corpus.
        gallery: ``(N,)`` row numbers of the gallery.
        title: First line of the picture.
        rows: At most so many queries.
        columns: At most so many neighbours of each.
        edge: Height and width of one frame, pixels.

    Returns:
        The path.
    """
    shown = np.unique(np.linspace(0, len(queries) - 1, min(rows, len(queries))).round().astype(int))
    columns = min(columns, found.places.shape[1])
    right = found.right(corpus.labels[queries], corpus.labels[gallery])
    width, height = _cell_size(edge)
    sheet = Image.new(
        "RGB",
        (GAP + (columns + 1) * (width + GAP) + GAP, 2 * LINE + 2 * GAP + len(shown) * (height + GAP)),
        PAPER,
    )
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, GAP // 2), title, INK, font=_font(14))
    share = f"{int(right[:, 0].sum())} of {len(queries)} nearest neighbours share the query's class"
    note = f"Left: query. Then its nearest neighbours, green: same class, red: another. {share}."
    draw.text((GAP, GAP // 2 + LINE + 3), note, INK, font=_font(11))
    for line, at in enumerate(shown):
        top = 2 * LINE + 2 * GAP + line * (height + GAP)
        _cell(sheet, (GAP, top), corpus, int(queries[at]), edge, UNKNOWN, "query")
        for column in range(columns):
            place = int(found.places[at, column])
            if place < 0:
                continue
            colour, word = (RIGHT, "right") if right[at, column] else (WRONG, "wrong")
            if corpus.labels[queries[at]] < 0:
                colour, word = UNKNOWN, ""
            corner = (2 * GAP + (column + 1) * (width + GAP), top)
            text = f"{word} {found.scores[at, column]:.2f}".strip()
            _cell(sheet, corner, corpus, int(gallery[place]), edge, colour, text)
    with written_whole(path) as temporary:
        sheet.save(temporary, format="PNG")
    return Path(path)


def _cell_size(edge: int) -> tuple[int, int]:
    return len(MOMENTS) * (edge + SEAM) - SEAM + 2 * BORDER, edge + 2 * BORDER + 2 * LINE


def _cell(
    sheet: Image.Image,
    corner: tuple[int, int],
    corpus: Corpus,
    row: int,
    edge: int,
    colour: tuple[int, int, int],
    text: str,
) -> None:
    """Frames of one video in a coloured frame, its class and a word below."""
    draw = ImageDraw.Draw(sheet)
    left, top = corner
    width, height = _cell_size(edge)
    bottom = top + height - 2 * LINE
    draw.rectangle((left, top, left + width - 1, bottom - 1), fill=colour)
    for place, picture in enumerate(_pictures(corpus, row, edge)):
        sheet.paste(picture, (left + BORDER + place * (edge + SEAM), top + BORDER))
    label = corpus.labels[row]
    name = corpus.classes[label] if label >= 0 else Path(corpus[row].uri).name
    font = _font(11)
    while len(name) > 1 and draw.textlength(name, font=font) > width:
        name = name[:-2] + "…" if name.endswith("…") else name[:-1] + "…"
    draw.text((left, bottom + 1), name, INK, font=font)
    draw.text((left, bottom + LINE), text, colour, font=font)


def _pictures(corpus: Corpus, row: int, edge: int) -> Sequence[Image.Image]:
    last = int(corpus.frames[row]) - 1
    numbers = [round(moment * last) for moment in MOMENTS]
    try:
        frames = read_frames(corpus, row, numbers, short_side=edge)
    except VideoError:
        # Features exist for this video, so this is rare; a grey cell says more than no picture at all.
        return [Image.new("RGB", (edge, edge), UNKNOWN) for _ in numbers]
    return [_square(frame, edge) for frame in frames]


def _square(frame: NDArray[np.uint8], edge: int) -> Image.Image:
    height, width = frame.shape[:2]
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    cropped = Image.fromarray(frame).crop((left, top, left + side, top + side))
    return cropped.resize((edge, edge), Image.Resampling.BILINEAR)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
