"""The fuzz job: the same seed gives the same variants, real damage is counted, harm to a neighbour would be seen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from make_videos import make_video

from bench.__main__ import main
from bench.commands import fuzz
from bench.fuzz_variants import MUTATIONS, damaged, variant
from dali_pipes.corpus.probe import probe_row


def test_a_seed_gives_the_same_variants_and_another_seed_others() -> None:
    data = np.random.default_rng(0).integers(0, 256, 20000).astype(np.uint8).tobytes()

    def made(seed: int) -> list[bytes]:
        chosen = [variant(seed, number, 5) for number in range(20)]
        return [damaged(data, mutation, rng) for _, mutation, rng in chosen]

    assert made(1) == made(1)
    assert made(1) != made(2)


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_every_mutation_damages_files_of_any_size(mutation: str) -> None:
    for size in (64, 1000, 300_000):
        data = b"ftyptkhd" + bytes(range(56)) + np.random.default_rng(3).bytes(size - 64)
        changed = [damaged(data, mutation, np.random.default_rng(n)) for n in range(10)]
        assert sum(one != data for one in changed) >= 5
        assert all(len(one) == len(data) or mutation == "truncate" for one in changed)


def test_variants_go_through_index_and_loader_and_are_counted(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    make_video(folder / "a.avi", codec="mpeg4", frames=20, size=(64, 64))
    make_video(folder / "b.mp4", codec="h264", frames=20, size=(64, 64))
    output = tmp_path / "fuzz.json"
    assert main(["fuzz", str(folder), "--variants", "8", "--seed", "3", "--output", str(output)]) == 0
    result = json.loads(output.read_text())
    counts = result["counts"]
    assert result["variants"] == counts.get("played", 0) + counts.get("replaced", 0) + counts["refused"] == 8
    # What the index refuses is played as well, as if the damage had come later.
    assert counts.get("played late", 0) + counts.get("replaced late", 0) == counts["refused"]
    assert result["failures"] == []
    assert result["counts"].get("refused", 0) == sum(result["refused"].values()) > 0


def test_a_neighbour_that_changes_is_a_failure(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.avi", codec="mpeg4", frames=20, size=(64, 64))
    row = probe_row(str(path)) | {"label": "", "split": "", "group": ""}
    clean = fuzz.make_clean(tmp_path)
    assert fuzz.play((row, clean, 0)) == ("played", "")
    # The clean video becomes another behind the loader's back, as a poisoned batch would show it.
    make_video(tmp_path / "other.avi", codec="mjpeg", frames=40, size=(96, 80)).replace(tmp_path / "clean.avi")
    assert fuzz.play((row, clean, 0))[0] == "poisoned"


def test_a_folder_without_videos_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fuzz", str(tmp_path)]) == 2
    assert "no videos of" in capsys.readouterr().err
