"""Averaging over clips and crops, against one clip at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from make_videos import make_video
from torch import nn

from ascnet.errors import UserError
from ascnet.evaluate.clip_scores import Views, crops_of, score_videos
from ascnet.precision import Precision
from dali_pipes import Augment, ClipRequest, ClipStream, Corpus, View, even_requests

FULL = Precision("fp32", torch.device("cpu"))


class Answers(nn.Module):
    """Logits that are not linear in the clip, and that notice mirroring and place."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm3d(3)
        self.batches: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert not self.training
        self.batches.append(len(x))
        left, top = x[..., : x.shape[-1] // 2], x[..., : x.shape[-2] // 2, :]
        parts = [part.mean(dim=(1, 2, 3, 4)) for part in (x, left, top)]
        return torch.stack([parts[0] ** 2, 3 * parts[1], parts[2].exp(), parts[0]], dim=1)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    root = tmp_path_factory.mktemp("videos")
    for number, (name, size) in enumerate((("wide", (96, 48)), ("high", (48, 80)), ("short", (64, 48)))):
        frames = 3 if name == "short" else 20 + number
        make_video(root / f"{name}.mkv", codec="mjpeg", frames=frames, size=size, first=700 * number)
    return Corpus.build(root, output=root / "corpus.parquet", progress=False, workers=1)


def literal(classifier: Answers, corpus: Corpus, row: int, views: Views) -> np.ndarray:
    """Each crop of each clip read and answered alone, then their mean."""
    even = even_requests(corpus, row, frames=views.frames, clips=views.clips, fps=views.fps)
    video = corpus[row]
    plain = Augment(flip=0, jitter=0, grayscale=0) if views.crops == 10 else None
    answers = []
    with ClipStream(
        corpus, frames=views.frames, size=views.size, batch_size=1, device="cpu", dtype="float32", threads=1,
        augment=plain,
    ) as stream, torch.no_grad():  # fmt: skip
        for clip in even.views:
            # Without a region the stream takes the centred square.
            regions = [None] if views.crops == 1 else crops_of(views.crops, video.shown_width, video.shown_height)
            for region in regions:
                stream.submit([ClipRequest(row, (View(clip.speed, clip.start, region),))])
                logits = classifier(stream.get().clips[0])[0].double()
                answers.append(logits.softmax(0) if views.average == "softmax" else logits)
    return torch.stack(answers).mean(0).numpy()


@pytest.mark.parametrize("average", ["logits", "softmax"])
@pytest.mark.parametrize(("clips", "crops"), [(1, 1), (4, 1), (2, 3), (2, 10)])
def test_scores_are_the_mean_over_all_clips_and_crops(corpus: Corpus, clips: int, crops: int, average: str) -> None:
    classifier = Answers().eval()
    views = Views(frames=4, size=32, clips=clips, crops=crops, average=average)  # type: ignore[arg-type]
    found = score_videos(classifier, corpus, [2, 0, 1], views, precision=FULL, threads=1, progress=False)
    assert found is not None and found.rows.tolist() == [0, 1, 2] and not found.failed
    for row, scores in zip(found.rows, found.scores, strict=True):
        np.testing.assert_allclose(scores, literal(classifier, corpus, int(row), views), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("batch_size", [1, 5, 7])
def test_the_batch_size_bounds_the_forward_pass_and_changes_no_score(corpus: Corpus, batch_size: int) -> None:
    views = Views(frames=4, size=32, clips=4, crops=3)
    whole = score_videos(Answers(), corpus, [0, 1, 2], views, precision=FULL, threads=1, progress=False)
    classifier = Answers()
    parts = score_videos(
        classifier, corpus, [0, 1, 2], views, precision=FULL, batch_size=batch_size, threads=1, progress=False
    )
    assert max(classifier.batches) <= batch_size and sum(classifier.batches) == 36
    np.testing.assert_allclose(parts.scores, whole.scores, rtol=1e-6, atol=1e-6)


def test_other_colours_are_those_that_the_encoder_was_trained_with(corpus: Corpus) -> None:
    class Mean(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean(dim=(2, 3, 4))

    plain = score_videos(Mean(), corpus, [0], Views(frames=4, size=32), precision=FULL, threads=1, progress=False)
    views = Views(frames=4, size=32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    raw = score_videos(Mean(), corpus, [0], views, precision=FULL, threads=1, progress=False)
    given = Augment()
    np.testing.assert_allclose(raw.scores, plain.scores * given.std + given.mean, atol=1e-5)


def test_crops_lie_within_the_picture_and_cover_its_ends() -> None:
    for width, height in ((320, 240), (240, 320), (200, 200)):
        for count in (1, 3, 10):
            crops = crops_of(count, width, height)
            assert len(crops) == count
            for crop in crops:
                assert 0 <= crop.left < crop.right <= 1 and 0 <= crop.top < crop.bottom <= 1
                side = (crop.right - crop.left) * width
                assert side == pytest.approx((crop.bottom - crop.top) * height)
    left, middle, right = crops_of(3, 320, 240)
    assert (left.left, middle.left * 320, right.right) == (0.0, 40.0, 1.0)
    assert [crop.flip for crop in crops_of(10, 320, 240)] == [False] * 5 + [True] * 5


def test_a_video_that_broke_after_indexing_is_left_out_and_named(tmp_path: Path) -> None:
    for name in ("good", "broken", "other"):
        make_video(tmp_path / f"{name}.mkv", codec="mjpeg", frames=12, size=(64, 48))
    corpus = Corpus.build(tmp_path, output=tmp_path / "corpus.parquet", progress=False, workers=1)
    rows = {Path(corpus[row].uri).stem: row for row in range(3)}
    (tmp_path / "broken.mkv").write_bytes(b"not a video any more")
    found = score_videos(
        Answers(), corpus, [0, 1, 2], Views(frames=4, size=32, clips=3), precision=FULL, batch_size=2, threads=1,
        progress=False,
    )  # fmt: skip
    assert found.rows.tolist() == sorted([rows["good"], rows["other"]]) and list(found.failed) == [rows["broken"]]


def test_other_numbers_of_crops_are_a_mistake() -> None:
    with pytest.raises(UserError, match="crops"):
        Views(crops=2)


def test_it_stops_between_batches_when_told(corpus: Corpus) -> None:
    views = Views(frames=4, size=32, clips=1)
    found = score_videos(
        Answers(), corpus, [0, 1], views, precision=FULL, batch_size=1, threads=1, stop=lambda: True, progress=False
    )
    assert found is None
