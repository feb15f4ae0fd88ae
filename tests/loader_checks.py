"""What the loader promises, as checks that take a device: the tests on the CPU and their GPU twins share them."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from make_videos import decode_all, make_video, read_number, truncate

from dali_pipes import Augment, ClipBatch, ClipRequest, ClipStream, Corpus, DataError, Key, SpeedLoader, View
from dali_pipes.corpus.probe import probe_row
from dali_pipes.decode.slice import Slice

FRAMES = 60
OPEN_GOP = {"x264-params": "open-gop=1:scenecut=0:bframes=3"}
# Every way of coding that the loader treats differently; the suffix chooses the container.
ZOO: dict[str, dict[str, Any]] = {
    "vp9.webm": {"codec": "vp9", "gop": 20},
    "mjpeg.avi": {"codec": "mjpeg"},
    "vp8.webm": {"codec": "vp8", "gop": 20},
    "h264_long_gop.mp4": {"codec": "h264", "gop": 250, "bframes": 3},
    "h264_open_gop.mkv": {"codec": "h264", "gop": 15, "bframes": 3, "options": OPEN_GOP},
    "hevc.mp4": {"codec": "hevc", "gop": 16, "bframes": 3},
    "mpeg4.avi": {"codec": "mpeg4", "gop": 12, "bframes": 2},
    "mpeg4.mp4": {"codec": "mpeg4", "gop": 12, "bframes": 2},
    "counted.h264": {"codec": "h264", "gop": 15, "bframes": 2},
}


def corpus_of(paths: Iterable[Path], **columns: Any) -> Corpus:
    """A corpus of some files, probed one by one; columns given here replace what the probe found."""
    usual = {"label": "", "split": "", "group": ""}
    return Corpus.from_rows([probe_row(str(path)) | usual | columns for path in paths])


def make_zoo(folder: Path, side: int) -> Corpus:
    """One numbered video of each kind in ``ZOO``, in that order."""
    paths = (make_video(folder / name, frames=FRAMES, size=(side, side), **kind) for name, kind in ZOO.items())
    return corpus_of(paths)


def make_plain(folder: Path, count: int, side: int, *, codec: str = "mjpeg", suffix: str = ".mkv") -> list[Path]:
    """Numbered videos of 40, 41, ... frames; video i's first frame carries the number ``100 * i``."""
    return [
        make_video(folder / f"{i}{suffix}", codec=codec, frames=40 + i, size=(side, side), first=100 * i)
        for i in range(count)
    ]


def make_coloured(path: Path, encoder: str, pixel_format: str, options: dict[str, str], side: int = 96) -> Path:
    """A video of smooth moving colours: what is left of a difference is the conversion to RGB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[0:side, 0:side] / side
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(encoder, rate=25, options=options)
        stream.width = stream.height = side
        stream.pix_fmt = pixel_format
        stream.codec_context.gop_size = 10
        for i in range(30):
            t = 2 * np.pi * i / 30
            picture = np.stack([np.sin(2 * x + t), np.cos(2 * y - t), np.sin(x + y + 2 * t)], axis=-1)
            frame = av.VideoFrame.from_ndarray((127 + 100 * picture).astype(np.uint8), format="rgb24")
            frame = frame.reformat(format=pixel_format)
            frame.pts, frame.time_base = i, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def pictures(path: str | Path) -> np.ndarray:
    """All frames of a sequential decode, uint8 (F, H, W, 3)."""
    return np.stack([frame.to_ndarray(format="rgb24") for frame in decode_all(path)])


def decode_slice(piece: Slice) -> list[av.VideoFrame]:
    """The frames that a slice was cut for, as a decoder that knows nothing of the video finds them."""
    with av.open(io.BytesIO(piece.data.tobytes())) as container:
        frames = list(container.decode(video=0))
    return [frames[i] for i in piece.frames]


def numbers_shown(clip: torch.Tensor) -> list[int]:
    """The numbers that the pictures of a clip carry; uint8 (C, T, H, W)."""
    return [read_number(picture) for picture in clip.permute(1, 2, 3, 0).cpu().numpy()]


def expected(start: int, speed: float, frames: int, total: int) -> list[int]:
    """The definition of a looped clip at a constant rate, one frame at a time."""
    return [(start + int(Fraction(speed) * i + Fraction(1, 2))) % total for i in range(frames)]


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal to noise ratio of 8-bit pictures, dB."""
    error = np.square(a.astype(np.float64) - b).mean()
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def assert_same(a: ClipBatch, b: ClipBatch) -> None:
    """Two batches are equal to the bit."""
    assert a.requests == b.requests
    assert (a.epoch, a.positions.tolist()) == (b.epoch, b.positions.tolist())
    assert torch.equal(a.videos, b.videos)
    assert torch.equal(a.speeds, b.speeds)
    assert torch.equal(a.starts, b.starts)
    assert a.clips.dtype == b.clips.dtype
    assert torch.equal(a.clips, b.clips)


def kept(loader: SpeedLoader, batches: int) -> list[ClipBatch]:
    """The next so many batches, over as many epochs as it takes."""
    found: list[ClipBatch] = []
    while len(found) < batches:
        for batch in loader:
            found.append(batch)
            if len(found) == batches:
                break
    return found


def check_frame_numbers(corpus: Corpus, side: int, device: str, *, shared: bool, frames: int = 8) -> None:
    """Every start of every video, 1x and 2x, first and last frames and wrapped clips included, shows the right frames.

    The two windows of a request lie apart (often in two ranges of packets) or begin together.
    """
    far = 0 if shared else 23
    with ClipStream(
        corpus,
        frames=frames,
        size=side,
        batch_size=20,
        views=2,
        device=device,
        dtype="uint8",
        decoder="dali",
        threads=1,
    ) as stream:
        for video in corpus:
            starts = [(s, (s + far) % video.frames) for s in range(0, video.frames, 1 if video.frames <= FRAMES else 7)]
            requests = [ClipRequest(video.index, (View(1, a), View(2, b))) for a, b in starts]
            for batch in stream.map([requests[i : i + 20] for i in range(0, len(requests), 20)]):
                assert torch.equal(batch.videos.cpu(), torch.full((len(batch),), video.index))
                for request, clips in zip(batch.requests, batch.clips, strict=True):
                    for view, clip in zip(request.views, clips, strict=True):
                        wanted = expected(view.start, view.speed, frames, video.frames)
                        assert numbers_shown(clip) == wanted, (video.uri, view)
        assert stream.stats.bad == {}
        assert stream.stats.host_decoded == {}


def check_pixels(paths: Sequence[Path], side: int, device: str, *, least: float) -> None:
    """Decoded by DALI and passed through the graph without scaling, frames look as PyAV decodes them."""
    corpus = corpus_of(paths)
    with ClipStream(
        corpus, frames=12, size=side, batch_size=len(paths), device=device, dtype="uint8", decoder="dali", threads=1
    ) as stream:
        stream.submit([ClipRequest(i, (View(2, 3),)) for i in range(len(paths))])
        clips = stream.get().clips[:, 0].permute(0, 2, 3, 4, 1).cpu().numpy()
    for path, clip in zip(paths, clips, strict=True):
        assert psnr(clip, pictures(path)[3:27:2]) > least, path.name


def check_settings_do_not_matter(corpus: Corpus, device: str) -> None:
    """Threads and prefetch change no bit of any batch, random augmentation included."""
    first: list[ClipBatch] = []
    for threads, prefetch in ((1, 1), (2, 3), (4, 2)):
        options: dict[str, Any] = {"threads": threads, "prefetch": prefetch}
        with loader_of(corpus, device, augment=Augment(blur=0.5), **options) as loader:
            batches = kept(loader, 2 * len(loader) + 1)
        first = first or batches
        for a, b in zip(first, batches, strict=True):
            assert_same(a, b)


def check_ranks(corpus: Corpus, device: str) -> None:
    """Two ranks with batches of 2 make together what one makes with batches of 4."""
    with loader_of(corpus, device, batch_size=4, clips_per_video=3) as loader:
        assert len(loader) >= 3
        alone = kept(loader, len(loader) + 1)
    halves = []
    for rank in range(2):
        with loader_of(corpus, device, batch_size=2, clips_per_video=3, rank=rank, world_size=2) as loader:
            halves.append(kept(loader, len(alone)))
    for whole, a, b in zip(alone, *halves, strict=True):
        assert whole.requests == a.requests + b.requests
        assert torch.equal(whole.positions, torch.cat([a.positions, b.positions]))
        assert torch.equal(whole.clips, torch.cat([a.clips, b.clips]))


def check_resume(corpus: Corpus, device: str) -> None:
    """A loader that takes up another's state gives the batches that the other goes on to give, over the epoch's end."""
    with loader_of(corpus, device) as loader:
        assert len(loader) >= 3
        kept(loader, len(loader) + 2)
        state = loader.state_dict()
        rest = kept(loader, len(loader) + 1)
    assert (state["epoch"], state["position"]) == (1, 4)
    assert {batch.epoch for batch in rest} == {1, 2}
    with loader_of(corpus, device, threads=2, prefetch=3) as other:
        kept(other, 1)  # batches of another place are on the way
        other.load_state_dict(state)
        for a, b in zip(rest, kept(other, len(rest)), strict=True):
            assert_same(a, b)


def check_replacement(folder: Path, side: int, device: str, *, codec: str, suffix: str) -> None:
    """Files lost, cut short or overwritten after indexing are replaced alike in all runs, and counted with a reason."""
    paths = make_plain(folder, 8, side, codec=codec, suffix=suffix)
    corpus = corpus_of(paths)
    paths[1].unlink()
    truncate(paths[4], folder / "half", 0.5)
    (folder / "half").replace(paths[4])
    paths[6].write_bytes(b"this is no video" * 100)
    runs = []
    for threads, prefetch in ((1, 1), (3, 2), (1, 1)):
        with loader_of(corpus, device, threads=threads, prefetch=prefetch, frames=30, size=side) as loader:
            runs.append(kept(loader, 2 * len(loader)))
            bad = loader.stats.bad
            assert set(bad) == {str(paths[i]) for i in (1, 4, 6)}
            assert all(bad.values())
            assert loader.stats.replaced >= 6
    for batch in runs[0]:
        assert not {1, 4, 6} & set(batch.videos.tolist())
        assert [request.video for request in batch.requests] == batch.videos.tolist()
    for other in runs[1:]:
        for a, b in zip(runs[0], other, strict=True):
            assert_same(a, b)


def check_lost_corpus(folder: Path, device: str) -> None:
    """Where no video is left the loader ends with an error that names one, each time it is asked."""
    paths = make_plain(folder, 4, 64)
    corpus = corpus_of(paths)
    for path in paths:
        path.unlink()
    with loader_of(corpus, device, batch_size=2, frames=4) as loader:
        for _ in range(3):
            with pytest.raises(DataError, match=rf"{folder}/\d\.mkv"):
                next(iter(loader))


def check_kept_batches(corpus: Corpus, device: str, views: int) -> None:
    """A batch that is kept does not change while others are made and dropped."""
    requests = [[ClipRequest(i, (View(1, s),) * views) for i in range(3)] for s in range(8)]
    with ClipStream(
        corpus, frames=4, size=32, batch_size=3, views=views, device=device, dtype="uint8", threads=1, prefetch=2
    ) as stream:
        found, copies = [], []
        for batch in stream.map(requests):
            found.append(batch)
            copies.append(batch.clips.clone())
            if len(found) == 2:
                found.pop()
                copies.pop()  # memory that comes free now may be used again, but not the first batch's
    assert torch.equal(found[0].clips, copies[0])
    for batch, copy in zip(found, copies, strict=True):
        assert torch.equal(batch.clips, copy)


def loader_of(corpus: Corpus, device: str, **options: Any) -> SpeedLoader:
    """A loader with small clips and few threads."""
    usual: dict[str, Any] = {"frames": 4, "size": 32, "batch_size": 2, "seed": 5, "threads": 1, "prefetch": 2}
    usual["decoder"] = "dali"  # on a CPU too, as the twin of what a GPU does
    return SpeedLoader(corpus, device=device, **(usual | options))


def requests_of(batches: Iterable[ClipBatch]) -> list[ClipRequest]:
    """All requests of some batches, in order."""
    return [request for batch in batches for request in batch.requests]


def keyed(video: int, position: int, *views: View, seed: int = 0, epoch: int = 0) -> ClipRequest:
    """A request with a place of its own."""
    return ClipRequest(video, views, Key(seed, epoch, position))
