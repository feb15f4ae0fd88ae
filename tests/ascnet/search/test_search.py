"""`ascnet search`: the right videos with the right scores, and mistakes in one line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from make_videos import make_video
from search_index import make_checkpoint, make_corpus, make_recipe

from ascnet import cli
from ascnet.search.embed import embed
from ascnet.search.searcher import Searcher
from ascnet.weights import load_encoder
from dali_pipes import Corpus


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with videos/corpus.parquet, encoder.pt, whole.parquet and clips.npy."""
    home = tmp_path_factory.mktemp("home")
    corpus, checkpoint = make_corpus(home / "videos"), make_checkpoint(home / "encoder.pt")
    for name, per_clip in (("whole.parquet", False), ("clips.npy", True)):
        recipe = make_recipe(checkpoint, corpus, clips=3, per_clip=per_clip)
        encoder = load_encoder(checkpoint)
        embed(encoder, Corpus.open(corpus), recipe, home / name, device="cpu", threads=1, progress=False)
    return home


def search(home: Path, *words: object, index: str = "whole.parquet") -> int:
    return cli.main(["search", *map(str, words), "--index", str(home / index), "--device", "cpu", "--threads", "1"])


def vectors(home: Path) -> np.ndarray:
    """(7, 3, D), each of length 1."""
    found = np.load(home / "clips.npy").astype(np.float64).reshape(7, 3, -1)
    return found / np.linalg.norm(found, axis=2, keepdims=True)


def test_a_video_of_the_corpus_finds_the_others_by_cosine(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    videos = Corpus.open(home / "videos" / "corpus.parquet")
    query = videos[2].uri
    assert search(home, query, "--json", "-k", 4) == 0
    (found,) = json.loads(capsys.readouterr().out)["queries"]
    whole = np.load(home / "clips.npy").reshape(7, 3, -1).mean(1).astype(np.float64)
    whole /= np.linalg.norm(whole, axis=1, keepdims=True)
    scores = whole @ whole[2]
    order = [row for row in np.argsort(-scores, kind="stable").tolist() if row != 2][:4]
    assert found["query"] == query and [one["row"] for one in found["neighbours"]] == order
    assert [one["uri"] for one in found["neighbours"]] == [videos[row].uri for row in order]
    np.testing.assert_allclose([one["score"] for one in found["neighbours"]], scores[order], atol=2e-6)


def test_a_copy_elsewhere_finds_its_original_first(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in ("whole.parquet", "clips.npy"):
        queries = []
        for row in (1, 4):
            original = Path(Corpus.open(home / "videos" / "corpus.parquet")[row].uri)
            queries.append(shutil.copyfile(original, tmp_path / f"copy of {row}.mkv"))
        assert search(home, *queries, "--json", index=index) == 0
        found = json.loads(capsys.readouterr().out)["queries"]
        assert [one["neighbours"][0]["row"] for one in found] == [1, 4]
        assert all(one["neighbours"][0]["score"] > 0.99999 for one in found)
        assert all(len(one["neighbours"]) == 7 for one in found)


def test_with_a_row_a_clip_each_video_comes_once_by_its_best_clip(home: Path) -> None:
    searcher = Searcher(home / "clips.npy", device="cpu", threads=1)
    clips = vectors(home)
    hits = searcher.of_row(3, 6)
    best = np.einsum("qd,rcd->rqc", clips[3], clips).max(axis=(1, 2))
    order = [row for row in np.argsort(-best, kind="stable").tolist() if row != 3]
    assert [hit.row for hit in hits] == order
    np.testing.assert_allclose([hit.score for hit in hits], best[order], atol=1e-6)
    assert {hit.start for hit in hits} <= {0, 5, 10}


def test_the_table_names_queries_scores_and_labels(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert search(home, Corpus.open(home / "videos" / "corpus.parquet")[0].uri, "-k", "2") == 0
    printed = capsys.readouterr().out
    assert "0.mkv" in printed and "score" in printed and "torch, exact, 7 vectors" in printed


def test_another_checkpoint_is_refused_by_both_hashes(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = make_checkpoint(tmp_path / "other.pt", seed=5)
    query = Corpus.open(home / "videos" / "corpus.parquet")[0].uri
    assert search(home, query, "--checkpoint", other) == 2
    error = capsys.readouterr().err
    hashes = [make_recipe(path, home / "videos" / "corpus.parquet").weights for path in (home / "encoder.pt", other)]
    assert all(one in error for one in hashes) and error.count("\n") == 1
    # The same weights under another name are the same.
    assert search(home, query, "--checkpoint", shutil.copyfile(home / "encoder.pt", tmp_path / "copy.pt")) == 0


def test_another_corpus_is_refused_by_both_fingerprints(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = make_corpus(tmp_path / "other", 2)
    assert search(home, "x.mkv", "--corpus", other) == 2
    error = capsys.readouterr().err
    both = [Corpus.open(path).fingerprint for path in (home / "videos" / "corpus.parquet", other)]
    assert all(one in error for one in both) and error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "say a QUERY, or --serve"),
        (("q.mkv", "--serve"), "not both"),
        (("nowhere.mkv",), "nowhere.mkv"),
        (("nowhere.mkv", "-k", "0"), "-k 0: must be at least 1"),
        (("--serve", "--upload-limit", "0"), "--upload-limit 0"),
        (("--serve", "--port", "99999"), "--port 99999"),
    ],
)
def test_mistakes_are_one_line(
    home: Path, words: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert search(home, *words) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("ascnet: ") and told in captured.err and captured.err.count("\n") == 1


def test_a_query_that_is_no_video_is_one_line(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.mp4").write_text("this is no video")
    make_video(tmp_path / "short.mkv", codec="mjpeg", frames=1, size=(64, 48))
    assert search(home, tmp_path / "text.mp4") == 2
    assert f"{tmp_path / 'text.mp4'}: cannot be opened" in capsys.readouterr().err
    # One frame is a video, and shown over and over.
    assert search(home, tmp_path / "short.mkv", "--json") == 0


def test_an_index_that_is_none_is_one_line(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("missing.parquet", "corpus.parquet", "features.txt"):
        if name == "corpus.parquet":
            shutil.copyfile(home / "videos" / "corpus.parquet", tmp_path / name)
        assert cli.main(["search", "x.mkv", "--index", str(tmp_path / name)]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_checkpoint_that_is_gone_is_asked_for_only_when_it_is_needed(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "moved.pt"
    query = Corpus.open(home / "videos" / "corpus.parquet")[0].uri
    shutil.move(home / "encoder.pt", moved)
    try:
        assert search(home, query) == 0
        assert search(home, shutil.copyfile(query, tmp_path / "copy.mkv")) == 2
        assert "say --checkpoint PATH" in capsys.readouterr().err
        assert search(home, tmp_path / "copy.mkv", "--checkpoint", moved) == 0
    finally:
        shutil.move(moved, home / "encoder.pt")


@pytest.mark.parametrize("command", ["embed", "search"])
def test_help_of_both_commands_loads_nothing_heavy(command: str) -> None:
    code = (
        f"import sys\nfrom ascnet import cli\ntry: cli.main([{command!r}, '--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'nvidia', 'av', 'numpy', 'pyarrow'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr.strip() == "[]" and "Example: ascnet" in done.stdout
