"""From a folder to a corpus: what is found, what is probed again, what survives an interruption."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from make_videos import make_video

from dali_pipes.corpus import Corpus
from dali_pipes.corpus.build import build
from dali_pipes.corpus.files import find_videos
from dali_pipes.corpus.journal import Journal
from dali_pipes.corpus.manifest import VERSION
from dali_pipes.corpus.summary import summary
from dali_pipes.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "videos"
    for name in ("run/a.mp4", "run/b.avi", "walk/c.MKV"):
        make_video(root / name, codec="mjpeg", frames=5, size=(32, 32))
    (root / "walk" / "broken.mp4").write_text("no video")
    (root / "notes.txt").write_text("no video either")
    return root


def index(folder: Path, output: Path | None = None, **options: object) -> Corpus:
    return build(folder, output=output, workers=1, progress=False, **options)  # type: ignore[arg-type]


def names(corpus: Corpus) -> list[str]:
    return [Path(uri).name for uri in corpus.column("uri")]


def test_every_video_becomes_a_row_and_a_broken_one_a_row_with_an_error(folder: Path) -> None:
    corpus = index(folder)
    assert names(corpus) == ["a.mp4", "b.avi", "broken.mp4", "c.MKV"]
    by_name = {Path(video.uri).name: video for video in corpus}
    assert by_name["a.mp4"].label == "run" and by_name["c.MKV"].label == "walk"
    assert by_name["broken.mp4"].error.startswith("cannot be opened")
    assert len(corpus.select()) == 3
    assert all(os.path.isabs(uri) for uri in corpus.column("uri"))


def test_only_new_and_changed_files_are_probed_again(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "c.parquet"
    index(folder, output)
    # Marks what was taken over.
    marked = [row | {"notes": "earlier"} for row in Corpus.open(output).table.to_pylist()]
    Corpus.from_rows(marked).save(output)
    make_video(folder / "run" / "a.mp4", codec="mjpeg", frames=9, size=(32, 32))
    make_video(folder / "new" / "d.mp4", codec="mjpeg", frames=3, size=(32, 32))
    (folder / "run" / "b.avi").unlink()
    corpus = index(folder, output)
    found = {Path(video.uri).name: (video.frames, video.notes) for video in corpus}
    assert found == {"a.mp4": (9, ""), "d.mp4": (3, ""), "c.MKV": (5, "earlier"), "broken.mp4": (0, "earlier")}
    assert Corpus.open(output).table.equals(corpus.table)
    assert {video.notes for video in index(folder, output, again=True)} == {""}


def test_labels_follow_the_layout_even_where_the_probe_is_taken_over(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "c.parquet"
    index(folder, output)
    (folder / "lists").mkdir()
    (folder / "lists" / "trainlist01.txt").write_text("run/a.mp4 1\n")
    (folder / "lists" / "testlist01.txt").write_text("walk/c.MKV\n")
    corpus = index(folder, output, layout="ucf101", splits=folder / "lists")
    split = {Path(v.uri).name: v.split for v in corpus}
    assert split == {"a.mp4": "train", "b.avi": "", "c.MKV": "test", "broken.mp4": ""}


def test_an_interrupted_index_goes_on_where_it_stopped(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "c.parquet"
    rows = {row["uri"]: row for row in index(folder).table.to_pylist()}
    done = rows[str(folder / "run" / "a.mp4")] | {"notes": "before the interruption"}
    journal = Journal(output, {"version": VERSION, "thorough": False})
    journal.add(done)
    journal.close()
    with output.with_name("c.parquet.partial").open("a") as file:
        file.write('{"uri": "torn li')
    corpus = index(folder, output)
    assert [video.notes for video in corpus if video.notes] == ["before the interruption"]
    assert len(corpus) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.parquet", "videos"]


def test_results_of_another_kind_of_probe_do_not_count(tmp_path: Path) -> None:
    output = tmp_path / "c.parquet"
    journal = Journal(output, {"version": VERSION, "thorough": False})
    journal.add({"uri": "a"})
    journal.close()
    journal = Journal(output, {"version": VERSION, "thorough": True})
    assert journal.rows == {}
    journal.close()
    lines = output.with_name("c.parquet.partial").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"version": VERSION, "thorough": True}]


def test_two_processes_cannot_write_one_corpus(folder: Path, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "c.parquet", {})
    with pytest.raises(DataError, match="another process is writing it"):
        index(folder, tmp_path / "c.parquet")
    journal.close()


def test_a_video_that_takes_too_long_gets_an_error_and_another_chance(tmp_path: Path) -> None:
    make_video(tmp_path / "videos" / "long.mp4", frames=300, size=(640, 480))
    output = tmp_path / "c.parquet"
    lost = index(tmp_path / "videos", output, thorough=True, timeout=0.005)[0]
    assert (lost.error, lost.frames) == ("took longer than 0.005 s", 0)
    assert index(tmp_path / "videos", output)[0].error == ""


def test_a_pipe_named_like_a_video_is_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "run" / "pipe.mp4")
    assert {Path(v.uri).name: v.error for v in index(folder)}["pipe.mp4"] == "not a regular file"


def test_hidden_files_are_left_out_and_links_that_lead_back_do_no_harm(folder: Path) -> None:
    (folder / "._a.mp4").write_text("resource fork")
    (folder / ".trash").mkdir()
    make_video(folder / ".trash" / "z.mp4", codec="mjpeg", frames=2, size=(32, 32))
    (folder / "run" / "loop").symlink_to(folder)
    assert find_videos(folder)[0] == ["run/a.mp4", "run/b.avi", "walk/broken.mp4", "walk/c.MKV"]


def test_other_patterns_choose_other_files(folder: Path) -> None:
    assert find_videos(folder, ["*.avi"])[0] == ["run/b.avi"]
    assert find_videos(folder, ["[ab].*"])[0] == ["run/a.mp4", "run/b.avi"]


def test_the_same_folder_by_a_relative_path_gives_the_same_corpus(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    assert index(Path("videos")).table.equals(index(folder).table)


def test_mistakes_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        index(tmp_path / "none")
    with pytest.raises(DataError, match="not a folder"):
        index(folder / "notes.txt")
    with pytest.raises(DataError, match=r"no videos there \(looked for \*\.3g2"):
        (tmp_path / "bare").mkdir()
        index(tmp_path / "bare")
    with pytest.raises(DataError, match="there is no folder"):
        index(folder, tmp_path / "none" / "c.parquet")
    (tmp_path / "precious.txt").write_text("precious")
    with pytest.raises(DataError, match="would be overwritten, and is no corpus"):
        index(folder, tmp_path / "precious.txt")
    assert (tmp_path / "precious.txt").read_text() == "precious"


def test_the_summary_counts_and_names_what_cannot_be_used(folder: Path) -> None:
    text = "\n".join(summary(index(folder)))
    assert "4, of which 3 usable" in text
    assert "mjpeg 3" in text
    assert "2 classes: run, walk" in text
    assert "cannot be opened: Invalid data found when processing input: broken.mp4" in text


def test_a_folder_of_real_and_broken_videos_is_indexed_whole(videos: Path) -> None:
    corpus = index(videos / "odd")
    assert len(corpus) == 76
    for video in corpus:
        assert bool(video.error) == (video.frames == 0), video.uri
