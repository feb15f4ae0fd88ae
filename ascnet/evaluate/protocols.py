"""The protocol card: everything that a retrieval score depends on besides the weights, printed with each score."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from ascnet.errors import UserError
from ascnet.evaluate.retrieve import KS

Precision = Literal["fp32", "bf16", "fp16"]
Crop = Literal["centre", "vcop", "coclr"]
Pool = Literal["average", "max"]
Role = Literal["query", "gallery"]

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

PROTOCOLS: dict[str, dict[str, Any]] = {
    "clean": {},
    # Batches of 8: its configuration of retrieval with the 3D R18.
    "rspnet": {"augmented_gallery": True, "gallery_batch": 8, "shuffled": True},
    "vcop": {
        "size": 112, "crop": "vcop", "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "pool": "max",
        "rounding": "down", "query_batch": 8, "gallery_batch": 8,
    },
    "coclr": {"size": 128, "crop": "coclr", "center": "split"},
}  # fmt: skip
"""What each published protocol does otherwise than `clean`; docs/evaluation.md says where each was found."""

NOT_REPEATED: dict[str, tuple[str, ...]] = {
    "rspnet": ("its random numbers",),
    "coclr": (
        "clips that overlap by half, as many as fit, in place of a fixed number",
        "colours changed at random in 30 % of the clips",
        "videos of half a clip and shorter left out, and those shorter than a clip filled up at the front",
    ),
}
"""What the published code of a protocol does besides, and is not done here."""

AREA, FLIP = (0.25, 1.0), 0.5
"""The training transform of RSPNet's fine-tuning, which its gallery goes through."""


@dataclass(frozen=True)
class Protocol:
    """How videos become features and features become scores.

    The defaults are the protocol `clean`: RSPNet's (AAAI 2021), on which ASCNet's table rests, without what its code
    does to the gallery alone: 10 evenly spaced clips at 1x, square centre crop, average-pooled last feature map, mean
    over clips, cosine similarity, test videos against training videos.

    Attributes:
        name: A key of `PROTOCOLS`, for the card; the settings themselves are in the other attributes.
        frames: Frames per clip.
        size: Edge of the square clip, pixels.
        clips: Clips per video.
        speed: Playback speed of the clips.
        fps: Reference frame rate of 1x; None: each video's own.
        short: What a video shorter than a clip does: ``loop`` or ``pad``.
        center: Whether the gallery's mean feature is subtracted from all before comparing; ``split``: from the queries
            their own mean and from the gallery its own.
        mean: Subtracted per channel, RGB in [0, 1]; ImageNet's, or what the encoder was trained with.
        std: Divided by per channel.
        precision: Number format of the encoder's forward pass.
        query_split: Split of the queries; "" is the whole corpus.
        gallery_split: Split of the gallery; "" is the whole corpus. A video is never its own neighbour.
        ks: Which R@k; a k beyond the gallery's size counts the whole gallery.
        crop: ``centre``: the largest centred square; ``vcop``: 112 x 112 pixels in the middle of the picture squeezed
            to 171 x 128; ``coclr``: a centred square of 224/240 of the shorter side. All are scaled to `size`.
        pool: ``average`` over the last feature map, or ``max`` over 2 x 2 places of each time step and the rest one
            after another.
        rounding: Of the evenly spaced first frames: ``nearest`` or ``down``.
        augmented_gallery: Whether the clips of the gallery are cropped at random and flipped, as in training.
        query_batch: The last queries are dropped that do not fill a batch of so many; 0: none.
        gallery_batch: The same for the gallery.
        shuffled: Whether it is random videos of the gallery that are dropped, and not the last of the corpus.
        seed: Of the crops, flips and dropped videos of the gallery.
    """

    name: str = "clean"
    frames: int = 16
    size: int = 112
    clips: int = 10
    speed: float = 1.0
    fps: float | None = None
    short: Literal["loop", "pad"] = "loop"
    center: bool | Literal["split"] = False
    mean: tuple[float, float, float] = IMAGENET[0]
    std: tuple[float, float, float] = IMAGENET[1]
    precision: Precision = "fp32"
    query_split: str = "test"
    gallery_split: str = "train"
    ks: tuple[int, ...] = KS
    crop: Crop = "centre"
    pool: Pool = "average"
    rounding: Literal["nearest", "down"] = "nearest"
    augmented_gallery: bool = False
    query_batch: int = 0
    gallery_batch: int = 0
    shuffled: bool = False
    seed: int = 0

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
        for name, allowed in (("precision", Precision), ("crop", Crop), ("pool", Pool)):
            if getattr(self, name) not in get_args(allowed):
                raise UserError(f"{name}={getattr(self, name)!r} must be one of {', '.join(get_args(allowed))}")
        if self.name not in PROTOCOLS:
            raise UserError(f"protocol={self.name!r} must be one of {', '.join(PROTOCOLS)}")
        if not self.ks or min(self.ks) < 1:
            raise UserError(f"ks={self.ks} must be one or more numbers from 1 up")

    @classmethod
    def named(cls, name: str, **changes: Any) -> Protocol:
        """A published protocol, with further changes.

        Raises:
            UserError: There is none of that name.
        """
        return cls(**{"name": name, **PROTOCOLS.get(name, {}), **changes})

    def card(self) -> str:
        """The protocol in a sentence, as it stands below a table; how it differs from `clean` and from its own code."""
        rate = "" if self.fps is None else f", 1x = {self.fps:g} frames/s"
        colours = "" if (self.mean, self.std) == IMAGENET else f", normalised by {list(self.mean)} and {list(self.std)}"
        query, gallery = self.query_split or "all", self.gallery_split or "all"
        pooled = {
            "average": "average-pooled last feature map",
            "max": "last feature map, max-pooled 1 x 2 x 2 and flat",
        }
        centred = {False: "", True: ", minus the mean of the gallery", "split": ", minus the mean of its split"}
        sentence = (
            f"protocol {self.name}: {query} videos against {gallery} videos; {self.clips} evenly spaced clips a video, "
            f"{self.frames} frames at {self.speed:g}x{rate}, {self.size} x {self.size} {_CROPS[self.crop]}{colours}, "
            f"short videos {self.short}; {pooled[self.pool]}, mean over clips{centred[self.center]}; cosine; "
            f"{self.precision}"
        )
        for words, told in (("Unlike clean", self.differences()), ("Not repeated of its code", self.not_repeated)):
            sentence += f". {words}: {'; '.join(told)}" if told else ""
        return sentence

    @property
    def not_repeated(self) -> tuple[str, ...]:
        """What the published code of this protocol does besides, in words."""
        return NOT_REPEATED.get(self.name, ())

    def differences(self) -> list[str]:
        """What is done otherwise than in the protocol `clean`, in words; clip, colours and splits may be anyone's."""
        told = []
        if self.crop != "centre":
            told.append(f"{_CROPS[self.crop]} in place of the largest centred square")
        if self.crop == "vcop" and self.mean == (0, 0, 0) and self.std == (1, 1, 1):
            told.append("colours from 0 to 1, not normalised")
        if self.rounding == "down":
            told.append("first frames of clips rounded down")
        if self.augmented_gallery:
            told.append(
                f"gallery clips cropped at random (area {AREA[0]:g} to {AREA[1]:g}) and flipped with probability "
                f"{FLIP:g}, seed {self.seed}"
            )
        if self.pool == "max":
            told.append("feature map max-pooled 1 x 2 x 2 and flattened in place of averaged")
        if self.center == "split":
            told.append("queries minus their mean, gallery minus its own, scaled to length 1, dot product")
        elif self.center:
            told.append("the gallery's mean subtracted")
        for who, batch in (("queries", self.query_batch), ("gallery", self.gallery_batch)):
            if batch:
                which = "shuffled, " if self.shuffled and who == "gallery" else ""
                told.append(f"{who} {which}without the last incomplete batch of {batch}")
        return told

    def recipe(self, role: Role) -> dict[str, Any]:
        """What the feature of a video depends on besides the weights: two protocols with equal ones share features."""
        common = ("frames", "size", "clips", "speed", "fps", "short", "mean", "std", "precision", "crop", "pool")
        recipe = {name: getattr(self, name) for name in (*common, "rounding")}
        if role == "gallery" and self.augmented_gallery:
            recipe |= {"area": AREA, "flip": FLIP, "seed": self.seed}
        return recipe

    def as_dict(self) -> dict[str, Any]:
        """All settings, for JSON."""
        told = {"differences": self.differences(), "not_repeated": list(self.not_repeated)}
        return asdict(self) | {"clip_mean": True, "measure": "cosine"} | told


_CROPS = {
    "centre": "centre crop",
    "vcop": "middle 112 x 112 of the picture squeezed to 171 x 128",
    "coclr": "centred square of 224/240 of the shorter side",
}
