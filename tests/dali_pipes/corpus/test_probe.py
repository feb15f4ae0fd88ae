"""The probe on small generated videos whose frames carry their numbers."""

from __future__ import annotations

from pathlib import Path

import av
import pytest
from make_videos import decode_all, make_video, read_number, truncate
from seeking import full_decode, read_from, wrong_key_frames

from dali_pipes.corpus import Corpus, Video
from dali_pipes.corpus import probe as probing
from dali_pipes.corpus.probe import Probed, probe_row

KINDS = {
    "h264 with B-frames in mp4": dict(name="a.mp4", codec="h264", bframes=2),
    "h264 in matroska": dict(name="a.mkv", codec="h264", bframes=3),
    "h264 with open GOPs": dict(name="o.mp4", codec="h264", bframes=2, options={"x264-params": "open-gop=1"}),
    "h264 refreshed without key frames": dict(
        name="i.mp4", codec="h264", options={"x264-params": "intra-refresh=1:keyint=20"}
    ),
    "h264 in a transport stream": dict(name="a.ts", codec="h264", bframes=2),
    "h264 in avi": dict(name="b.avi", codec="h264", bframes=2),
    "h264 as a bare stream": dict(name="a.h264", codec="h264", bframes=2),
    "hevc with B-frames": dict(name="h.mp4", codec="hevc", bframes=2),
    "mpeg4 in avi": dict(name="c.avi", codec="mpeg4"),
    "mpeg4 with B-frames in avi": dict(name="d.avi", codec="mpeg4", bframes=2),
    "mpeg4 with B-frames in mp4": dict(name="d.mp4", codec="mpeg4", bframes=2),
    "mpeg1 in a program stream": dict(name="e.mpg", codec="mpeg1video", bframes=2),
    "mpeg2 in a transport stream": dict(name="f.ts", codec="mpeg2video", bframes=2),
    "mjpeg in avi": dict(name="g.avi", codec="mjpeg"),
    "mjpeg in mp4": dict(name="g.mp4", codec="mjpeg"),
    "vp8": dict(name="h.webm", codec="vp8"),
    "vp9 with hidden frames": dict(name="i.webm", codec="vp9", gop=30),
    "vp9 in mp4": dict(name="i9.mp4", codec="vp9", gop=30),
    "gif": dict(name="j.gif", codec="gif"),
}
BY_PACKETS = {
    "h264 with B-frames in mp4", "h264 in matroska", "hevc with B-frames", "mpeg4 in avi", "mjpeg in avi",
    "mjpeg in mp4", "vp8", "vp9 with hidden frames", "vp9 in mp4",
}  # fmt: skip


def video_of(path: Path, *, thorough: bool = False) -> Video:
    blank = {"label": "", "split": "", "group": ""}
    return Corpus.from_rows([blank | probe_row(str(path), thorough=thorough)])[0]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("made")
    return {
        kind: make_video(folder / f"{number}_{options['name']}", **{k: v for k, v in options.items() if k != "name"})
        for number, (kind, options) in enumerate(KINDS.items())
    }


@pytest.mark.parametrize("thorough", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_frame_and_key_frame_is_found(made: dict[str, Path], kind: str, thorough: bool) -> None:
    video = video_of(made[kind], thorough=thorough)
    frames = full_decode(made[kind])
    assert (video.error, video.frames) == ("", len(frames))
    assert video.key_frames[0] == 0
    assert len(video.key_frames) > 1 or kind in ("h264 refreshed without key frames", "h264 as a bare stream", "gif")
    assert wrong_key_frames(video, frames) == []


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"h264 as a bare stream", "gif"}))
def test_decoding_begins_at_the_number_that_the_row_says(made: dict[str, Path], kind: str) -> None:
    video = video_of(made[kind])
    for key, number in enumerate(video.key_frames.tolist()):
        counted, frame = next(read_from(video, key))
        assert (counted, read_number(frame)) == (number, number)


@pytest.mark.parametrize("kind", sorted(BY_PACKETS))
def test_clean_videos_are_counted_by_their_packets(made: dict[str, Path], kind: str) -> None:
    assert probing._from_packets(Probed(str(made[kind])), probing.MAX_SIDE, probing.MAX_FRAMES) == ""


def test_the_vp9_test_video_has_hidden_frames(made: dict[str, Path]) -> None:
    with av.open(str(made["vp9 with hidden frames"])) as container:
        last_bytes = [bytes(packet)[-1] for packet in container.demux(video=0) if packet.size]
    assert any(byte & 0xE0 == 0xC0 for byte in last_bytes), "no packet is a superframe"


def test_a_stream_refreshed_without_key_frames_starts_at_its_beginning_only(made: dict[str, Path]) -> None:
    with av.open(str(made["h264 refreshed without key frames"])) as container:
        marked = sum(packet.is_keyframe for packet in container.demux(video=0) if packet.size)
    assert marked > 1
    assert video_of(made["h264 refreshed without key frames"]).key_frames.tolist() == [0]


def test_a_constant_rate_is_kept_exactly_despite_millisecond_stamps(tmp_path: Path) -> None:
    video = video_of(make_video(tmp_path / "a.mkv", codec="h264", rate=30))
    assert (video.constant, video.timestamps, video.time_base_den) == (True, None, 1000)
    assert video.rate == pytest.approx(30, abs=1e-9)
    assert video.duration == pytest.approx(2, abs=1e-9)


def test_a_variable_rate_keeps_every_time_stamp(tmp_path: Path) -> None:
    stamps = [40 * i + (300 if i > 20 else 0) + i % 3 * 7 for i in range(50)]
    video = video_of(make_video(tmp_path / "a.mkv", codec="h264", frames=50, timestamps=stamps, bframes=2))
    assert not video.constant
    assert video.timestamps is not None and video.timestamps.tolist() == stamps
    assert video.rate == pytest.approx(49 / (stamps[-1] / 1000))


def test_one_frame_is_a_video(tmp_path: Path) -> None:
    video = video_of(make_video(tmp_path / "a.mp4", frames=1, rate=10))
    assert (video.frames, video.constant, video.rate, video.duration) == (1, True, 10, 0.1)


def test_damage_in_the_middle_is_found_without_decoding_everything(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", frames=60)
    with av.open(str(path)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size]
    with path.open("r+b") as file:
        file.seek(places[30])
        file.write(bytes(places[31] - places[30]))
    assert probing._from_packets(Probed(str(path)), probing.MAX_SIDE, probing.MAX_FRAMES) == "damaged NAL units"
    assert video_of(path).error.startswith("decoding fails after ")


def test_a_cut_off_file_keeps_its_beginning(tmp_path: Path) -> None:
    whole = make_video(tmp_path / "a.mkv", codec="mjpeg", frames=40)
    video = video_of(truncate(whole, tmp_path / "b.mkv", 0.5))
    assert video.error == ""
    assert 10 < video.frames < 30
    assert wrong_key_frames(video, full_decode(video.uri)) == []


def test_frames_that_change_size_are_told(tmp_path: Path) -> None:
    parts = [make_video(tmp_path / f"{w}.h264", size=(w, 96), frames=20) for w in (128, 64)]
    both = tmp_path / "both.h264"
    both.write_bytes(b"".join(part.read_bytes() for part in parts))
    video = video_of(both)
    assert (video.width, video.frames, video.uniform) == (128, 40, False)


def test_pictures_beyond_the_limit_are_refused_before_decoding(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", size=(256, 64), frames=3)
    assert probe_row(str(path), max_side=200)["error"] == "picture of 256 x 64: more than 200 a side"


def test_errors_of_the_file_itself(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video\n" * 100)
    assert probe_row(str(tmp_path / "empty.mp4"))["error"] == "the file is empty"
    assert probe_row(str(tmp_path / "none.mp4"))["error"] == "No such file or directory"
    row = probe_row(str(tmp_path / "text.mp4"))
    assert row["error"].startswith("cannot be opened")
    assert row["bytes"] == 900


def test_the_numbers_in_the_test_videos_are_readable(made: dict[str, Path]) -> None:
    for kind in ("h264 with B-frames in mp4", "vp9 with hidden frames", "mpeg4 with B-frames in avi", "mjpeg in avi"):
        assert [read_number(frame) for frame in decode_all(made[kind])] == list(range(60))
