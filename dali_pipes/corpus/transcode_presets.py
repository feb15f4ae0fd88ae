"""How copies are encoded: presets, and what they mean to each encoder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from dali_pipes.errors import DataError

# Bump when the same source and preset give another copy, so that earlier copies are not taken for it.
TRANSCODE_VERSION = 3
SUFFIX = ".mp4"
CODECS = {"h264": "libx264", "hevc": "libx265", "vp9": "libvpx-vp9", "mjpeg": "mjpeg"}
_SPEEDS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo")
# Of about the same quality as the presets' H.264.
_USUAL = {"h264": (21, "veryfast"), "hevc": (20, "veryfast"), "vp9": (24, "5"), "mjpeg": (3, "")}


@dataclass(frozen=True)
class Preset:
    """How to encode.

    Attributes:
        codec: h264, hevc, vp9 or mjpeg.
        short_side: Shorter side of the copy, pixels, never larger than the source's; None: as it is.
        gop: A key frame every so many frames.
        quality: CRF (h264, hevc, vp9) or qscale (mjpeg): less is better.
        speed: The encoder's preset (h264, hevc: "veryfast", ...; vp9: cpu-used, "0" to "8"; mjpeg: of no meaning).
        fps: Constant rate to take the nearest frames at; None: every frame, and the time between them.

    Raises:
        DataError: A value is impossible.
    """

    codec: str = "h264"
    short_side: int | None = 128
    gop: int = 8
    quality: int = 20
    speed: str = "veryfast"
    fps: float | None = None

    def __post_init__(self) -> None:
        if self.codec not in CODECS:
            raise DataError(f"codec={self.codec!r} must be one of {', '.join(CODECS)}")
        if self.short_side is not None and self.short_side < 16:
            raise DataError(f"short_side={self.short_side} must be 16 or more")
        if self.gop < 1:
            raise DataError(f"gop={self.gop} must be 1 or more")
        speeds = {"vp9": tuple("012345678"), "mjpeg": (self.speed,)}.get(self.codec, _SPEEDS)
        if self.speed not in speeds:
            raise DataError(f"speed={self.speed!r} must be one of {', '.join(speeds)} for {self.codec}")
        low, high = {"mjpeg": (2, 31), "vp9": (0, 63)}.get(self.codec, (0, 51))
        if not low <= self.quality <= high:
            raise DataError(f"quality={self.quality} must be {low} to {high} for {self.codec}")
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise DataError(f"fps={self.fps:g} must be more than 0 and at most 1000")


PRESETS = {
    # NVDEC has a least size for each codec and pixels to spare, so this one is for larger crops.
    "gpu": Preset("h264", short_side=256, gop=12, quality=22, speed="veryfast"),
    "cpu": Preset("h264", short_side=128, gop=8, quality=20, speed="veryfast"),
    "tiny": Preset("h264", short_side=112, gop=8, quality=28, speed="superfast"),
}


def changed(preset: Preset, **values: Any) -> Preset:
    """A preset with the values that are not None in place of its own; another codec brings its usual quality and speed.

    Raises:
        DataError: A value is impossible.
    """
    given = {name: value for name, value in values.items() if value is not None}
    if given.get("codec", preset.codec) != preset.codec and given["codec"] in _USUAL:
        quality, speed = _USUAL[given["codec"]]
        given = {"quality": quality, "speed": speed} | given
    return replace(preset, **given)


def encoder_options(preset: Preset) -> dict[str, str]:
    """Encoder options: one packet a frame, in order of presentation, and a clean start every `gop` frames."""
    quality, gop = str(preset.quality), preset.gop
    closed = f"keyint={gop}:min-keyint={gop}:scenecut=0:open-gop=0:bframes=0"
    # Copies are read much more often than written: without CABAC and deblocking they decode in about half the time.
    # What x264 does for human eyes (bits moved to flat areas, grain kept) costs a tenth of the bytes for the same PSNR.
    if preset.codec == "h264":
        return {
            "preset": preset.speed,
            "tune": "psnr,fastdecode",
            "crf": quality,
            "x264-params": f"{closed}:threads=1:sliced-threads=0",
        }
    if preset.codec == "hevc":
        own = "pools=1:frame-threads=1:log-level=none"
        return {"preset": preset.speed, "tune": "fastdecode", "crf": quality, "x265-params": f"{closed}:{own}"}
    if preset.codec == "vp9":
        # Without looking ahead there is nothing to make hidden frames of.
        hidden = {"lag-in-frames": "0", "auto-alt-ref": "0"}
        speed = {"deadline": "good", "cpu-used": preset.speed, "row-mt": "0"}
        return {"crf": quality, "b": "0", "keyint_min": str(gop)} | hidden | speed
    return {"qmin": quality, "qmax": quality}
