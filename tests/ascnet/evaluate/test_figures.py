"""The contact sheet: a readable PNG whose frames are green where the class is right and red where it is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from make_videos import make_video
from PIL import Image

from ascnet.evaluate import figures
from ascnet.evaluate.retrieve import Neighbours
from dali_pipes import Corpus

EDGE = 24


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    root = tmp_path_factory.mktemp("videos")
    for number, name in enumerate(("a/0.mkv", "a/1.mkv", "b/2.mkv", "b/3.mkv")):
        make_video(root / name, codec="mjpeg", frames=10, size=(48, 32), first=4000 * number)
    return Corpus.build(root, output=root / "corpus.parquet", progress=False, workers=1)


def frame_colour(sheet: Image.Image, line: int, column: int) -> tuple[int, ...]:
    """Colour of the frame around a cell; column 0 is the query."""
    width, height = figures._cell_size(EDGE)
    left = figures.GAP + column * (width + figures.GAP) + (figures.GAP if column else 0)
    top = 2 * figures.LINE + 2 * figures.GAP + line * (height + figures.GAP)
    return sheet.getpixel((left + 1, top + figures.BORDER + EDGE // 2))  # type: ignore[return-value]


def found(places: list[list[int]]) -> Neighbours:
    at = np.array(places, np.int64)
    return Neighbours(at, np.where(at < 0, -np.inf, 0.5).astype(np.float32))


def test_right_and_wrong_neighbours_are_framed_in_their_colours(corpus: Corpus, tmp_path: Path) -> None:
    queries, gallery = np.array([0, 2]), np.array([1, 3])
    path = figures.contact_sheet(tmp_path / "sheet.png", corpus, found([[0, 1], [0, 1]]), queries, gallery, edge=EDGE)
    with Image.open(path) as sheet:
        assert sheet.format == "PNG" and sheet.mode == "RGB"
        colours = [[frame_colour(sheet, line, column) for column in range(3)] for line in range(2)]
    assert colours == [
        [figures.UNKNOWN, figures.RIGHT, figures.WRONG],
        [figures.UNKNOWN, figures.WRONG, figures.RIGHT],
    ]
    assert [entry.name for entry in tmp_path.iterdir()] == ["sheet.png"]


def test_a_place_that_stayed_empty_is_left_blank(corpus: Corpus, tmp_path: Path) -> None:
    path = figures.contact_sheet(
        tmp_path / "sheet.png", corpus, found([[0, -1]]), np.array([0]), np.array([1, 0]), edge=EDGE
    )
    with Image.open(path) as sheet:
        assert frame_colour(sheet, 0, 1) == figures.RIGHT
        assert frame_colour(sheet, 0, 2) == figures.PAPER


def test_queries_shown_are_spread_over_the_list(corpus: Corpus, tmp_path: Path) -> None:
    path = figures.contact_sheet(
        tmp_path / "sheet.png", corpus, found([[0]] * 4), np.arange(4), np.array([3]), rows=2, edge=EDGE
    )
    with Image.open(path) as sheet:
        # The first and the last of the four: classes a and b against a gallery of one b.
        assert [frame_colour(sheet, line, 1) for line in range(2)] == [figures.WRONG, figures.RIGHT]
        assert sheet.height == 2 * figures.LINE + 2 * figures.GAP + 2 * (figures._cell_size(EDGE)[1] + figures.GAP)
