"""Labels, splits and groups from paths and split lists."""

from __future__ import annotations

from pathlib import Path, PurePath

import pytest

from dali_pipes.corpus.layouts import Place, place
from dali_pipes.errors import DataError


def paths(*names: str) -> list[PurePath]:
    return [PurePath(name) for name in names]


@pytest.fixture
def splits(tmp_path: Path) -> Path:
    (tmp_path / "classInd.txt").write_text("1 HandstandPushups\n2 Yo Yo\n")
    (tmp_path / "trainlist01.txt").write_text(
        "HandstandPushups/v_HandStandPushups_g08_c01.avi 1\r\nYo Yo/v_YoYo_g01_c01.avi 2\r\n\r\n"
    )
    (tmp_path / "testlist01.txt").write_text("HandstandPushups/v_HandStandPushups_g01_c01.avi\n")
    (tmp_path / "trainlist02.txt").write_text("Yo Yo/v_YoYo_g02_c01.avi 2\n")
    (tmp_path / "testlist02.txt").write_text("Yo Yo/v_YoYo_g01_c01.avi\n")
    return tmp_path


def test_folders_are_classes_and_files_beside_them_have_none() -> None:
    found = place(paths("run/a.mp4", "walk/deep/b.mp4", "c.mp4"), "folders").places
    assert found == [Place("run"), Place("walk"), Place("")]


def test_folders_named_like_splits_are_splits() -> None:
    found = place(paths("train/run/a.mp4", "Validation/walk/b.mp4", "test/c.mp4"), "folders").places
    assert found == [Place("run", "train"), Place("walk", "val"), Place("", "test")]


def test_a_class_named_like_a_split_among_others_is_a_class() -> None:
    assert place(paths("test/a.mp4", "run/b.mp4"), "folders").places == [Place("test"), Place("run")]


def test_ucf101_lists_give_the_split_and_names_the_group(splits: Path) -> None:
    videos = paths(
        "HandstandPushups/v_HandStandPushups_g08_c01.avi", "HandstandPushups/v_HandStandPushups_g01_c01.avi",
        "Yo Yo/v_YoYo_g01_c01.avi", "Yo Yo/v_YoYo_g09_c01.avi",
    )  # fmt: skip
    found = place(videos, "ucf101", splits=splits)
    assert found.places == [
        Place("HandstandPushups", "train", "HandstandPushups_g08"),
        Place("HandstandPushups", "test", "HandstandPushups_g01"),
        Place("Yo Yo", "train", "Yo Yo_g01"),
        Place("Yo Yo", "", "Yo Yo_g09"),
    ]
    assert found.warnings == ["1 videos in the folder are in no list: Yo Yo/v_YoYo_g09_c01.avi"]


def test_another_fold_gives_other_splits(splits: Path) -> None:
    found = place(paths("Yo Yo/v_YoYo_g01_c01.avi", "Yo Yo/v_YoYo_g02_c01.avi"), "ucf101", splits=splits, fold=2)
    assert [p.split for p in found.places] == ["test", "train"]


def test_flat_and_transcoded_files_are_found_in_the_lists_by_name(splits: Path) -> None:
    found = place(paths("v_HandStandPushups_g08_c01.mp4", "v_YoYo_g01_c01.webm"), "ucf101", splits=splits)
    assert found.places == [
        Place("HandstandPushups", "train", "HandstandPushups_g08"),
        Place("Yo Yo", "train", "Yo Yo_g01"),
    ]
    assert found.warnings[0].startswith("1 of 3 listed videos are not in the folder: HandstandPushups/")


def test_without_lists_names_alone_give_class_and_group() -> None:
    found = place(paths("v_Archery_g03_c02.avi", "Biking/v_Biking_g01_c01.avi", "Biking/other.avi"), "ucf101").places
    assert found == [Place("Archery", "", "Archery_g03"), Place("Biking", "", "Biking_g01"), Place("Biking")]


def test_classes_that_the_list_does_not_have_are_told(splits: Path) -> None:
    assert place(paths("Swing/x.avi"), "ucf101", splits=splits).warnings[0].startswith("classes that classInd.txt")


def test_lists_of_another_name_are_taken_where_there_is_one_of_each(videos: Path) -> None:
    folder = videos / "weizmann"
    found = place(
        [path.relative_to(folder) for path in sorted(folder.rglob("*.avi"))],
        "ucf101",
        splits=videos / "splits" / "weizmann",
    )
    splits = [p.split for p in found.places]
    assert (splits.count("train"), splits.count("test"), found.warnings) == (60, 30, [])
    assert {p.group for p in found.places} == {""}
    assert len({p.label for p in found.places}) == 10


def test_mistakes_are_named(splits: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="layout 'k400': must be one of folders, ucf101, hmdb51, kinetics, csv"):
        place([], "k400")
    with pytest.raises(DataError, match="layout 'folders' has no split lists"):
        place([], "folders", splits=splits)
    with pytest.raises(DataError, match="no such folder"):
        place([], "ucf101", splits=tmp_path / "none")
    with pytest.raises(DataError, match=r"no trainlist03\.txt for fold 3; train lists there: trainlist01\.txt"):
        place([], "ucf101", splits=splits, fold=3)
    (splits / "testlist01.txt").write_text("Yo Yo/v_YoYo_g01_c01.avi\n")
    with pytest.raises(DataError, match="is in the train and the test list"):
        place([], "ucf101", splits=splits)
    (splits / "classInd.txt").write_text("HandstandPushups\n")
    with pytest.raises(DataError, match="expected a number and a class name"):
        place([], "ucf101", splits=splits, fold=2)
