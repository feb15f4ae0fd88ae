"""The suite: which benchmarks it runs, over what, and what it does when one fails or time runs out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console

from bench.__main__ import main
from bench.commands import COMMANDS, suite
from dali_pipes import Corpus
from tests.make_videos import make_video


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("suite") / "clips"
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        make_video(root / name / "video.mp4", frames=40)
    return root


def test_every_corpus_is_decoded_and_loaded_and_names_are_unique() -> None:
    listed = suite.parts(["kinetics400", "weizmann", "copies"])
    names = [part.name for part in listed]
    assert len(set(names)) == len(names)
    for corpus in ("kinetics400", "weizmann", "copies"):
        assert {f"loader-{corpus}", f"decode-{corpus}"} <= set(names)
    assert {part.words[0] for part in listed} <= set(COMMANDS)
    # What is asked of one, and is slow, is asked of the first one and of its copies.
    assert {name for name in names if name.startswith("stages")} == {"stages-kinetics400", "stages-copies"}


def test_four_corpora_fit_into_twenty_minutes() -> None:
    assert sum(part.minutes for part in suite.parts(["kinetics400", "ucf101", "weizmann", "copies"])) < 20


def test_the_options_of_all_parts_are_those_of_their_commands(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import argparse
    import importlib

    for part in suite.parts(["raw", "copies"], "cpu"):
        parser = argparse.ArgumentParser()
        importlib.import_module(f"bench.commands.{part.words[0]}").add_arguments(parser)
        parser.parse_args([*(["x.parquet"] if part.corpus else []), *part.words[1:], "--output", "y.json"])


def test_a_folder_becomes_an_index_and_small_copies_made_once(folder: Path, tmp_path: Path) -> None:
    corpora = suite.prepare(folder, tmp_path, Console(quiet=True))
    assert list(corpora) == ["clips", "copies"]
    raw, copies = (Corpus.open(path) for path in corpora.values())
    assert len(raw.select()) == len(copies.select()) == 2
    assert copies.fingerprint != raw.fingerprint
    written = corpora["copies"].stat().st_mtime_ns
    suite.prepare(folder, tmp_path, Console(quiet=True))
    assert corpora["copies"].stat().st_mtime_ns == written


def test_known_corpora_are_found_by_their_names(folder: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in ("weizmann", "odd"):
        (videos / name).symlink_to(folder)
    assert list(suite.prepare(videos, tmp_path, Console(quiet=True))) == ["weizmann", "copies"]


def test_what_is_measured_is_kept_and_what_fails_or_takes_too_long_is_told(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    called: list[str] = []

    def call(words: Sequence[str]) -> int:
        if words[0] == "report":
            return 0
        path = Path(words[-1])
        called.append(path.stem)
        if path.stem == "decode-copies":
            return 1
        path.write_text(json.dumps({"benchmark": words[0]}))
        return 0

    monkeypatch.setattr(suite, "call", call)
    # However long preparing takes on this machine.
    monkeypatch.setattr(suite.time, "monotonic", lambda: 0.0)
    command = ["suite", str(folder), "--out", str(tmp_path), "--only", "decode", "loader", "sweep"]
    assert main([*command, "--minutes", "1"]) == 1
    # Whatever takes longer than the minute is left out.
    assert called == ["loader-copies", "decode-clips", "decode-copies"]
    assert "sweep-copies: left out" in capsys.readouterr().err
    assert main(command) == 1
    assert called[3:] == ["loader-clips", "decode-copies", "sweep-copies", "curves-copies"]
    assert "exit code 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [(["no-such-folder"], "no-such-folder"), ([".", "--only", "nonsense"], "nonsense")],
)
def test_a_mistake_is_told_in_one_line(
    words: list[str], told: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(folder) if word == "." else word for word in words]
    assert main(["suite", *words, "--out", str(tmp_path)]) == 2
    assert told in capsys.readouterr().err.splitlines()[-1]
