"""`dali-pipes preview`: what is written is what the loader delivered."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from make_videos import make_video, read_number
from PIL import Image

from dali_pipes import Augment, Corpus, DataError, SpeedLoader
from dali_pipes.cli import main
from dali_pipes.tools.preview import draw_clips, mp4_encoder, write
from dali_pipes.tools.sheet import GAP, STRIP, cell


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three numbered videos of 60 frames; video i's first frame carries the number 100 * i."""
    folder = tmp_path_factory.mktemp("preview")
    for i in range(3):
        make_video(folder / f"{i}.mkv", codec="mjpeg", size=(96, 96), first=100 * i)
    return folder


@pytest.fixture(scope="module")
def corpus(folder: Path) -> Corpus:
    return Corpus.build(folder, workers=1, progress=False)


def test_the_clips_are_those_of_the_loader_with_the_normalisation_undone(corpus: Corpus) -> None:
    preview = draw_clips(corpus, videos=3, speeds=(1, 2), frames=6, size=48, seed=5, device="cpu")
    options = {"frames": 6, "size": 48, "speeds": (1, 2), "batch_size": 3, "device": "cpu", "seed": 5}
    with SpeedLoader(corpus, **options, dtype="uint8", augment=Augment()) as loader:
        batch = next(iter(loader))
    truth = batch.clips.permute(0, 1, 3, 4, 5, 2).numpy()
    assert preview.clips.shape == (3, 2, 6, 48, 48, 3) and preview.clips.dtype == np.uint8
    assert np.abs(preview.clips.astype(int) - truth).max() <= 1
    for video, request, labels in zip(batch.videos, batch.requests, preview.labels, strict=True):
        name = Path(corpus[int(video)].uri).name
        assert labels == [f"{name}  {view.speed:g}x  from frame {view.start}" for view in request.views]


def test_a_contact_sheet_has_each_frame_in_its_cell(corpus: Corpus, tmp_path: Path) -> None:
    preview = draw_clips(corpus, videos=2, speeds=(1, 2), frames=6, size=48, device="cpu")
    assert write(preview, tmp_path / "sheet.png") == [tmp_path / "sheet.png"]
    sheet = np.array(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape == (4 * (STRIP + 48 + GAP), 6 * (48 + GAP), 3)
    for video in range(2):
        for view in range(2):
            for t in range(6):
                assert (sheet[cell(2 * video + view, t, 48)] == preview.clips[video, view, t]).all()
    assert sheet[:STRIP].max() > 200  # a label


def test_without_augmentation_the_frames_carry_the_numbers_of_the_label(corpus: Corpus) -> None:
    preview = draw_clips(corpus, videos=3, speeds=(1, 3), frames=5, size=96, augment=None, device="cpu")
    for clips, labels in zip(preview.clips, preview.labels, strict=True):
        for clip, label in zip(clips, labels, strict=True):
            name, speed, place = label.split("  ")
            first = 100 * int(name[0]) + int(place.removeprefix("from frame "))
            assert [read_number(picture) for picture in clip] == [first + int(speed[0]) * t for t in range(5)]


@pytest.mark.parametrize("kind", ["mp4", "webp"])
def test_the_command_writes_a_sheet_and_moving_clips(
    folder: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    options = ["--videos", "2", "--frames", "7", "--size", "64", "--format", kind, "--device", "cpu"]
    assert main(["preview", str(folder), "-o", str(out), *options]) == 0
    assert sorted(path.name for path in out.iterdir()) == sorted([f"clips.{kind}", "contact_sheet.png"])
    assert str(out / f"clips.{kind}") in capsys.readouterr().out
    height, width = 2 * (STRIP + 64 + GAP), 2 * (64 + GAP)
    sheet = np.array(Image.open(out / "contact_sheet.png"))
    if kind == "mp4":
        with av.open(str(out / "clips.mp4")) as container:
            assert container.streams.video[0].codec_context.name == ("h264" if "264" in mp4_encoder()[0] else "mjpeg")
            moving = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    else:
        with Image.open(out / "clips.webp") as image:
            moving = []
            for t in range(image.n_frames):
                image.seek(t)
                moving.append(np.array(image.convert("RGB")))
    assert len(moving) == 7 and all(picture.shape == (height, width, 3) for picture in moving)
    for t, picture in enumerate(moving):
        for video in range(2):
            for view in range(2):
                shown, truth = picture[cell(video, view, 64)], sheet[cell(2 * video + view, t, 64)]
                error = np.abs(shown.astype(float) - truth).mean()
                assert error < (12 if kind == "mp4" else 1e-9), (t, video, view)


def test_a_corpus_file_will_do_and_few_videos_are_enough(folder: Path, corpus: Corpus, tmp_path: Path) -> None:
    corpus.save(tmp_path / "c.parquet")
    target = tmp_path / "clips.webp"
    options = ["--videos", "50", "--frames", "4", "--size", "32", "--no-augment", "--quiet", "--device", "cpu"]
    assert main(["preview", str(tmp_path / "c.parquet"), "-o", str(target), *options]) == 0
    assert Image.open(target).size == (2 * (32 + GAP), 3 * (STRIP + 32 + GAP))
    assert os.stat(target).st_mode & 0o777 == 0o666 & ~_umask()


def test_a_write_that_fails_leaves_nothing_behind(corpus: Corpus, tmp_path: Path) -> None:
    preview = draw_clips(corpus, videos=1, frames=3, size=32, device="cpu")
    (tmp_path / "clips.mp4").mkdir()
    (tmp_path / "clips.mp4" / "kept").touch()
    with pytest.raises(DataError, match="cannot be written"):
        write(preview, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clips.mp4", "contact_sheet.png"]


def test_a_video_that_cannot_be_decoded_is_replaced_and_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copies = tmp_path / "videos"
    for i in range(3):
        make_video(copies / f"{i}.mkv", codec="mjpeg", size=(64, 64))
    Corpus.build(copies, output=tmp_path / "c.parquet", workers=1, progress=False)
    (copies / "1.mkv").write_bytes(b"no longer a video")
    options = ["--frames", "4", "--size", "32", "--quiet", "--device", "cpu"]
    assert main(["preview", str(tmp_path / "c.parquet"), "-o", str(tmp_path / "s.png"), *options]) == 0
    assert "1.mkv" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["--speeds", "fast"], ["--speeds", "0"], ["--videos", "0"], ["--frames", "0"], ["--size", "-1"], ["--seed", "-1"]],
)
def test_mistakes_are_one_line_and_exit_code_2(
    corpus: Corpus, tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    corpus.save(tmp_path / "c.parquet")
    output = ["-o", str(tmp_path / "s.png"), "--device", "cpu"]
    assert main(["preview", str(tmp_path / "c.parquet"), *output, *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "s.png").exists()


def test_a_folder_that_is_not_there_is_a_mistake(corpus: Corpus, tmp_path: Path) -> None:
    assert main(["preview", str(tmp_path / "none.parquet"), "-o", str(tmp_path / "s.png")]) == 2
    corpus.save(tmp_path / "c.parquet")
    for output in ("no/s.png", "clips.gif", "c.parquet"):
        assert main(["preview", str(tmp_path / "c.parquet"), "-o", str(tmp_path / output), "--device", "cpu"]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["c.parquet"]


def test_an_odd_size_and_letters_of_any_script_do_no_harm(corpus: Corpus, tmp_path: Path) -> None:
    preview = draw_clips(corpus, videos=1, speeds=(1,), frames=3, size=47, device="cpu")
    strange = replace(preview, labels=[["видео \N{GRINNING FACE} \udcff.mp4"]])
    paths = write(strange, tmp_path / "out")
    with av.open(str(paths[1])) as container:
        shapes = {(frame.height, frame.width) for frame in container.decode(video=0)}
    assert shapes == {(64, 50)}


def test_torch_sees_the_same_numbers(corpus: Corpus) -> None:
    """A picture normalised again is the clip that was delivered, to within half a grey level and float16."""
    preview = draw_clips(corpus, videos=1, speeds=(1,), frames=3, size=32, device="cpu")
    with SpeedLoader(corpus, frames=3, size=32, speeds=(1,), batch_size=1, device="cpu") as loader:
        clip = next(iter(loader)).clips[0, 0].float()
    augment = Augment()
    mean, std = torch.tensor(augment.mean), torch.tensor(augment.std)
    again = ((torch.from_numpy(preview.clips[0, 0]) / 255 - mean) / std).permute(3, 0, 1, 2)
    assert (again - clip).abs().max() < 0.5 / 255 / min(augment.std) + 0.005


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
