"""Tables and JSON of scores, and the protocol that stands below them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from ascnet.errors import UserError
from ascnet.evaluate.protocols import Protocol
from ascnet.evaluate.tables import recall_table, write_json


def printed(**options: object) -> str:
    console = Console(file=io.StringIO(), width=1000)
    scores = {"untrained": {1: 10.0, 5: 20.0}, "pretrained": {1: 33.333, 5: 60.0}}
    console.print(recall_table(scores, title="T", **options))  # type: ignore[arg-type]
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_table_has_a_row_for_each_kind_of_feature_and_the_protocol_below() -> None:
    text = printed(queries=30, gallery=60, caption=Protocol(center=True).card())
    rows = [line.split("│") for line in text.splitlines() if "trained" in line]
    assert [[cell.strip() for cell in row if cell.strip()] for row in rows] == [
        ["untrained", "10.0", "20.0"],
        ["pretrained", "33.3", "60.0"],
    ]
    assert "30 queries (one is 3.3 points), 60 in the gallery" in text
    assert "minus the mean of the gallery" in text


def test_a_k_that_reaches_the_whole_gallery_is_marked() -> None:
    text = printed(queries=30, gallery=5)
    assert "R@5*" in text and "R@1*" not in text and "* the whole gallery" in text
    assert "*" not in printed(queries=30, gallery=60)


def test_published_rows_stand_below_only_when_asked_for() -> None:
    text = printed(queries=30, gallery=60, published=True)
    row = next(line for line in text.splitlines() if "ASCNet, 3D R18" in line)
    assert "58.9" in row and "-" in row  # k = 5 was not published
    assert "published" not in printed(queries=30, gallery=60)


def test_json_is_written_whole_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = write_json(tmp_path / "new" / "scores.json", {"R@1": 3.0})
    assert json.loads(path.read_text()) == {"R@1": 3.0}
    with pytest.raises(TypeError):
        write_json(path, {"R@1": object()})
    assert json.loads(path.read_text()) == {"R@1": 3.0}
    assert [entry.name for entry in path.parent.iterdir()] == ["scores.json"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("clips", 0), ("speed", 0.0), ("short", "skip"), ("precision", "fp8"), ("ks", (0, 1)), ("size", -3)],
)
def test_a_protocol_that_cannot_be_followed_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(UserError, match=f"{name}="):
        Protocol(**{name: value})  # type: ignore[arg-type]
