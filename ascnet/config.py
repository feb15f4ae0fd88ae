# ruff: noqa: RUF009  (key and section only make dataclass fields, and each field is made once)
"""The configuration of a pretraining run: every key, its default, its unit and its meaning.

YAML file -> nested dataclasses; `key=value` overrides use dotted names (`optim.lr=0.05`). A file may start from another
one with `base: other.yaml`. `python -m ascnet.config` prints docs/configuration.md, which is made from this file.
Defaults that the paper leaves open are discussed in docs/method.md.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from ascnet.errors import ConfigError
from ascnet.settings import build, flatten, key, merge, nearest, plain, section, tables

ALIASES = {"corpus": "data.corpus"}


@dataclass
class AugmentConfig:
    """Random changes of a clip, the same for all of its frames, drawn anew for every clip."""

    crop_area: tuple[float, float] = key(
        (0.4, 1.0), "Smallest and largest share of the picture that the crop covers.", above=0, at_most=1
    )
    crop_ratio: tuple[float, float] = key((3 / 4, 4 / 3), "Smallest and largest width / height of the crop.", above=0)
    flip: float = key(0.5, "Probability of a horizontal flip.", at_least=0, at_most=1)
    brightness: float = key(0.4, "Brightness is multiplied by a factor from [1 - x, 1 + x].", at_least=0, at_most=1)
    contrast: float = key(0.4, "Contrast is multiplied by a factor from [1 - x, 1 + x].", at_least=0, at_most=1)
    saturation: float = key(0.4, "Saturation is multiplied by a factor from [1 - x, 1 + x].", at_least=0, at_most=1)
    hue: float = key(0.4, "Hue is turned by a share of the colour circle from [-x, x].", at_least=0, at_most=0.5)
    jitter: float = key(1.0, "Probability that the four colour changes are made at all.", at_least=0, at_most=1)
    grayscale: float = key(0.2, "Probability that the clip loses its colour.", at_least=0, at_most=1)
    blur: float = key(0.0, "Probability of a Gaussian blur.", at_least=0, at_most=1)
    blur_sigma: tuple[float, float] = key((0.1, 2.0), "Smallest and largest width of the blur.", unit="pixels", above=0)
    mean: tuple[float, float, float] = key(
        (0.485, 0.456, 0.406), "Subtracted per channel, RGB (ImageNet).", at_least=0, at_most=1
    )
    std: tuple[float, float, float] = key((0.229, 0.224, 0.225), "Divided by per channel, RGB (ImageNet).", above=0)


@dataclass
class DataConfig:
    """Which clips are read, and how."""

    corpus: str = key("", "Path of the corpus file that `dali-pipes index` wrote; `corpus` alone means the same key.")
    split: str | None = key("auto", "Split to train on; auto: `train` where the corpus has it, else all; null: all.")
    frames: int = key(16, "Frames in a clip.", unit="frames", at_least=1)
    size: int = key(112, "Height and width of a clip.", unit="pixels", at_least=8)
    speeds: tuple[float, ...] = key(
        (1.0, 2.0),
        "Playback speeds of the two clips of a sample; which of c_i and c_j gets which is a coin flip.",
        at_least=0.25,
        at_most=16,
    )
    window: Literal["independent", "shared", "adjacent", "adjacent(2)"] = key(
        "independent",
        "Two windows of the video; one that holds both clips (fewer frames to decode); or two, the second right behind "
        "the first. `adjacent(2)` says the same as `adjacent`: a sample has two clips.",
    )
    short: Literal["loop", "skip", "pad"] = key(
        "loop", "What a video shorter than the clip does: start over, be left out, or repeat its last frame."
    )
    fps: float | None = key(None, "Frame rate that 1x means; null: each video's own.", unit="frames/s", above=0)
    batch_size: int = key(64, "Samples in a step.", unit="videos", at_least=2)
    clips_per_video: int = key(1, "Samples taken from each video in an epoch.", at_least=1)
    threads: int | None = key(None, "Threads that read and decode on the host; null: one for each core.", at_least=1)
    graph_threads: int | None = key(
        None, "Threads of the DALI graph; null: as threads, on a GPU at most 8.", at_least=1
    )
    processes: bool = key(
        True, "Decode on the host in processes, one for each thread; false: in the threads, which wait for each other."
    )
    prefetch: int = key(2, "Batches prepared ahead.", unit="batches", at_least=1)
    cache: str | None = key(None, "Folder of small copies of the videos, which fills itself; null: none.")
    cache_gb: float = key(100.0, "Most that this folder may hold.", unit="GB", above=0)
    decoder: Literal["auto", "dali", "host"] = key("auto", "Who decodes; auto: chosen by codec and device.")
    augment: AugmentConfig = section(
        AugmentConfig, "Random changes of a clip, the same for all of its frames, drawn anew for every clip."
    )


@dataclass
class ModelConfig:
    """Encoder, projectors and predictors."""

    encoder: str = key("r3d18", "Name in the encoder registry.")
    width: float = key(1.0, "Factor on the encoder's channel counts.", above=0)
    options: dict[str, Any] = key({}, "Further arguments of the encoder, such as {stem_stride: [1, 2, 2]}.")
    init: str | None = key(
        None,
        "Encoder weights to begin with: a run, a checkpoint, imported weights, or a safetensors file; null: random.",
    )
    projector_hidden: int = key(4096, "Hidden units of the projectors g_a and g_m.", at_least=1)
    projector_dim: int = key(256, "Output units of projectors and predictors.", at_least=1)
    projector_norm: bool = key(
        False, "End the projectors with batch normalisation, without scale and shift; helps short runs."
    )
    predictor_hidden: int = key(4096, "Hidden units of the predictors h_a and h_m.", at_least=1)
    normalize: bool = key(True, "Scale both sides of a loss, and bank rows, to length 1; false: raw features.")
    sync_norm: bool | None = key(
        None, "Normalise over the batches of all processes; false: each over its own; null: where there are several."
    )
    checkpoint_activations: bool = key(
        False, "Keep only what enters a block of the online encoder and compute the rest again: slower, less memory."
    )


@dataclass
class EmaConfig:
    """Momentum of the target network: final - (final - momentum) (cos(pi k / K) + 1) / 2 at step k of K."""

    momentum: float = key(0.996, "Momentum at the first step.", at_least=0, at_most=1)
    final: float = key(1.0, "Momentum that the cosine ends at.", at_least=0, at_most=1)


@dataclass
class OptimConfig:
    """Optimiser and learning rate."""

    name: Literal["sgd", "adamw", "lars"] = key("sgd", "Optimiser; lars is for batches of a thousand and more.")
    lr: float = key(0.1, "Peak learning rate, per 64 samples of a batch.", above=0)
    scale_lr: bool = key(True, "Multiply lr by batch_size / 64; false: lr as it stands.")
    momentum: float = key(0.9, "Momentum of SGD and LARS.", at_least=0, at_most=1)
    betas: tuple[float, float] = key((0.9, 0.999), "Decay rates of AdamW's two averages.", at_least=0, at_most=1)
    trust_coefficient: float = key(
        0.001, "LARS: the length of a step, before momentum, is lr times this share of a parameter's own.", above=0
    )
    weight_decay: float = key(1e-4, "Weight decay.", at_least=0)
    weight_decay_groups: dict[str, Any] = key(
        {},
        "Weight decay of parts of the model, such as {encoder: 1e-4, heads: 0}: encoder, heads, projectors, "
        "predictors, or the beginning of parameters' names; the most exact one counts.",
    )
    decay_all: bool = key(
        True, "Decay every parameter; false: biases and normalisation scales are left out (with lars they always are)."
    )
    warmup_epochs: float = key(0.0, "Length of the linear rise of the learning rate.", unit="epochs", at_least=0)
    warmup_start: float = key(0.0, "Share of the peak that this rise starts from.", at_least=0, at_most=1)
    final_lr_ratio: float = key(
        0.001, "Learning rate at the end of the cosine, as a share of the peak.", at_least=0, at_most=1
    )
    clip_norm: float | None = key(
        None, "Largest gradient norm, longer gradients are shortened; null: no limit.", above=0
    )
    accumulate: int = key(
        1, "Parts that a batch is trained on in, one after another; batch normalisation sees a part.", at_least=1
    )
    max_skipped: int = key(
        10,
        "Steps in a row that are skipped because their loss or gradient is not finite; one more ends the run.",
        at_least=0,
    )


@dataclass
class RetrievalConfig:
    """The memory bank and the positives that it gives."""

    lookahead: int = key(
        1,
        "Steps between the search for a positive and its use; 0: Algorithm 1 to the letter, the "
        "step waits for the decoder.",
        unit="steps",
        at_least=0,
    )
    topk: int = key(1, "A positive is drawn from this many nearest videos.", at_least=1)
    exclude: Literal["self", "group"] = key(
        "self", "Videos that are never a sample's positive: itself, or all of its group (clips cut from one recording)."
    )
    source: Literal["online", "target"] = key(
        "online", "Network whose appearance feature fills the bank: online of c_i (as printed) or target of c_j."
    )
    positive: Literal["nearest", "random"] = key(
        "nearest", "Positive from the nearest videos, or any other video (an ablation)."
    )
    momentum: float = key(
        0.0, "Share of its old value that a bank row keeps when its video is seen again.", at_least=0, at_most=1
    )
    dtype: Literal["fp32", "fp16"] = key("fp32", "Number format of the bank.")
    placement: Literal["replicated", "sharded"] = key(
        "replicated", "With several processes: the whole bank in each of them, or a share of its rows in each."
    )
    budget_mb: float = key(256.0, "Largest temporary memory of a search.", unit="MiB", above=0)


@dataclass
class LogConfig:
    """What is written while training."""

    interval: int = key(
        10,
        "Steps between writes to metrics.jsonl and TensorBoard and between lines on the screen; "
        "every step is recorded.",
        unit="steps",
        at_least=1,
    )
    tensorboard: bool = key(True, "Write TensorBoard event files as well.")
    wandb: str | None = key(
        None,
        "Write to this project of Weights & Biases as well (extra `wandb`); null: no. WANDB_MODE=offline: no network.",
    )
    monitor: float | None = key(
        1.0, "Time between looks at the load of GPU, decoder and CPU; null: none.", unit="seconds", at_least=0.05
    )
    profile: tuple[int, int] | None = key(
        None, "First and last step of a Chrome trace with the parts of a step named; null: none.", at_least=1
    )
    collapse_std: float = key(
        0.1,
        "Warn when feature_std falls below this (1: features spread over the whole sphere, 0: all alike).",
        at_least=0,
        at_most=1,
    )


@dataclass
class EvalConfig:
    """Classification by nearest neighbours while training, of labelled videos."""

    every: int | None = key(
        None,
        "Steps between two looks; recorded as knn/top1, knn/top5 and knn/majority; null: none.",
        unit="steps",
        at_least=1,
    )
    videos: int = key(2000, "Most videos to classify, and as many to vote.", unit="videos", at_least=2)


@dataclass
class CheckpointConfig:
    """When checkpoints are written; one is always written at the end and when the run is interrupted."""

    interval: int = key(1000, "Steps between checkpoints.", unit="steps", at_least=1)
    keep: int = key(2, "Checkpoints kept, the newest; last.pt is always the newest of them.", at_least=1)


@dataclass
class Config:
    """All settings of a pretraining run (METHOD: ASCNet, Algorithm 1)."""

    data: DataConfig = section(DataConfig, "Which clips are read, and how.")
    model: ModelConfig = section(ModelConfig, "Encoder, projectors and predictors.")
    gamma: float = key(
        0.5,
        "Weight of the speed loss: L = gamma L_m + (1 - gamma) L_a; 0: appearance alone, nothing is retrieved.",
        at_least=0,
        at_most=1,
    )
    symmetric: bool = key(False, "Let c_i and c_j change roles as well and average both losses (twice the work).")
    ema: EmaConfig = section(
        EmaConfig,
        "Momentum of the target network: `final - (final - momentum) (cos(pi k / K) + 1) / 2` at step k of K.",
    )
    optim: OptimConfig = section(OptimConfig, "Optimiser and learning rate.")
    retrieval: RetrievalConfig = section(RetrievalConfig, "The memory bank and the positives that it gives.")
    epochs: int = key(200, "Passes over the videos.", unit="epochs", at_least=1)
    steps: int | None = key(
        None,
        "Ends the run, and its schedules, after this many steps where that is sooner than `epochs`; null: no limit.",
        unit="steps",
        at_least=1,
    )
    precision: Literal["auto", "bf16", "fp16", "fp32", "fp64"] = key(
        "auto",
        "Arithmetic of the encoder; heads and losses are never below fp32. auto: bf16 where the device has units for "
        "it (newer GPUs, CPUs with AMX), else fp32; "
        "fp16 scales the loss; fp64 is for checks.",
    )
    compile: bool = key(False, "Compile the encoders with torch.compile; the first steps take minutes.")
    channels_last: bool = key(True, "Keep clips and filters in channels-last order (faster convolutions).")
    deterministic: bool = key(False, "Only use operations that repeat bit for bit on a GPU (slower).")
    seed: int = key(0, "Seed of every random draw.", at_least=0)
    device: str = key("auto", "Where to train, such as cuda:0 or cpu; auto: a GPU where there is one.")
    log: LogConfig = section(LogConfig, "What is written while training.")
    eval: EvalConfig = section(
        EvalConfig,
        "Classification by nearest neighbours while training: of split `val`, else of the training videos, each "
        "without its own group; never of the test split (docs/recognition.md).",
    )
    checkpoint: CheckpointConfig = section(
        CheckpointConfig,
        "When checkpoints are written; one is always written at the end and when the run is interrupted.",
    )

    @property
    def corpus(self) -> str:
        """Short for `data.corpus`."""
        return self.data.corpus

    @classmethod
    def load(cls, path: str | os.PathLike[str] | None = None, overrides: Sequence[str] = ()) -> Config:
        """Reads a YAML file and lays `key=value` overrides on top.

        Args:
            path: The file; None starts from the defaults.
            overrides: Such as `["epochs=2", "optim.lr=0.05", "data.speeds=1,2"]`.

        Raises:
            ConfigError: Naming the file or override, the key, the value and what would be right.
        """
        values = read_yaml(Path(path)) if path is not None else {}
        # The file is checked alone first, so that a mistake in it is not blamed on the command line.
        config = cls.from_dict(values, source=str(path) if path is not None else "defaults")
        for override in overrides:
            name, sign, text = override.partition("=")
            if not sign or not name.strip():
                raise ConfigError(f"{override!r}: expected key=value, such as optim.lr=0.05")
            try:
                value = yaml.safe_load(text)
            except yaml.YAMLError:
                value = text
            values = merge(values, _nested(ALIASES.get(name.strip(), name.strip()), value))
            config = cls.from_dict(values, source=override)
        return config

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, source: str = "config") -> Config:
        """A checked configuration from nested mappings; unknown keys and bad values raise `ConfigError`."""
        values = dict(values)
        for alias, name in ALIASES.items():
            if alias in values:
                values = merge(values, _nested(name, values.pop(alias)))
        for name in values:
            if name not in cls.__dataclass_fields__:
                # A key given without its section is the commonest slip, so all dotted names are candidates.
                known = [*cls.__dataclass_fields__, *ALIASES, *flatten(cls().to_dict())]
                inside = [full for full in known if full.rpartition(".")[2] == name]
                hint = f"; did you mean {inside[0]!r}?" if inside else nearest(str(name), known)
                raise ConfigError(f"{source}: unknown key {str(name)!r}{hint}")
        config = build(cls, values, source=source)
        config._check(source)
        return config

    def _check(self, source: str) -> None:
        if self.data.batch_size < 2 * self.optim.accumulate:
            raise ConfigError(
                f"{source}: optim.accumulate is {self.optim.accumulate}; each part of a batch needs at least 2 samples "
                f"of the {self.data.batch_size} in data.batch_size"
            )
        if len(self.data.speeds) != 2:
            raise ConfigError(f"{source}: data.speeds is {list(self.data.speeds)}; expected two speeds, such as [1, 2]")
        for name in ("crop_area", "crop_ratio", "blur_sigma"):
            low, high = getattr(self.data.augment, name)
            if low > high:
                raise ConfigError(f"{source}: data.augment.{name} is [{low:g}, {high:g}]; the smaller value goes first")
        if self.log.profile is not None and self.log.profile[0] > self.log.profile[1]:
            raise ConfigError(f"{source}: log.profile is {list(self.log.profile)}; the first step goes first")

    def to_dict(self) -> dict[str, Any]:
        """Nested dictionaries and lists of plain values; `from_dict` reads them back."""
        return plain(self)

    def to_yaml(self) -> str:
        """Every key with its resolved value."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the resolved configuration as YAML, whole or not at all."""
        target = Path(path)
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        temporary.write_text(self.to_yaml(), encoding="utf-8")
        os.replace(temporary, target)


def _nested(name: str, value: Any) -> dict[str, Any]:
    for part in reversed(name.split(".")):
        value = {part: value}
    return value


def read_yaml(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The mapping in a YAML file, laid over the one that its `base` names; raises a ConfigError naming the file."""
    if path.resolve() in seen:
        raise ConfigError(f"{path}: `base` leads back to this file")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a YAML file: {' '.join(str(error).split())}") from None
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected `key: value` lines, got {type(values).__name__}")
    base = values.pop("base", None)
    for alias, name in ALIASES.items():
        if alias in values:
            values = merge(values, _nested(name, values.pop(alias)))
    return merge(read_yaml(path.parent / str(base), (*seen, path.resolve())), values) if base is not None else values


def reference() -> str:
    """The text of docs/configuration.md: every key with default, values, unit and meaning."""
    return (
        "# Configuration of `ascnet pretrain`\n\n"
        "Made from `ascnet/config.py` by `python -m ascnet.config > docs/configuration.md`; a test compares them.\n"
        "A YAML file nests the sections; on the command line the names are dotted, as here: `optim.lr=0.05`.\n"
        "`corpus=...` is short for `data.corpus=...`; `base: other.yaml` at the top of a file starts from it.\n\n"
        + tables(Config)
    )


if __name__ == "__main__":
    sys.stdout.write(reference())
