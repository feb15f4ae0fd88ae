# ruff: noqa: RUF009  (key and section only make dataclass fields, and each field is made once)
"""The configuration of `ascnet finetune` and `ascnet linear`: every key, its default, its unit and its meaning.

It is read as that of pretraining is: YAML file, `base: other.yaml`, `key=value` on top. The recipes of the literature
are configs/finetune_*.yaml and configs/linear_*.yaml: docs/recognition.md.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from ascnet.config import ALIASES, read_yaml
from ascnet.errors import ConfigError
from ascnet.files import written_whole
from ascnet.settings import build, flatten, key, merge, nearest, plain, section, tables

FOLD = "{fold}"
"""Stands for the number of an official split in `data.corpus`."""


@dataclass
class CropConfig:
    """Random changes of a training clip, the same for all of its frames; colours are not changed."""

    crop_area: tuple[float, float] = key(
        (0.25, 1.0), "Smallest and largest share of the picture that the crop covers.", above=0, at_most=1
    )
    crop_ratio: tuple[float, float] = key((3 / 4, 4 / 3), "Smallest and largest width / height of the crop.", above=0)
    flip: float = key(0.5, "Probability of a horizontal flip.", at_least=0, at_most=1)
    mean: tuple[float, float, float] | None = key(
        None,
        "Subtracted per channel, RGB; null: as the encoder was pretrained, else ImageNet's.",
        at_least=0,
        at_most=1,
    )
    std: tuple[float, float, float] | None = key(None, "Divided by per channel; null: as for mean.", above=0)


@dataclass
class RecogniseData:
    """Which videos are trained on and tested, and which clips of them."""

    corpus: str = key("", "Path of the corpus file; {fold} in it stands for the number of a split (--folds).")
    train_split: str = key("train", "Split to train on.")
    test_split: str = key("test", "Split to test on.")
    frames: int = key(16, "Frames in a clip.", unit="frames", at_least=1)
    size: int = key(112, "Height and width of a clip.", unit="pixels", at_least=8)
    speed: float = key(1.0, "Playback speed.", at_least=0.25, at_most=16)
    fps: float | None = key(None, "Frame rate that 1x means; null: each video's own.", unit="frames/s", above=0)
    short: Literal["loop", "pad"] = key("loop", "What a video shorter than the clip does.")
    batch_size: int = key(32, "Videos in a step of each process.", unit="videos", at_least=1)
    clips_per_video: int = key(1, "Clips of every video in an epoch.", at_least=1)
    threads: int | None = key(None, "Decoding threads; null: one for each core.", at_least=1)
    prefetch: int = key(2, "Batches prepared ahead.", unit="batches", at_least=1)
    augment: CropConfig = section(CropConfig, "Random changes of a training clip.")


@dataclass
class RecogniseModel:
    """Encoder and classifier."""

    checkpoint: str = key("", "Pretrained run, checkpoint or exported encoder; empty: random weights.")
    network: Literal["online", "target"] = key("online", "Copy to take from a checkpoint.")
    encoder: str | None = key(None, "Name in the encoder registry; null: that of the checkpoint.")
    width: float = key(1.0, "Factor on the encoder's channel counts; the checkpoint's where there is one.", above=0)
    options: dict[str, Any] = key({}, "Further arguments of the encoder; the checkpoint's where there is one.")
    frozen: bool = key(False, "Train the classifier alone (ascnet linear); false: all weights (ascnet finetune).")
    dropout: float = key(0.0, "Share of the feature set to 0 in training.", at_least=0, at_most=0.99)
    norm: bool = key(False, "Batch normalisation, without scale and shift, between feature and classifier.")
    sync_norm: bool = key(True, "Normalise over the batches of all processes.")


@dataclass
class RecogniseOptim:
    """Optimiser and learning rate."""

    name: Literal["sgd", "adamw"] = key("sgd", "Optimiser.")
    lr: float = key(0.1, "Peak learning rate.", above=0)
    reference_batch: int | None = key(
        None, "lr is for a total batch of so many videos and is scaled linearly to another; null: lr as it stands.",
        at_least=1,
    )  # fmt: skip
    momentum: float = key(0.9, "Momentum of SGD.", at_least=0, at_most=1)
    weight_decay: float = key(1e-4, "Weight decay, of all parameters.", at_least=0)
    schedule: Literal["cosine", "steps"] = key("cosine", "How the learning rate falls.")
    milestones: tuple[float, ...] = key(
        (50.0, 70.0, 90.0), "Where it falls with schedule steps.", unit="epochs", above=0
    )
    factor: float = key(0.1, "By what it is multiplied there.", above=0, at_most=1)
    warmup_epochs: float = key(0.0, "Length of a linear rise at the beginning.", unit="epochs", at_least=0)
    final_lr_ratio: float = key(0.001, "End of the cosine, as a share of the peak.", at_least=0, at_most=1)
    clip_norm: float | None = key(None, "Largest gradient norm; null: no limit.", above=0)


@dataclass
class ValidationConfig:
    """Choosing a model without looking at the test split."""

    share: float = key(0.1, "Share of the training videos of each class held out; 0: none.", at_least=0, at_most=0.5)
    clips: int = key(1, "Clips a video; one is centred.", at_least=1)
    every: int = key(1, "Epochs between validations; the last epoch has one always.", unit="epochs", at_least=1)


@dataclass
class TestConfig:
    """The test of the model of the last epoch, and of the best one."""

    clips: int = key(10, "Evenly spaced clips a video.", at_least=1)
    crops: int = key(1, "Crops of a clip: 1 (centre), 3 or 10.", at_least=1, at_most=10)
    average: Literal["logits", "softmax"] = key("logits", "What is averaged over clips and crops.")
    batch_size: int = key(40, "Clips in a forward pass; it changes speed, not scores.", at_least=1)


@dataclass
class RecogniseConfig:
    """All settings of a fine-tuning or of a linear classification."""

    data: RecogniseData = section(RecogniseData, "Which videos and clips.")
    model: RecogniseModel = section(RecogniseModel, "Encoder and classifier.")
    optim: RecogniseOptim = section(RecogniseOptim, "Optimiser and learning rate.")
    validation: ValidationConfig = section(ValidationConfig, "Choosing a model.")
    test: TestConfig = section(TestConfig, "The test.")
    protocol: Literal["clean", "rspnet"] = key(
        "clean", "clean: the best model is chosen on held-out training videos. rspnet: on the test split, as published."
    )
    epochs: int = key(30, "Passes over the training videos.", unit="epochs", at_least=1)
    precision: Literal["auto", "bf16", "fp16", "fp32"] = key("auto", "Arithmetic of the encoder.")
    channels_last: bool = key(True, "Keep clips and filters in channels-last order.")
    seed: int = key(0, "Seed of every random draw.", at_least=0)
    device: str = key("auto", "Where to compute, such as cuda:0 or cpu; auto: a GPU where there is one.")
    log_interval: int = key(10, "Steps between writes to metrics.jsonl.", unit="steps", at_least=1)
    checkpoint_interval: int = key(500, "Steps between checkpoints.", unit="steps", at_least=1)
    keep: int = key(1, "Checkpoints kept, the newest.", at_least=1)

    @classmethod
    def load(cls, path: str | os.PathLike[str] | None = None, overrides: Sequence[str] = ()) -> RecogniseConfig:
        """Reads a YAML file and lays `key=value` overrides on top.

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
            # `{fold}` in a path is no YAML mapping.
            try:
                value: Any = text if FOLD in text else yaml.safe_load(text)
            except yaml.YAMLError:
                value = text
            for part in reversed(ALIASES.get(name.strip(), name.strip()).split(".")):
                value = {part: value}
            values = merge(values, value)
            config = cls.from_dict(values, source=override)
        return config

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, source: str = "config") -> RecogniseConfig:
        """A checked configuration from nested mappings.

        Raises:
            ConfigError: For an unknown key or a bad value.
        """
        for name in values:
            if name not in cls.__dataclass_fields__:
                known = [*cls.__dataclass_fields__, *flatten(cls().to_dict())]
                inside = [full for full in known if full.rpartition(".")[2] == name]
                hint = f"; did you mean {inside[0]!r}?" if inside else nearest(str(name), known)
                raise ConfigError(f"{source}: unknown key {str(name)!r}{hint}")
        config = build(cls, values, source=source)
        if config.test.crops not in (1, 3, 10):
            raise ConfigError(f"{source}: test.crops is {config.test.crops}; allowed: 1, 3, 10")
        for name in ("crop_area", "crop_ratio"):
            low, high = getattr(config.data.augment, name)
            if low > high:
                raise ConfigError(f"{source}: data.augment.{name} is [{low:g}, {high:g}]; the smaller value goes first")
        return config

    def to_dict(self) -> dict[str, Any]:
        """Nested dictionaries and lists of plain values; `from_dict` reads them back."""
        return plain(self)

    def to_yaml(self) -> str:
        """Every key with its resolved value."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the resolved configuration as YAML, whole or not at all."""
        with written_whole(path) as temporary:
            temporary.write_text(self.to_yaml(), encoding="utf-8")

    def of_fold(self, fold: int) -> RecogniseConfig:
        """The same with the corpus of one official split.

        Raises:
            ConfigError: If `data.corpus` does not say where the number of the split goes.
        """
        if FOLD not in self.data.corpus:
            raise ConfigError(
                f"--folds: data.corpus is {self.data.corpus!r}; expected {FOLD} where the number of the split goes, "
                f"such as ucf101-{FOLD}.parquet"
            )
        return replace(self, data=replace(self.data, corpus=self.data.corpus.replace(FOLD, str(fold))))


def learning_rate(config: RecogniseOptim, total_batch: int) -> float:
    """Peak learning rate for a total batch."""
    return config.lr if config.reference_batch is None else config.lr * total_batch / config.reference_batch


def reference() -> str:
    """The text of docs/recognition_keys.md: every key with default, values, unit and meaning."""
    return (
        "# Configuration of `ascnet finetune` and `ascnet linear`\n\n"
        "Made from `ascnet/evaluate/recognise_config.py` by `python -m ascnet.evaluate.recognise_config > "
        "docs/recognition_keys.md`;\na test compares them. How the commands are used: "
        "[recognition.md](recognition.md).\n\n" + tables(RecogniseConfig)
    )


if __name__ == "__main__":
    sys.stdout.write(reference())
