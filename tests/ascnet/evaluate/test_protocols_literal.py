"""Each protocol against a slow literal reading of it: full-size frames, Pillow, one clip at a time, plain loops."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import av
import numpy as np
import pytest
import torch
from make_videos import make_video
from PIL import Image
from torch import nn

from ascnet.evaluate.clips import requests_of
from ascnet.evaluate.features import extract
from ascnet.evaluate.protocols import IMAGENET, PROTOCOLS, Protocol
from ascnet.evaluate.run import evaluate, split_rows
from dali_pipes import Augment, Corpus
from dali_pipes.clips.random import Purpose, generator

CLIP = {"frames": 4, "clips": 3}


class Places(nn.Module):
    """A last map that says where in the picture what is: 3 channels, 2 steps of time, 6 x 6 places, not linear."""

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.adaptive_avg_pool3d(x.float(), (2, 6, 6)).square() + 0.1


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """17 for training and 9 to test with: one of each is left over of batches of 8."""
    root = tmp_path_factory.mktemp("videos")
    for number in range(26):
        split = "train" if number < 17 else "test"
        size = (320, 240) if number % 3 else (240, 320)
        name = root / split / "abc"[number % 3] / f"{number:02d}.mkv"
        make_video(name, codec="mjpeg", frames=9 + number % 5, size=size, first=1237 * number % 32000)
    return Corpus.build(root, output=root / "corpus.parquet", progress=False, workers=1)


def literal_clips(corpus: Corpus, row: int, protocol: Protocol, gallery: bool) -> np.ndarray:
    """(clips, 3, T, size, size), normalised."""
    with av.open(corpus[row].uri) as container:
        frames = [frame.to_image() for frame in container.decode(video=0)]
    room = len(frames) - protocol.frames
    clips = []
    for number in range(protocol.clips):
        exact = room * number / (protocol.clips - 1)
        first = int(exact) if protocol.name == "vcop" else int(exact + 0.5)
        clip = []
        for picture in frames[first : first + protocol.frames]:
            width, height = picture.size
            short, size = min(width, height), protocol.size
            if protocol.name == "vcop":
                squeezed = picture.resize((171, 128), Image.Resampling.BILINEAR)
                shown = squeezed.crop((30, 8, 142, 120))
            elif protocol.name == "coclr":
                # On a film 240 high: 224 x 224 from the middle.
                edge = short * 224 / 240
                box = ((width - edge) / 2, (height - edge) / 2, (width + edge) / 2, (height + edge) / 2)
                shown = picture.resize((size, size), Image.Resampling.BILINEAR, box=box)
            elif protocol.name == "rspnet" and gallery:
                key = requests_of(corpus, [row], protocol, "gallery")[0].key
                rng = generator(key, Purpose.AUGMENT, view=number)
                draws = Augment(crop_area=(0.25, 1), flip=0.5, grayscale=0, jitter=0).draw(rng, width, height)
                box = (draws.left * width, draws.top * height, draws.right * width, draws.bottom * height)
                shown = picture.resize((size, size), Image.Resampling.BILINEAR, box=box)
                if draws.flip:
                    shown = shown.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            else:
                left, top = (width - short) // 2, (height - short) // 2
                square = picture.crop((left, top, left + short, top + short))
                shown = square.resize((size, size), Image.Resampling.BILINEAR)
            clip.append(np.asarray(shown, np.float64) / 255)
        clips.append(np.stack(clip).transpose(3, 0, 1, 2))
    mean, std = ((0,) * 3, (1,) * 3) if protocol.name == "vcop" else IMAGENET
    return (np.stack(clips) - np.reshape(mean, (3, 1, 1, 1))) / np.reshape(std, (3, 1, 1, 1))


def literal_feature(corpus: Corpus, row: int, protocol: Protocol, gallery: bool) -> np.ndarray:
    found = []
    for clip in literal_clips(corpus, row, protocol, gallery):
        maps = Places().features(torch.from_numpy(clip[None]))[0].numpy()
        if protocol.pool == "max":
            pooled = [
                maps[c, t, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].max()
                for c in range(3) for t in range(2) for y in range(3) for x in range(3)
            ]  # fmt: skip
        else:
            pooled = [maps[c].mean() for c in range(3)]
        found.append(pooled)
    return np.mean(found, axis=0)


def literal_recall(
    corpus: Corpus, queries: dict[int, np.ndarray], gallery: dict[int, np.ndarray], name: str, k: int
) -> float:
    if name == "coclr":
        middle, centre = np.mean(list(queries.values()), axis=0), np.mean(list(gallery.values()), axis=0)
        queries = {row: f - middle for row, f in queries.items()}
        gallery = {row: f - centre for row, f in gallery.items()}
    hits = 0
    for row, q in queries.items():
        cosine = {other: q @ g / np.sqrt(q @ q) / np.sqrt(g @ g) for other, g in gallery.items()}
        nearest = sorted(cosine, key=lambda other: -cosine[other])[:k]
        hits += any(corpus.labels[other] == corpus.labels[row] for other in nearest)
    return 100 * hits / len(queries)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_features_and_recall_are_those_of_the_literal_protocol(corpus: Corpus, name: str) -> None:
    protocol = Protocol.named(name, **{"size": 112, **CLIP, **PROTOCOLS[name]}, ks=(1, 5))
    query_rows, gallery_rows = split_rows(corpus, protocol)
    assert (len(query_rows), len(gallery_rows)) == {
        "clean": (9, 17), "rspnet": (9, 16), "vcop": (8, 16), "coclr": (9, 17),
    }[name]  # fmt: skip
    wanted: dict[str, dict[int, np.ndarray]] = {}
    made: dict[str, dict[int, np.ndarray]] = {}
    for role, rows in (("query", query_rows), ("gallery", gallery_rows)):
        wanted[role] = {int(row): literal_feature(corpus, int(row), protocol, role == "gallery") for row in rows}
        features = extract(Places(), corpus, rows, protocol, role=role, threads=2, progress=False)  # type: ignore[arg-type]
        made[role] = dict(zip(features.rows.tolist(), features.vectors, strict=True))
        spread = np.std(list(wanted[role].values()), axis=0).mean()
        for row, feature in wanted[role].items():
            # Another decoder and scaler: pictures agree to about a grey value, less than what tells videos apart.
            assert np.abs(made[role][row] - feature).mean() < 0.25 * spread, (role, row)
    result = evaluate(Places(), corpus, protocol, threads=2, progress=False)
    for k in (1, 5):
        exact = {role: {row: np.asarray(f, np.float64) for row, f in made[role].items()} for role in made}
        assert result.recalls[k] == pytest.approx(literal_recall(corpus, exact["query"], exact["gallery"], name, k))


@pytest.mark.parametrize("decoder", ["dali", "host"])
@pytest.mark.parametrize("name", ["vcop", "coclr", "rspnet"])
def test_each_protocol_sees_other_pictures_than_clean(
    corpus: Corpus, name: str, decoder: Literal["dali", "host"]
) -> None:
    # Pooled so that it stays known where in the picture things are.
    protocol = Protocol.named(name, **{"size": 112, **CLIP, **PROTOCOLS[name], "pool": "max"})
    clean = Protocol(size=protocol.size, mean=protocol.mean, std=protocol.std, pool="max", **CLIP)
    for row in (0, 1):
        own, other = (
            extract(Places(), corpus, [row], how, role="gallery", decoder=decoder, threads=2, progress=False).vectors[0]
            for how in (protocol, clean)
        )
        literal = literal_feature(corpus, row, protocol, gallery=True)
        assert np.abs(own - literal).mean() < 0.5 * np.abs(other - literal).mean()


def test_real_videos_go_through_every_protocol(videos: Path) -> None:
    corpus = Corpus.build(videos / "ucf101", layout="ucf101", progress=False, workers=2)
    for name in PROTOCOLS:
        settings = {"size": 112, "frames": 8, "clips": 2, **PROTOCOLS[name], "query_split": "", "gallery_split": ""}
        protocol = Protocol.named(name, **settings, ks=(1,))
        result = evaluate(Places(), corpus, protocol, threads=2, progress=False)
        assert not result.failed and len(result.gallery) == (9 if name in ("clean", "coclr") else 8)
