"""The protocol card: everything that a retrieval score depends on besides the weights, printed with each score."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from ascnet.errors import UserError
from ascnet.evaluate.retrieve import KS

Precision = Literal["fp32", "bf16", "fp16"]

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Protocol:
    """How videos become features and features become scores.

    The defaults are the protocol of RSPNet (AAAI 2021), which ASCNet's table uses: 10 evenly spaced clips at 1x, square
    centre crop, average-pooled last feature map, mean over clips, cosine similarity, test videos against training
    videos.

    Attributes:
        frames: Frames per clip.
        size: Edge of the square clip, pixels.
        clips: Clips per video.
        speed: Playback speed of the clips.
        fps: Reference frame rate of 1x; None: each video's own.
        short: What a video shorter than a clip does: ``loop`` or ``pad``.
        center: Whether the gallery's mean feature is subtracted before comparing. Not part of the published protocol.
        mean: Subtracted per channel, RGB in [0, 1]; ImageNet's, or what the encoder was trained with.
        std: Divided by per channel.
        precision: Number format of the encoder's forward pass.
        query_split: Split of the queries; "" is the whole corpus.
        gallery_split: Split of the gallery; "" is the whole corpus. A video is never its own neighbour.
        ks: Which R@k; a k beyond the gallery's size counts the whole gallery.
    """

    frames: int = 16
    size: int = 112
    clips: int = 10
    speed: float = 1.0
    fps: float | None = None
    short: Literal["loop", "pad"] = "loop"
    center: bool = False
    mean: tuple[float, float, float] = IMAGENET[0]
    std: tuple[float, float, float] = IMAGENET[1]
    precision: Precision = "fp32"
    query_split: str = "test"
    gallery_split: str = "train"
    ks: tuple[int, ...] = KS

    def __post_init__(self) -> None:
        for name in ("frames", "size", "clips"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} must be at least 1")
        if not self.speed > 0:
            raise UserError(f"speed={self.speed} must be positive")
        if self.short not in ("loop", "pad"):
            raise UserError(f"short={self.short!r} must be loop or pad: a video left out would not be scored")
        if min(self.std) <= 0:
            raise UserError(f"std={list(self.std)} must be positive")
        if self.precision not in ("fp32", "bf16", "fp16"):
            raise UserError(f"precision={self.precision!r} must be one of fp32, bf16, fp16")
        if not self.ks or min(self.ks) < 1:
            raise UserError(f"ks={self.ks} must be one or more numbers from 1 up")

    def card(self) -> str:
        """The protocol in one sentence, as it stands below a table."""
        rate = "" if self.fps is None else f", 1x = {self.fps:g} frames/s"
        centred = ", minus the mean of the gallery" if self.center else ""
        colours = "" if (self.mean, self.std) == IMAGENET else f", normalised by {list(self.mean)} and {list(self.std)}"
        query, gallery = self.query_split or "all", self.gallery_split or "all"
        return (
            f"{query} videos against {gallery} videos; {self.clips} evenly spaced clips a video, {self.frames} frames "
            f"at {self.speed:g}x{rate}, {self.size} x {self.size} centre crop{colours}, short videos {self.short}; "
            f"average-pooled last feature map, mean over clips{centred}; cosine; "
            f"{self.precision}"
        )

    def as_dict(self) -> dict[str, Any]:
        """All settings, for JSON."""
        return asdict(self) | {"crop": "centre", "pool": "average", "clip_mean": True, "measure": "cosine"}
