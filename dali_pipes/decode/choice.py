"""Which decoder for which video, and why. Nothing falls back in silence: every choice carries its reason.

On a GPU DALI decodes with NVDEC (device "mixed"), and what that does not take is decoded on the host, from where the
graph goes on with raw frames. Without a GPU the host decodes everything: DALI's CPU decoder takes three codecs, and
longer for VP9 and MJPEG (docs/results.md); ``decoder="dali"`` insists on it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from dali_pipes.errors import DataError

if TYPE_CHECKING:
    from dali_pipes.corpus import Corpus, Video

Decoder = Literal["auto", "dali", "host"]

# DALI 2.4's CPU decoder is built with these three alone.
CPU_CODECS = ("vp8", "vp9", "mjpeg")
# Smallest picture that NVDEC decodes, by codec (Video Codec SDK, decoder capabilities). AV1 is left out: A100, H100 and
# H200 have no AV1 engine. MJPEG is left out: it goes to the GPU's JPEG engine, which takes still pictures only.
GPU_CODECS = {"h264": (48, 16), "hevc": (144, 144), "mpeg4": (48, 16), "vp8": (48, 16), "vp9": (128, 128)}
PLAIN_FORMATS = ("yuv420p", "yuvj420p")


@dataclass(frozen=True)
class Choice:
    """A decoder and the reason for it.

    Attributes:
        decoder: ``dali`` or ``host``.
        reason: Why, in words.
    """

    decoder: Literal["dali", "host"]
    reason: str


def choose(video: Video, device: str, decoder: Decoder = "auto") -> Choice:
    """The decoder for one video.

    Args:
        video: What the probe found.
        device: ``cpu`` or ``gpu``: where the graph runs.
        decoder: ``auto``: the quickest that gives the right frames. ``dali``: DALI wherever it can, on a CPU too; what
            it cannot decode still goes to the host. ``host``: the host, always.
    """
    if decoder not in get_args(Decoder):
        raise DataError(f"decoder={decoder!r} must be one of {', '.join(get_args(Decoder))}")
    if decoder == "host":
        return Choice("host", "decoder='host' was asked for")
    obstacle = _obstacle(video, device)
    if obstacle:
        return Choice("host", obstacle)
    if device == "cpu" and decoder == "auto":
        return Choice("host", "quicker than DALI's CPU decoder")
    return Choice("dali", "NVDEC" if device == "gpu" else "DALI's CPU decoder")


def _obstacle(video: Video, device: str) -> str:
    """Why DALI cannot decode a video on a device; empty if it can."""
    known = GPU_CODECS if device == "gpu" else CPU_CODECS
    if video.codec not in known:
        where = "GPU" if device == "gpu" else "CPU"
        return f"DALI's {where} decoder does not take {video.codec} (it takes {', '.join(known)})"
    if video.pixel_format not in PLAIN_FORMATS:
        return f"pixel format {video.pixel_format} is not 8-bit 4:2:0"
    if not video.uniform:
        return "the picture's size or format changes within the video"
    if video.rotation:
        return f"the picture is rotated by {video.rotation} degrees, which DALI's decoder does not undo"
    if video.numbering != "pts":
        return "the container stores no usable presentation time stamps"
    if not video.sliceable:
        return "its packets are not its frames (hidden frames, edit lists, damage, starts that are no clean ones)"
    if device == "gpu":
        width, height = GPU_CODECS[video.codec]
        if video.width < width or video.height < height:
            return f"NVDEC decodes {video.codec} from {width}x{height} up; this is {video.width}x{video.height}"
    return ""


def survey(corpus: Corpus, device: str, decoder: Decoder = "auto") -> dict[Choice, int]:
    """Counts the usable videos of a corpus by the decoder they would get."""
    # Only these columns decide, so each of their combinations is looked at once: a corpus has few.
    names = ("codec", "pixel_format", "uniform", "sliceable", "rotation", "numbering", "width", "height")
    counts: Counter[Choice] = Counter()
    for first, count in corpus.combinations(names):
        counts[choose(corpus[first], device, decoder)] += count
    return dict(counts)
