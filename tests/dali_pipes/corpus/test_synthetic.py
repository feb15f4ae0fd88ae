"""The demo corpus: same seed same files, balanced labels that colour does not give away, files that decode."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest

from dali_pipes.corpus.synthetic import FORMATS, make_demo_corpus, plan_demo_corpus
from dali_pipes.corpus.synthetic_scenes import APPEARANCES, MOTIONS, Scene, render
from dali_pipes.errors import DataError


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def decode(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_same_seed_gives_the_same_files_whatever_the_number_of_workers(tmp_path: Path) -> None:
    for name, seed, workers in (("a", 3, 1), ("b", 3, 3), ("c", 4, 1)):
        make_demo_corpus(tmp_path / name, 6, appearances=3, motions=1, frames=6, size=32, seed=seed, workers=workers)
    first, again, other = (files(tmp_path / name) for name in "abc")
    assert first == again
    assert first.keys() == other.keys()
    assert all(first[name] != other[name] for name in first if name.endswith(".mkv"))


def test_labels_are_balanced_and_both_splits_hold_every_class() -> None:
    plan = plan_demo_corpus(120, appearances=4, motions=3)
    labels = Counter(video.scene.label for video in plan)
    assert len(labels) == 12 and set(labels.values()) == {10}
    for split, each in (("train", 7), ("test", 3)):
        counts = Counter(video.scene.label for video in plan if video.split == split)
        assert counts == dict.fromkeys(labels, each)
    assert len({video.path for video in plan}) == len({video.scene.seed for video in plan}) == 120


def test_an_uneven_number_of_videos_is_spread_to_within_one() -> None:
    plan = plan_demo_corpus(31, appearances=6, motions=2, test_share=0.01)
    assert set(Counter(video.scene.label for video in plan).values()) == {2, 3}
    assert set(Counter(video.scene.label for video in plan if video.split == "test").values()) == {1}


def test_natural_speeds_vary_within_every_class() -> None:
    plan = plan_demo_corpus(120, appearances=2, motions=2)
    for label in {video.scene.label for video in plan}:
        speeds = [video.scene.speed for video in plan if video.scene.label == label]
        assert 0.7 <= min(speeds) < 0.9 < 1.2 < max(speeds) <= 1.4


def test_the_lists_name_existing_files_once_and_do_not_overlap(tmp_path: Path) -> None:
    splits = make_demo_corpus(tmp_path, 8, appearances=2, motions=2, frames=2, size=16)
    names = dict(line.split()[::-1] for line in (splits / "classInd.txt").read_text().splitlines())
    train = dict(line.split() for line in (splits / "trainlist01.txt").read_text().splitlines())
    test = (splits / "testlist01.txt").read_text().splitlines()
    assert not set(train) & set(test)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.mkv")} == set(train) | set(test)
    assert all(names[Path(path).parent.name] == number for path, number in train.items())


@pytest.mark.parametrize("codec", FORMATS)
def test_files_decode_to_the_frames_that_were_drawn(tmp_path: Path, codec: str) -> None:
    make_demo_corpus(tmp_path, 2, codec=codec, appearances=1, motions=1, frames=20, size=64, seed=7)
    plan = plan_demo_corpus(2, appearances=1, motions=1, frames=20, size=64, seed=7, suffix=FORMATS[codec].suffix)
    with av.open(str(tmp_path / plan[0].path)) as container:
        assert container.streams.video[0].codec_context.name == codec
    shown, drawn = decode(tmp_path / plan[0].path), render(plan[0].scene)
    assert len(shown) == 20
    for number, frame in enumerate(shown):
        # Each frame is nearest to itself, so none was dropped, doubled or moved.
        distance = np.abs(drawn.astype(int) - frame).mean(axis=(1, 2, 3))
        assert distance.argmin() == number and distance[number] < 20


@pytest.mark.parametrize("shape, texture", APPEARANCES)
@pytest.mark.parametrize("motion", MOTIONS)
def test_the_object_is_in_the_picture_and_moves(shape: str, texture: str, motion: str) -> None:
    with_object = render(Scene(shape, texture, motion, 1.0, (1, 2), frames=25, size=32)).astype(int)
    other = next(pair for pair in APPEARANCES if pair[0] != shape)
    without = render(Scene(*other, motion, 1.0, (1, 2), frames=25, size=32)).astype(int)
    changed = np.abs(with_object - without).max(axis=-1) > 8
    # The same seed draws the same place, so two pictures differ on the objects only.
    assert 0.02 < changed.mean() < 0.8
    assert (changed[0] != changed[6]).mean() > 0.01


def test_mean_colour_does_not_give_the_label_away() -> None:
    plan = plan_demo_corpus(240, appearances=4, motions=1, frames=24, size=24)
    colours = np.stack([render(video.scene).mean(axis=(0, 1, 2)) for video in plan])
    labels = np.array([video.scene.label for video in plan])
    train = np.array([video.split == "train" for video in plan])
    distance = np.linalg.norm(colours[~train, None] - colours[None, train], axis=-1)
    right = (labels[train][distance.argmin(axis=1)] == labels[~train]).mean()
    # Chance is 0.25, with a standard error of 0.05 for 80 queries.
    assert right < 0.40


def test_progress_is_reported_for_every_video(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    make_demo_corpus(
        tmp_path, 4, appearances=1, motions=2, frames=2, size=16, report=lambda done, total: seen.append((done, total))
    )
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_no_temporary_file_is_left_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(path: Path, *_: object) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("dali_pipes.corpus.synthetic.encode", fails)
    with pytest.raises(OSError, match="disk full"):
        make_demo_corpus(tmp_path, 2, appearances=1, motions=1, frames=2, size=16, workers=1)
    assert not files(tmp_path)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"codec": "av1"}, "codec='av1': must be one of mjpeg, vp9, h264"),
        ({"videos": 23}, "videos=23: must be at least 24 .two for each of 12 classes"),
        ({"appearances": 7}, "appearances=7: must be 1 to 6"),
        ({"motions": 0}, "motions=0: must be 1 to 5"),
        ({"size": 33}, "size=33: must be even"),
        ({"size": 8}, "size=8: must be at least 16"),
        ({"frames": 1}, "frames=1: must be at least 2"),
        ({"test_share": 1.0}, "test_share=1.0: must lie between 0 and 1"),
    ],
)
def test_an_argument_out_of_range_is_named_with_what_would_be_right(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        make_demo_corpus(tmp_path / "none", **change)  # type: ignore[arg-type]
    assert not (tmp_path / "none").exists()
