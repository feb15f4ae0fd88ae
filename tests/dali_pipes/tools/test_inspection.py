"""`dali-pipes inspect`: frames, GOPs, costs, decoders and advice, and one line for what is no video."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from make_videos import make_video

from dali_pipes import Corpus, DataError
from dali_pipes.cli import main
from dali_pipes.tools.cost import clip_cost
from dali_pipes.tools.gop import structure, timeline
from dali_pipes.tools.videos import find_video

# Key frames where the GOP ends and nowhere else.
EVEN = {"sc_threshold": "0"}


def inspected(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    assert main(["inspect", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_it_tells_the_frames_the_gops_and_the_decoders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_video(tmp_path / "a.mp4", frames=60, gop=12, size=(128, 96), options=EVEN)
    report = inspected(capsys, path)
    assert (report["frames"], report["width"], report["height"], report["rate"]) == (60, 128, 96, 25)
    assert report["gop"]["key_frames"] == [0, 12, 24, 36, 48]
    assert report["gop"]["lengths"] == {"min": 12, "median": 12, "max": 12}
    assert report["gop"]["types"] == [{"I": 1, "P": 11}] * 5
    assert report["interval_seconds"] == pytest.approx({"min": 0.04, "median": 0.04, "max": 0.04})
    assert report["decoders"]["cpu"]["decoder"] == "host" and "h264" in report["decoders"]["cpu"]["reason"]
    assert report["decoders"]["gpu"] == {"decoder": "dali", "reason": "NVDEC"}
    assert report["bytes"] == path.stat().st_size > report["stream_bytes"]
    assert report["bit_rate"] == pytest.approx(8 * report["stream_bytes"] / 2.4)


@pytest.mark.parametrize(
    ("name", "codec", "bframes"),
    [
        ("a.mp4", "h264", 2),
        ("a.mkv", "mpeg4", 2),
        ("a.mpg", "mpeg2video", 2),
        ("a.avi", "mjpeg", 0),
        ("a.mp4", "h264", 0),
    ],
)
def test_picture_types_and_bytes_are_those_that_the_decoder_finds(
    tmp_path: Path, name: str, codec: str, bframes: int
) -> None:
    path = make_video(tmp_path / name, codec=codec, bframes=bframes, gop=12, frames=48)
    video = find_video(str(path))
    found = structure(video)
    assert found.types is not None and found.bytes is not None
    with av.open(str(path)) as container:
        decoded = ["?IPB"[int(frame.pict_type)] for frame in container.decode(video=0)]
    with av.open(str(path)) as container:
        stored = sum(packet.size for packet in container.demux(video=0))
    total = {kind: sum(group.get(kind, 0) for group in found.types) for kind in "IPB"}
    assert total == {kind: decoded.count(kind) for kind in "IPB"}
    assert bool(total["B"]) == bool(bframes)
    assert found.bytes.sum() == found.stream_bytes == stored
    assert found.lengths.sum() == 48


@pytest.mark.parametrize("speed", [0.1, 17.0, float("nan")])
def test_the_cost_of_a_speed_that_no_clip_has_is_a_mistake_in_words(tmp_path: Path, speed: float) -> None:
    video = find_video(str(make_video(tmp_path / "a.mp4", frames=20)))
    with pytest.raises(DataError, match=rf"speed={speed} must be a number in 0\.25\.\.16"):
        clip_cost(video, speed=speed)
    with pytest.raises(DataError, match="frames=0 must be at least 1"):
        clip_cost(video, frames=0)


def test_hevc_packets_do_not_tell_and_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_video(tmp_path / "a.mp4", codec="hevc", frames=24, size=(160, 160))
    assert main(["inspect", str(path)]) == 0
    assert "types not told by the packets" in capsys.readouterr().out


def test_a_variable_rate_shows_in_the_spread_of_intervals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stamps = np.cumsum([0] + [40, 40, 80] * 10).tolist()
    report = inspected(capsys, make_video(tmp_path / "a.mkv", frames=len(stamps), timestamps=stamps))
    assert report["constant"] is False
    assert report["interval_seconds"] == pytest.approx({"min": 0.04, "median": 0.04, "max": 0.08})


def test_the_cost_of_a_clip_is_that_of_decoding_from_the_key_frame_on(tmp_path: Path) -> None:
    video = find_video(str(make_video(tmp_path / "a.mp4", frames=60, gop=20, options=EVEN)))
    cost = clip_cost(video, frames=4, speed=2)
    # By hand: starts 0 to 53, wanted s, s + 2, s + 4, s + 6; those with a key frame in between begin there anew only
    # where it governs a frame behind the last one wanted before it.
    by_hand = []
    for start in range(54):
        decoded, last = set(), -1
        for frame in range(start, start + 7, 2):
            key = frame // 20 * 20
            decoded |= set(range(key if key > last else last + 1, frame + 1))
            last = frame
        by_hand.append(len(decoded))
    assert cost.starts == 54 and cost.wanted == 4
    assert cost.decoded == pytest.approx(np.mean(by_hand)) and cost.most == max(by_hand)


def test_long_gops_are_advised_against_and_short_ones_are_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = inspected(capsys, make_video(tmp_path / "long.mp4", frames=250, gop=250))
    assert "lead-in" in long["advice"][0]
    assert "dali-pipes transcode --preset cpu" in long["advice"][1]
    assert "dali-pipes transcode --preset gpu" in long["advice"][2]
    assert long["clips"][0]["decoded"] > 3 * 16
    short = inspected(capsys, make_video(tmp_path / "short.mp4", frames=250, gop=8), "--device", "gpu")
    assert short["advice"] == [] and list(short["decoders"]) == ["gpu"]


def test_a_timeline_shows_key_frames_where_they_are() -> None:
    assert timeline([0, 50], 100, 10) == "|----|----"
    assert timeline([0, 1, 99], 100, 10) == "#--------|"
    assert timeline([0], 3, 80) == "|--"


def test_the_lines_are_aligned_and_name_what_matters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_video(tmp_path / "a.webm", codec="vp9", frames=30, size=(160, 160))
    assert main(["inspect", str(path)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    assert all(len(line) > 14 and line[12:14] == "  " and line[14] != " " for line in lines)
    text = "\n".join(lines)
    assert "vp9" in text and "30 in 30 packets" in text and "DALI's CPU decoder" in text


def test_a_corpus_says_it_instead_of_the_probe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_video(tmp_path / "videos" / "a.mp4", frames=40)
    corpus = tmp_path / "c.parquet"
    Corpus.build(tmp_path / "videos", output=corpus, workers=1, progress=False)
    assert inspected(capsys, "a.mp4", "--corpus", corpus) == inspected(capsys, path)
    assert main(["inspect", "b.mp4", "--corpus", str(corpus)]) == 2
    assert "not among the 1 videos" in capsys.readouterr().err


def test_a_member_of_a_tar_shard_is_found_by_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_video(tmp_path / "a.mp4", frames=40)
    with tarfile.open(tmp_path / "shard.tar", "w") as shard:
        shard.add(path, arcname="run/a.mp4")
    corpus = tmp_path / "c.parquet"
    Corpus.build(tmp_path / "shard.tar", output=corpus, workers=1, progress=False)
    report = inspected(capsys, "a.mp4", "--corpus", corpus)
    assert report["uri"].startswith("tar://run/a.mp4::")
    same = inspected(capsys, report["uri"])
    alone = inspected(capsys, path)
    assert report == same
    assert (report["gop"], report["clips"]) == (alone["gop"], alone["clips"])


def test_a_broken_file_is_one_line_and_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, content in (("text.mp4", b"no video"), ("empty.mp4", b"")):
        (tmp_path / name).write_bytes(content)
        assert main(["inspect", str(tmp_path / name)]) == 1
        shown = capsys.readouterr()
        assert shown.out == "" and shown.err.count("\n") == 1 and name in shown.err


def test_mistakes_are_one_line_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["none.mp4"], [str(tmp_path)], ["a.mp4", "--corpus", "c.parquet", "--thorough"]):
        assert main(["inspect", *arguments]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_every_odd_file_is_either_described_or_refused_in_one_line(
    videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codes = []
    for path in sorted((videos / "odd").iterdir()):
        codes.append(main(["inspect", str(path)]))
        shown = capsys.readouterr()
        assert (bool(shown.out), shown.err.count("\n")) == ((True, 0) if codes[-1] == 0 else (False, 1)), path.name
    assert set(codes) == {0, 1}


def test_kinetics_files_are_advised_to_be_transcoded(videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = inspected(capsys, sorted((videos / "kinetics400").glob("*.mp4"))[0])
    assert report["codec"] == "h264" and report["sliceable"] and report["advice"]
    assert sum(sum(group.values()) for group in report["gop"]["types"]) == report["packets"] == report["frames"]
