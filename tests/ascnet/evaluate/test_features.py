"""Features of videos: what is averaged over what, and what happens to a video that cannot be decoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from make_videos import make_video
from torch import nn

from ascnet.errors import UserError
from ascnet.evaluate.features import Features, _prefetch, extract
from ascnet.evaluate.protocols import Protocol
from dali_pipes import ClipRequest, ClipStream, Corpus, even_requests

PROTOCOL = Protocol(frames=4, size=32, clips=3)


class Squares(nn.Module):
    """An encoder whose feature is not linear in the clip, so that averaging in the wrong place shows."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm3d(3)
        self.batches: list[int] = []

    def features(self, x: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(x))
        return torch.cat([self.norm(x), x.mean(dim=(2, 3, 4), keepdim=True).square().expand_as(x)], dim=1)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    root = tmp_path_factory.mktemp("videos")
    for number, name in enumerate(("a/one.mkv", "a/two.mkv", "b/three.mkv")):
        make_video(root / name, codec="mjpeg", frames=14 + number, size=(64, 48), first=500 * number)
    return Corpus.build(root, output=root / "corpus.parquet", progress=False, workers=1)


def one_at_a_time(encoder: Squares, corpus: Corpus, row: int) -> np.ndarray:
    """The protocol to the letter: each clip alone, pooled alone, then the mean."""
    request = even_requests(corpus, row, frames=PROTOCOL.frames, clips=PROTOCOL.clips)
    found = []
    with ClipStream(
        corpus, frames=PROTOCOL.frames, size=PROTOCOL.size, batch_size=1, device="cpu", dtype="float32", threads=1
    ) as stream:
        for batch in stream.map([[ClipRequest(row, (view,), request.key)] for view in request.views]):
            with torch.no_grad():
                found.append(encoder.eval().features(batch.clips[0]).mean(dim=(2, 3, 4))[0].numpy())
    return np.mean(found, axis=0)


def test_a_feature_is_the_mean_over_evenly_spaced_clips_of_the_pooled_last_map(corpus: Corpus) -> None:
    encoder = Squares()
    features = extract(encoder, corpus, [2, 0], PROTOCOL, threads=1, progress=False)
    assert features.rows.tolist() == [2, 0] and features.vectors.dtype == np.float32 and not features.failed
    for row, vector in zip(features.rows, features.vectors, strict=True):
        np.testing.assert_allclose(vector, one_at_a_time(encoder, corpus, int(row)), rtol=1e-4, atol=1e-5)


def test_the_batch_size_bounds_the_forward_pass_and_does_not_change_the_features(corpus: Corpus) -> None:
    encoder = Squares()
    large = extract(encoder, corpus, [0, 1, 2], PROTOCOL, batch_size=40, threads=1, progress=False)
    assert encoder.batches == [9]
    encoder.batches.clear()
    small = extract(encoder, corpus, [0, 1, 2], PROTOCOL, batch_size=2, threads=1, progress=False)
    assert encoder.batches == [2, 1] * 3
    np.testing.assert_allclose(large.vectors, small.vectors, rtol=1e-5, atol=1e-6)


def test_the_encoder_is_evaluated_without_learning_and_given_back_as_it_was(corpus: Corpus) -> None:
    encoder = Squares().train()
    before = encoder.norm.running_mean.clone()
    extract(encoder, corpus, [0], PROTOCOL, threads=1, progress=False)
    assert encoder.training
    torch.testing.assert_close(encoder.norm.running_mean, before, rtol=0, atol=0)


def test_lower_precision_gives_nearly_the_same_features(corpus: Corpus) -> None:
    full = extract(Squares(), corpus, [0], PROTOCOL, threads=1, progress=False)
    half = extract(
        Squares(), corpus, [0], Protocol(frames=4, size=32, clips=3, precision="bf16"), threads=1, progress=False
    )
    assert half.vectors.dtype == np.float32
    np.testing.assert_allclose(half.vectors, full.vectors, rtol=0.05, atol=0.02)
    assert not np.array_equal(half.vectors, full.vectors)


def test_a_video_that_broke_after_indexing_is_left_out_and_named(tmp_path: Path) -> None:
    for name in ("good.mkv", "broken.mkv", "other.mkv"):
        make_video(tmp_path / name, codec="mjpeg", frames=12, size=(64, 48))
    corpus = Corpus.build(tmp_path, output=tmp_path / "corpus.parquet", progress=False, workers=1)
    rows = {Path(corpus[row].uri).name: row for row in range(len(corpus))}
    (tmp_path / "broken.mkv").write_bytes(b"not a video any more")
    wanted = [rows["good.mkv"], rows["broken.mkv"], rows["other.mkv"]]
    features = extract(Squares(), corpus, wanted, PROTOCOL, threads=1, progress=False)
    assert features.rows.tolist() == [rows["good.mkv"], rows["other.mkv"]]
    assert list(features.failed) == [rows["broken.mkv"]] and features.failed[rows["broken.mkv"]]


def test_no_videos_is_a_mistake(corpus: Corpus) -> None:
    with pytest.raises(UserError, match="no videos"):
        extract(Squares(), corpus, [], PROTOCOL, progress=False)


def test_features_of_some_rows_come_in_the_order_asked_for_without_the_failed() -> None:
    features = Features(np.array([4, 7, 9]), np.array([[4.0], [7], [9]], np.float32), {8: "broken"})
    some = features.of([9, 8, 4])
    assert some.rows.tolist() == [9, 4] and some.vectors.ravel().tolist() == [9.0, 4.0]
    assert some.failed == {8: "broken"}


def test_every_decoding_thread_has_a_video_on_the_way_within_bounds_of_memory() -> None:
    assert _prefetch(Protocol(), 4, 16) == 8
    assert _prefetch(Protocol(), 4, 1) == 2
    assert _prefetch(Protocol(frames=64, size=224), 4, 16) == 2
