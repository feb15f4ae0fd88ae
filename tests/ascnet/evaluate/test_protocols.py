"""The published protocols: what each does otherwise, said on its card; and which videos and clips each takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from make_videos import make_video

from ascnet.config import Config
from ascnet.errors import UserError
from ascnet.evaluate.clips import augment_of, dropped, region, requests_of
from ascnet.evaluate.command import completeness, protocol_of
from ascnet.evaluate.features import Features
from ascnet.evaluate.protocols import PROTOCOLS, Protocol
from ascnet.evaluate.run import Retrieval, retrieve, split_rows
from dali_pipes import Corpus


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_setting_that_differs_from_clean_is_on_the_card(name: str) -> None:
    protocol, clean = Protocol.named(name), Protocol()
    words = {
        "crop": ("of the picture squeezed", "224/240"),
        "pool": ("max-pooled 1 x 2 x 2",),
        "rounding": ("rounded down",),
        "center": ("queries minus their mean, gallery minus its own",),
        "augmented_gallery": ("area 0.25 to 1", "probability 0.5, seed 0"),
        "query_batch": ("queries without the last incomplete batch of 8",),
        "gallery_batch": ("gallery shuffled, without the last incomplete batch of 8", "gallery without the last"),
        "shuffled": ("shuffled",),
        "size": ("112 x 112", "128 x 128"),
        "mean": ("colours from 0 to 1",),
        "std": ("colours from 0 to 1",),
    }
    changed = {field for field in PROTOCOLS[name] if getattr(protocol, field) != getattr(clean, field)}
    assert changed <= set(words)
    for field in changed:
        assert any(word in protocol.card() for word in words[field]), field
    assert protocol.card().startswith(f"protocol {name}: test videos against train videos; 10 evenly spaced clips")
    assert ("Unlike clean" in protocol.card()) == bool(changed)
    assert protocol.as_dict()["differences"] == protocol.differences()
    assert ("Not repeated of its code" in protocol.card()) == (name in ("rspnet", "coclr"))


def test_clean_and_rspnet_take_the_clip_of_the_run_and_the_others_their_own() -> None:
    config = Config.load(None, ["data.size=224", "data.frames=32", "data.augment.mean=[0.4, 0.4, 0.4]"]).to_dict()
    sizes = {name: protocol_of(config, name).size for name in PROTOCOLS}
    assert sizes == {"clean": 224, "rspnet": 224, "vcop": 112, "coclr": 128}
    assert {protocol_of(config, name).frames for name in PROTOCOLS} == {32}
    assert protocol_of(config, "vcop").mean == (0, 0, 0) and protocol_of(config, "coclr").mean == (0.4, 0.4, 0.4)
    assert protocol_of(config, "vcop", size=64, clips=3).size == 64


def test_an_unknown_protocol_is_a_mistake() -> None:
    with pytest.raises(UserError, match="protocol='best' must be one of clean, rspnet, vcop, coclr"):
        Protocol.named("best")


def test_incomplete_batches_are_dropped_in_order_or_at_random_but_always_the_same() -> None:
    rows = np.arange(100, 119)
    assert dropped(rows, 0) is rows
    np.testing.assert_array_equal(dropped(rows, 8), np.arange(100, 116))
    np.testing.assert_array_equal(dropped(rows[:16], 8), rows[:16])
    once, again, other = (dropped(rows, 8, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(once, again)
    assert len(once) == 16 and set(once) < set(rows) and list(once) == sorted(once)
    assert not np.array_equal(once, other) and not np.array_equal(once, np.arange(100, 116))
    with pytest.raises(UserError, match="5 videos do not fill a batch of 8"):
        dropped(rows[:5], 8)


def test_the_regions_lie_where_the_published_crops_do() -> None:
    vcop = region("vcop", 320, 240)
    assert vcop is not None
    pixels = [vcop.left * 171, vcop.top * 128, vcop.right * 171, vcop.bottom * 128]
    assert pixels == pytest.approx([30, 8, 142, 120])
    coclr = region("coclr", 320, 240)
    assert coclr is not None
    assert [coclr.left * 320, coclr.top * 240, coclr.right * 320, coclr.bottom * 240] == pytest.approx(
        [48, 8, 272, 232]
    )
    assert region("centre", 320, 240) is None


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    root = tmp_path_factory.mktemp("videos")
    for number in range(11):
        split = "train" if number < 9 else "test"
        make_video(root / split / "ab"[number % 2] / f"{number}.mkv", codec="mjpeg", frames=33, size=(64, 48))
    return Corpus.build(root, output=root / "corpus.parquet", progress=False, workers=1)


def test_first_frames_are_rounded_as_the_protocol_says(corpus: Corpus) -> None:
    near, down = Protocol(frames=4, size=32, clips=4), Protocol(frames=4, size=32, clips=4, rounding="down")
    # 29 frames of room: 0, 9.67, 19.33, 29.
    assert [view.start for view in requests_of(corpus, [0], near, "query")[0].views] == [0, 10, 19, 29]
    assert [view.start for view in requests_of(corpus, [0], down, "query")[0].views] == [0, 9, 19, 29]


def test_only_the_gallery_of_rspnet_is_augmented_and_what_is_drawn_depends_on_the_row_alone(corpus: Corpus) -> None:
    protocol = Protocol.named("rspnet", frames=4, size=32, clips=2)
    assert augment_of(protocol, "query") is None
    drawn = augment_of(protocol, "gallery")
    assert drawn is not None and (drawn.crop_area, drawn.flip, drawn.colours) == ((0.25, 1.0), 0.5, False)
    assert protocol.recipe("query") == Protocol(frames=4, size=32, clips=2).recipe("gallery")
    assert protocol.recipe("gallery") != replace(protocol, seed=1).recipe("gallery")
    together, alone = requests_of(corpus, [3, 5], protocol, "gallery"), requests_of(corpus, [5], protocol, "gallery")
    assert together[1] == alone[0] and together[0].key != together[1].key


def test_dropped_videos_are_neither_asked_nor_found_and_are_told(corpus: Corpus) -> None:
    protocol = Protocol.named("rspnet", frames=4, size=32)
    everything = np.arange(11)
    features = Features(everything, np.random.default_rng(0).normal(size=(11, 4)).astype(np.float32))
    found = retrieve(features, corpus, protocol)
    assert len(found.gallery) == 8 and len(found.queries) == 2
    assert found.dropped["queries"] == [] and len(found.dropped["gallery"]) == 1
    assert set(found.gallery) | set(found.dropped["gallery"]) == set(corpus.select("train"))
    assert completeness(corpus, protocol, found) == ["dropped with an incomplete batch: 1 of the gallery"]
    with pytest.raises(UserError, match="2 videos do not fill a batch of 8"):
        split_rows(corpus, Protocol.named("vcop"))


def test_what_is_missing_of_a_data_set_stands_below_its_scores(tmp_path: Path) -> None:
    names = ["wave/a_wave_f_nm_np1_fr_goo_1", "wave/b_wave_f_nm_np1_fr_goo_2", "run/c_run_f_nm_np1_fr_goo_1"]
    for name in names:
        make_video(tmp_path / "v" / f"{name}.avi", codec="mjpeg", frames=8, size=(48, 32))
    (tmp_path / "v" / "run" / "d_run_f_nm_np1_fr_goo_2.avi").write_bytes(b"broken")
    (tmp_path / "wave_test_split1.txt").write_text(
        "a_wave_f_nm_np1_fr_goo_1.avi 1 \nb_wave_f_nm_np1_fr_goo_2.avi 2 \ngone_wave_f_nm_np1_fr_goo_1.avi 1 \n"
    )
    (tmp_path / "run_test_split1.txt").write_text("d_run_f_nm_np1_fr_goo_2.avi 1 \n")
    corpus = Corpus.build(tmp_path / "v", layout="hmdb51", splits=tmp_path, progress=False, workers=1)
    nothing = np.empty(0, np.int64)
    result = Retrieval({}, None, nothing, nothing, {2: "why"})  # type: ignore[arg-type]
    assert completeness(corpus, Protocol(), result) == [
        "data: 1 of 3 train videos missing, none of 1 test videos missing, 1 videos in no list",
        "1 videos that the index found unusable are left out",
        "1 videos that could not be decoded are left out",
    ]
    whole = Protocol(query_split="", gallery_split="")
    assert completeness(corpus, whole, result)[0].startswith("data: none of 1 test videos missing, 1 of 3 train")
