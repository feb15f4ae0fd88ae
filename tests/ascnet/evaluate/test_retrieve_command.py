"""`ascnet retrieve` under the published protocols, on a corpus of which a part is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from make_videos import make_video

from ascnet import Config, cli
from ascnet.checkpoint import save
from ascnet.evaluate.run import untrained_encoder
from dali_pipes import Corpus


@pytest.fixture
def run(tmp_path: Path) -> Path:
    config = Config.load(None, ["model.encoder=r3d10", "model.width=0.0625", "data.frames=4", "data.size=32"]).to_dict()
    weights = untrained_encoder(config, seed=5).state_dict()
    payload = {"config": config, "model": {f"online.encoder.{name}": tensor for name, tensor in weights.items()}}
    save(tmp_path / "run", 1, payload, keep=1)
    return tmp_path / "run"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    lists: dict[str, list[str]] = {"wave": [], "run": []}
    for number in range(18):
        label, flag = ("wave", "run")[number % 2], 1 if number < 9 else 2
        name = f"film{number}_{label}_f_nm_np1_fr_goo_{number}.avi"
        lists[label].append(f"{name} {flag} ")
        if number != 4:
            make_video(tmp_path / "v" / label / name, codec="mjpeg", frames=8, size=(40, 32), first=99 * number)
    for label, lines in lists.items():
        (tmp_path / f"{label}_test_split1.txt").write_text("\n".join(lines))
    out = tmp_path / "corpus.parquet"
    Corpus.build(tmp_path / "v", layout="hmdb51", splits=tmp_path, output=out, progress=False, workers=1)
    return out


@pytest.mark.parametrize("protocol", ["clean", "rspnet", "vcop", "coclr"])
def test_the_card_says_protocol_differences_and_what_is_missing(
    run: Path, corpus: Path, tmp_path: Path, protocol: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["retrieve", "--checkpoint", str(run), "--corpus", str(corpus), "--device", "cpu", "--threads", "2"]
    arguments += ["--clips", "2", "--no-figure", "--size", "32", "--protocol", protocol]
    assert cli.main(arguments) == 0
    printed = capsys.readouterr().out
    assert f"protocol {protocol}: test videos against train videos; 2 evenly spaced clips" in printed
    assert "data: 1 of 9 train videos missing, none of 9 test videos missing" in printed
    assert ("Unlike clean: " in printed) == (protocol != "clean")
    assert ("dropped with an incomplete batch: 1 of the queries" in printed) == (protocol == "vcop")
    scores = json.loads((run / "retrieve" / "retrieval.json").read_text())
    assert scores["listing"]["missing"] == {"train": 1} and scores["protocol"]["name"] == protocol
    assert scores["queries"] == (8 if protocol == "vcop" else 9) and scores["gallery"] == 8
    assert list(scores["recall"]["pretrained"]) == ["R@1", "R@5", "R@10", "R@20", "R@50"]


def test_a_second_run_uses_the_features_of_the_first_unless_told_not_to(
    run: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["retrieve", "--checkpoint", str(run), "--corpus", str(corpus), "--device", "cpu", "--threads", "2"]
    arguments += ["--clips", "1", "--no-figure"]
    assert cli.main([*arguments, "--no-cache"]) == 0
    assert not (run / "features").exists()
    assert cli.main(arguments) == 0
    (file,) = (run / "features").iterdir()
    first = (file.stat().st_mtime_ns, json.loads((run / "retrieve" / "retrieval.json").read_text())["recall"])
    # Without the videos there is no other way than the features kept.
    for video in (corpus.parent / "v").rglob("*.avi"):
        video.unlink()
    assert cli.main(arguments) == 0
    second = (file.stat().st_mtime_ns, json.loads((run / "retrieve" / "retrieval.json").read_text())["recall"])
    assert first == second
    capsys.readouterr()


def test_a_protocol_that_drops_everything_says_so(run: Path, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["retrieve", "--checkpoint", str(run), "--corpus", str(corpus), "--protocol", "vcop"]
    opened = Corpus.open(corpus)
    few = Corpus(opened.table.slice(0, 5))
    few.save(corpus)
    assert cli.main([*arguments, "--query-split", "all", "--gallery-split", "all"]) == 2
    error = capsys.readouterr().err
    assert "5 videos do not fill a batch of 8" in error and error.count("\n") == 1


def test_a_feature_map_too_small_for_the_pooling_is_a_mistake(
    run: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["retrieve", "--checkpoint", str(run), "--corpus", str(corpus), "--device", "cpu", "--clips", "1"]
    assert cli.main([*arguments, "--protocol", "vcop", "--size", "16", "--no-figure"]) == 2
    assert "too small to be pooled 1 x 2 x 2" in capsys.readouterr().err
