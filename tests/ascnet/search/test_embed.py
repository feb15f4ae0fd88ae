"""`ascnet embed`: the right vectors under the right names, resumable, whole or absent, bad videos listed."""

from __future__ import annotations

import json
import shutil
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from search_index import make_checkpoint, make_corpus, make_recipe

from ascnet import cli
from ascnet.errors import UserError
from ascnet.evaluate.features import extract
from ascnet.search import embed as embedding
from ascnet.search.embed import embed
from ascnet.search.feature_file import FeatureFile, write
from ascnet.search.nearest import choose, nearest
from ascnet.search.parts import PLACE, Part, Parts
from ascnet.weights import load_encoder
from dali_pipes import Corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("videos"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("run") / "encoder.pt")


def run(*words: object) -> int:
    return cli.main(["embed", *map(str, words), "--device", "cpu", "--threads", "1", "--clips", "2"])


def test_a_parquet_row_is_the_mean_over_the_clips_of_its_video(corpus: Path, checkpoint: Path, tmp_path: Path) -> None:
    assert run("--checkpoint", checkpoint, "--corpus", corpus, "-o", tmp_path / "f.parquet") == 0
    videos = Corpus.open(corpus)
    recipe = make_recipe(checkpoint, corpus)
    wanted = extract(load_encoder(checkpoint), videos, range(7), recipe.clips(), threads=1, progress=False)
    table = pq.read_table(tmp_path / "f.parquet").to_pydict()
    assert table["row"] == list(range(7)) and table["uri"] == videos.column("uri").tolist()
    assert table["label"] == videos.column("label").tolist() and set(table["start"]) == {-1}
    np.testing.assert_allclose(np.array(table["feature"], np.float32), wanted.vectors, rtol=1e-4, atol=1e-6)
    assert [entry.name for entry in tmp_path.iterdir()] == ["f.parquet"]


def test_per_clip_rows_say_which_clip_and_average_to_the_videos_own(
    corpus: Path, checkpoint: Path, tmp_path: Path
) -> None:
    words = ("--checkpoint", checkpoint, "--corpus", corpus)
    assert run(*words, "-o", tmp_path / "whole.npy") == 0
    assert run(*words, "-o", tmp_path / "clips.npy", "--per-clip", "--speed", "1") == 0
    clips, places = np.load(tmp_path / "clips.npy"), np.load(tmp_path / "clips.places.npy")
    assert places["row"].tolist() == [row for row in range(7) for _ in range(2)]
    # Four frames of fourteen: the last clip begins at frame 10.
    assert places["start"].tolist() == [0, 10] * 7 and set(places["speed"].tolist()) == {1.0}
    np.testing.assert_allclose(clips.reshape(7, 2, -1).mean(1), np.load(tmp_path / "whole.npy"), rtol=1e-5, atol=1e-6)
    about = json.loads((tmp_path / "clips.json").read_text())
    assert about["per_clip"] and about["count"] == 14 and about["protocol"]["clips"] == 2


def test_both_formats_hold_the_same(corpus: Path, checkpoint: Path, tmp_path: Path) -> None:
    recipe = make_recipe(checkpoint, corpus)
    encoder, videos = load_encoder(checkpoint), Corpus.open(corpus)
    files = [
        embed(encoder, videos, recipe, tmp_path / name, device="cpu", threads=1, part_videos=3, progress=False)
        for name in ("f.parquet", "f.npy")
    ]
    one, two = (np.concatenate(list(file.chunks())) for file in files)
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(files[0].places(), files[1].places())
    for file in files:
        np.testing.assert_array_equal(file.vectors(2, 5), one[2:5])
        assert file.recipe.differences(recipe) == []


def test_what_was_finished_before_an_interruption_is_not_made_again(
    corpus: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, encoder, videos = make_recipe(checkpoint, corpus), load_encoder(checkpoint), Corpus.open(corpus)
    target = tmp_path / "f.parquet"
    saved, save = [], Parts.save

    def stop_after_two(self: Parts, number: int, part: Part) -> None:
        if len(saved) == 2:
            raise KeyboardInterrupt
        saved.append(number)
        save(self, number, part)

    options = {"device": "cpu", "threads": 1, "part_videos": 2, "batch_size": 2, "progress": False}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Parts, "save", stop_after_two)
        embed(encoder, videos, recipe, target, **options)
    assert not target.exists()
    described: list[int] = []
    inner = embedding.describe

    def watched(*args, **named):
        for one in inner(*args, **named):
            described.append(one.row)
            yield one

    monkeypatch.setattr(embedding, "describe", watched)
    resumed = embed(encoder, videos, recipe, target, **options)
    assert saved == [0, 1] and sorted(described) == [4, 5, 6]
    fresh = embed(encoder, videos, recipe, tmp_path / "fresh.npy", **options)
    np.testing.assert_allclose(
        np.concatenate(list(resumed.chunks())), np.concatenate(list(fresh.chunks())), rtol=1e-5, atol=1e-6
    )
    assert sorted(entry.suffix for entry in tmp_path.iterdir()) == [".json", ".npy", ".npy", ".parquet"]


def test_parts_of_another_checkpoint_are_refused_by_both_names(corpus: Path, checkpoint: Path, tmp_path: Path) -> None:
    recipe = make_recipe(checkpoint, corpus)
    Parts(tmp_path / "f.npy", recipe, np.arange(7), 2)
    other = make_recipe(make_checkpoint(tmp_path / "other.pt", seed=1), corpus)
    with pytest.raises(UserError) as told:
        embed(load_encoder(tmp_path / "other.pt"), Corpus.open(corpus), other, tmp_path / "f.npy", device="cpu")
    assert recipe.weights in str(told.value) and other.weights in str(told.value)
    assert "protocol" not in str(told.value)


def test_videos_that_broke_are_listed_and_no_other_stands_in_for_them(checkpoint: Path, tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "videos", 6)
    videos = Corpus.open(corpus)
    broken = [row for row in range(6) if row != 2]
    for row in broken:
        Path(videos[row].uri).write_bytes(b"not a video any more")
    recipe = make_recipe(checkpoint, corpus)
    encoder = load_encoder(checkpoint)
    found = embed(encoder, videos, recipe, tmp_path / "f.npy", device="cpu", threads=1, progress=False)
    assert found.places()["row"].tolist() == [2]
    assert sorted(found.failed) == sorted(videos[row].uri for row in broken) and all(found.failed.values())
    wanted = extract(encoder, videos, [2], recipe.clips(), threads=1, progress=False)
    np.testing.assert_allclose(next(iter(found.chunks())), wanted.vectors, rtol=1e-4, atol=1e-6)
    Path(videos[2].uri).write_bytes(b"nor this")
    with pytest.raises(UserError, match="none of the 6 videos could be decoded"):
        embed(encoder, Corpus.open(corpus), recipe, tmp_path / "g.npy", device="cpu", threads=1, progress=False)


def test_a_file_that_is_up_to_date_is_left_alone_and_another_is_replaced(
    corpus: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--checkpoint", checkpoint, "--corpus", corpus, "-o", tmp_path / "f.parquet")
    assert run(*words) == 0
    written = (tmp_path / "f.parquet").stat().st_mtime_ns
    assert run(*words) == 0 and (tmp_path / "f.parquet").stat().st_mtime_ns == written
    assert "is up to date" in capsys.readouterr().out
    assert run(*words, "--speed", "2") == 0
    assert FeatureFile.open(tmp_path / "f.parquet").recipe.protocol["speed"] == 2
    assert run(*words, "--speed", "2", "--again") == 0


@pytest.mark.parametrize("name", ["notes.parquet", "notes.npy", "notes.txt", "nowhere/f.npy"])
def test_nothing_but_features_is_written_over(
    name: str, corpus: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if "/" not in name:
        shutil.copyfile(corpus, tmp_path / name)
    assert run("--checkpoint", checkpoint, "--corpus", corpus, "-o", tmp_path / name) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"ascnet: {tmp_path / name}: ") and error.count("\n") == 1
    assert "/" in name or (tmp_path / name).read_bytes() == corpus.read_bytes()


@pytest.mark.parametrize("name", ["f.parquet", "f.npy"])
def test_a_damaged_file_is_one_line(
    name: str, corpus: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--checkpoint", checkpoint, "--corpus", corpus, "-o", tmp_path / name) == 0
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    capsys.readouterr()
    with pytest.raises(UserError, match="damaged"):
        FeatureFile.open(tmp_path / name)


def test_decoding_goes_on_while_the_encoder_computes(corpus: Path, checkpoint: Path, tmp_path: Path) -> None:
    videos, recipe, encoder = Corpus.open(corpus), make_recipe(checkpoint, corpus, clips=1), load_encoder(checkpoint)
    ahead: list[int] = []
    delivered = threading.Event()
    from ascnet.search.describe import describe, open_stream

    with open_stream(
        videos, recipe.clips(), device=next(encoder.parameters()).device, batch_size=1, threads=1
    ) as stream:
        plain = encoder.features

        def watched(clips):
            # Only what was asked for before this batch was fetched can be on the way now.
            ahead.append(stream.pending)
            delivered.set()
            return plain(clips)

        encoder.features = watched  # type: ignore[method-assign]
        assert len(list(describe(encoder, stream, range(7), recipe.clips()))) == 7
    assert delivered.is_set() and ahead[:4] == [2, 2, 2, 2] and ahead[-1] == 0


@pytest.mark.parametrize("name", ["f.parquet", "f.npy"])
def test_writing_and_reading_hold_a_few_parts_at_a_time(
    name: str, corpus: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ascnet.search.feature_file.CHUNK_BYTES", 4 * 4096 * 100)
    dim, size, count = 4096, 100, 40
    recipe = make_recipe(checkpoint, corpus, per_clip=True)
    parts = Parts(tmp_path / name, recipe, np.arange(size * count), size)
    for number in range(count):
        vectors = np.full((size, dim), number, np.float32)
        parts.save(number, Part(np.zeros(size, PLACE), vectors, {}))
    tracemalloc.start()
    try:
        file = write(tmp_path / name, recipe, Corpus.open(corpus), parts)
        index = choose(file, "torch", memory=0)
        found = nearest(index, np.ones((1, dim), np.float32), 3)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.scores.shape == (1, 3)
    # Of 40 parts, and of a chunk as it is read, scaled in double precision, and scored.
    assert peak < 8 * 4 * dim * size
