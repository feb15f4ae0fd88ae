"""Features on disk: what finds them again, what does not, and what a bad file costs."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from make_videos import make_video
from torch import nn

from ascnet.evaluate.features import Features, extract
from ascnet.evaluate.protocols import Protocol
from ascnet.evaluate.store import weights_digest
from dali_pipes import Corpus

PROTOCOL = Protocol(frames=4, size=32, clips=2)


class Counting(nn.Module):
    """Counts the clips that it is shown."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([weight]))
        self.clips = 0

    def features(self, x: torch.Tensor) -> torch.Tensor:
        self.clips += len(x)
        return x * self.weight


def index(root: Path) -> Corpus:
    return Corpus.build(root, progress=False, workers=1)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    for number in range(4):
        make_video(tmp_path / "v" / f"{number}.mkv", codec="mjpeg", frames=12, size=(48, 48), first=500 * number)
    return index(tmp_path / "v")


def made(
    encoder: Counting, corpus: Corpus, rows: list[int], cache: Path, protocol: Protocol = PROTOCOL, **how: Any
) -> Features:
    return extract(encoder, corpus, rows, protocol, threads=1, progress=False, cache=cache, **how)


def test_features_are_made_once_and_other_splits_share_them(corpus: Corpus, tmp_path: Path) -> None:
    encoder, cache = Counting(), tmp_path / "cache"
    first = made(encoder, corpus, [0, 2], cache)
    assert encoder.clips == 4
    again = made(encoder, corpus, [2, 0], cache)
    assert encoder.clips == 4 and again.rows.tolist() == [2, 0]
    np.testing.assert_array_equal(again.vectors, first.vectors[::-1])
    more = made(encoder, corpus, [0, 1, 2, 3], cache)
    assert encoder.clips == 8 and more.rows.tolist() == [0, 1, 2, 3]
    plain = extract(encoder, corpus, [0, 1, 2, 3], PROTOCOL, threads=1, progress=False)
    np.testing.assert_allclose(more.vectors, plain.vectors, rtol=1e-6)
    assert len(list(cache.iterdir())) == 1


def test_weights_clips_role_and_corpus_each_have_features_of_their_own(corpus: Corpus, tmp_path: Path) -> None:
    encoder, cache = Counting(), tmp_path / "cache"
    made(encoder, corpus, [0], cache)
    # The place of a checkpoint does not matter, its weights do.
    assert weights_digest(Counting()) == weights_digest(encoder) != weights_digest(Counting(2.0))
    other = Counting(2.0)
    assert made(other, corpus, [0], cache).vectors.sum() != 0 and other.clips == 2
    before = encoder.clips
    for protocol in (replace(PROTOCOL, speed=2.0), replace(PROTOCOL, size=24), replace(PROTOCOL, crop="vcop")):
        made(encoder, corpus, [0], cache, protocol)
        assert encoder.clips == (before := before + 2)
    train = replace(PROTOCOL, augmented_gallery=True)
    made(encoder, corpus, [0], cache, train, role="query")
    assert encoder.clips == before
    made(encoder, corpus, [0], cache, train, role="gallery")
    assert encoder.clips == before + 2
    make_video(tmp_path / "v" / "more.mkv", codec="mjpeg", frames=12, size=(48, 48))
    made(encoder, index(tmp_path / "v"), [0], cache)
    assert encoder.clips == before + 4
    # How neighbours are counted is not how features are made.
    made(encoder, corpus, [0], cache, replace(PROTOCOL, ks=(1,), center=True, query_split="x", gallery_batch=8))
    assert encoder.clips == before + 4


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 not a zip", b"half"])
def test_a_damaged_file_is_made_anew(
    corpus: Corpus, tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    encoder, cache = Counting(), tmp_path / "cache"
    whole = made(encoder, corpus, [0, 1], cache)
    (file,) = cache.iterdir()
    file.write_bytes(file.read_bytes()[:-40] if damage == b"half" else damage)
    with caplog.at_level(logging.WARNING, "ascnet"):
        np.testing.assert_array_equal(made(encoder, corpus, [0, 1], cache).vectors, whole.vectors)
    assert encoder.clips == 8 and "damaged" in caplog.text
    made(encoder, corpus, [0, 1], cache)
    assert encoder.clips == 8 and [path.name for path in cache.iterdir()] == [file.name]


def test_a_folder_that_takes_no_file_costs_a_warning(
    corpus: Corpus, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING, "ascnet"):
        assert len(made(Counting(), corpus, [0], tmp_path / "file" / "cache").rows) == 1
    assert "features are not kept" in caplog.text


def test_a_video_that_failed_is_tried_again(corpus: Corpus, tmp_path: Path) -> None:
    encoder, cache = Counting(), tmp_path / "cache"
    path = Path(corpus[1].uri)
    whole = path.read_bytes()
    path.write_bytes(b"not a video")
    assert list(made(encoder, corpus, [0, 1, 2], cache).failed) == [1]
    path.write_bytes(whole)
    again = made(encoder, corpus, [0, 1, 2], cache)
    assert again.rows.tolist() == [0, 1, 2] and not again.failed


def test_what_was_made_before_an_interrupt_need_not_be_made_again(corpus: Corpus, tmp_path: Path) -> None:
    class Interrupted(Counting):
        def features(self, x: torch.Tensor) -> torch.Tensor:
            if self.clips == 6:
                raise KeyboardInterrupt
            return super().features(x)

    encoder, cache = Interrupted(), tmp_path / "cache"
    with pytest.raises(KeyboardInterrupt):
        made(encoder, corpus, [0, 1, 2, 3], cache, batch_size=2)
    encoder.clips = 0
    found = made(encoder, corpus, [0, 1, 2, 3], cache, batch_size=2)
    # The result of the batch before the last is on the device when the interrupt comes.
    assert encoder.clips == 4 and found.rows.tolist() == [0, 1, 2, 3]
    plain = extract(Counting(), corpus, [0, 1, 2, 3], PROTOCOL, threads=1, progress=False)
    np.testing.assert_allclose(found.vectors, plain.vectors, rtol=1e-6)
