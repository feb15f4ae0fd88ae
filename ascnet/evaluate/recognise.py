"""Action recognition: a classifier on an encoder, fine-tuned or linear, from videos to scores of the test split.

    result = recognise(RecogniseConfig.load("configs/finetune_ucf101_r3d18.yaml"), corpus, Path("runs/finetune"))

The model to test is chosen on videos held out of training, never on the test split (`protocol: clean`); the model of
the last epoch is tested too. A run that was stopped and resumed makes the same steps as one that was not.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ascnet import checkpoint
from ascnet.encoders import Encoder, build_encoder
from ascnet.errors import ConfigError, UserError
from ascnet.evaluate.classifier import Classifier
from ascnet.evaluate.clip_scores import PLAIN
from ascnet.evaluate.holdout import with_holdout
from ascnet.evaluate.recognise_config import RecogniseConfig
from ascnet.evaluate.recognise_job import Job, Say, say_first
from ascnet.evaluate.recognise_report import card, write_results
from ascnet.evaluate.recognise_state import RecogniseState, check_same
from ascnet.evaluate.recognise_step import build_optimizer
from ascnet.parallel.distributed import World, restarted
from ascnet.parallel.sync_norm import synchronise
from ascnet.precision import Precision
from ascnet.training.interrupt import REASONS, TimeLimit, catch_interrupts
from ascnet.training.saved_run import check_new
from ascnet.weights import load_encoder
from dali_pipes import Augment, Corpus, SpeedLoader


def recognise(
    config: RecogniseConfig,
    corpus: Corpus,
    out: str | Path,
    *,
    resume: bool = False,
    max_minutes: float | None = None,
    notes: dict[str, Any] | None = None,
    say: Say = print,
    progress: bool = True,
) -> dict[str, Any]:
    """Trains a classifier and tests it.

    Writes to `out`: config.yaml, checkpoints/ (last.pt, best.pt), metrics.jsonl, recognition.json, and for each tested
    model confusion_NAME.json and .png. Of several processes the first one writes.

    Args:
        config: All settings.
        corpus: Videos with labels, a train and a test split.
        out: Folder of the run.
        resume: Go on from the newest checkpoint of `out`, if any.
        max_minutes: Stop and save before so much time is over.
        notes: Further entries of the protocol card, such as the fold.
        say: Shows a line.
        progress: Whether to show progress.

    Returns:
        What recognition.json holds, with `stopped_by` ("SIGINT", "SIGTERM", "time limit" or None); without scores
        where the run was stopped.

    Raises:
        ConfigError: If the settings cannot be used here.
        CheckpointError: If `out` holds a run and `resume` is not set, or its checkpoint does not fit.
        TrainingError: If the loss is no longer a finite number.
        UserError: If the corpus lacks labels or splits.
    """
    run, limit = Path(out), TimeLimit(max_minutes, time.monotonic())
    with World.join(config.device) as world, ExitStack() as stack:
        precision = Precision(config.precision, world.device)
        there = world.share(partial(check_new, run, resume or restarted()))
        with world.together():
            path = run / "checkpoints" / "last.pt"
            saved = checkpoint.load(path) if there else None
            encoder, pretrained = _encoder(config, saved)
            config = resolve(config, pretrained)
            torch.manual_seed(config.seed)
            encoder = encoder or build_encoder(str(config.model.encoder), config.model.width, **config.model.options)
            share = config.validation.share if config.protocol == "clean" else 0.0
            videos, held = with_holdout(corpus, config.data.train_split, share, config.seed)
            tested = _labelled(corpus, config.data.test_split)
            if saved is not None:
                check_same(saved, config, videos, path)
            if world.is_first:
                run.mkdir(parents=True, exist_ok=True)
                config.save(run / "config.yaml")
            loader = stack.enter_context(_loader(config, videos, world, precision))
        interrupt = stack.enter_context(catch_interrupts())
        classifier = Classifier(
            encoder,
            len(corpus.classes),
            frozen=config.model.frozen,
            dropout=config.model.dropout,
            norm=config.model.norm,
        ).to(world.device)
        layout = torch.channels_last_3d if config.channels_last else torch.contiguous_format
        classifier = cast(nn.Module, classifier).to(memory_format=layout)  # type: ignore[call-overload]
        if world.size > 1 and config.model.sync_norm:
            synchronise(classifier, world.device, world.host if world.device.type == "cpu" else None)
        classifier.train()
        scaler = torch.amp.GradScaler(world.device.type, enabled=precision.name == "fp16")
        optimizer = build_optimizer(classifier, config.optim)
        state = RecogniseState(config, pretrained, videos, world, classifier, optimizer, scaler, loader)
        with world.together():
            if saved is not None:
                state.restore(saved)
        resumed, saved = saved is not None, None
        job = Job(state, precision, layout, config, corpus, held, tested, run, stack, say, progress)
        job.announce(resumed)

        def reason() -> int:
            return REASONS.index("time limit" if limit.reached() else interrupt.name)

        stopped = job.train(reason, limit, resumed)
        if stopped:
            say_first(world, say, f"{REASONS[stopped]}: stopped after step {state.step}; --resume goes on")
            return {"out": str(run), "stopped_by": REASONS[stopped], "step": state.step}
        found = job.test(lambda: world.size == 1 and bool(reason()))
        if found is None:
            say_first(world, say, f"{REASONS[reason()]}: stopped in the test; --resume begins it again")
            return {"out": str(run), "stopped_by": REASONS[reason()], "step": state.step}
        result = {
            "protocol": card(config, corpus, len(loader.sampler.videos), held, tested, world.size) | (notes or {}),
            "config": config.to_dict(),
            **found,
            "history": state.history,
            "stopped_by": None,
            "out": str(run),
        }
        if world.is_first:
            write_results(run, result, corpus.classes, say)
    return result


def resolve(config: RecogniseConfig, pretrained: dict[str, Any] | None) -> RecogniseConfig:
    """The settings with what the encoder's own run says put in: its architecture and how it normalises colours.

    Raises:
        ConfigError: If the settings are for another encoder, or there is neither a checkpoint nor an encoder's name.
    """
    model, augment = config.model, config.data.augment
    mean, std = PLAIN.mean, PLAIN.std
    if pretrained is not None:
        there = pretrained["model"]
        if model.encoder not in (None, there["encoder"]):
            raise ConfigError(
                f"model.encoder is {model.encoder!r}, and {model.checkpoint or 'the checkpoint'} holds "
                f"{there['encoder']!r}; take the configuration of that encoder, or set model.encoder={there['encoder']}"
            )
        model = replace(model, encoder=there["encoder"], width=there["width"], options=dict(there["options"]))
        colours = pretrained.get("data", {}).get("augment", {})
        mean, std = tuple(colours.get("mean", mean)), tuple(colours.get("std", std))
    elif model.encoder is None:
        raise ConfigError("model.encoder is null and there is no --checkpoint; name an encoder, such as r3d18")
    augment = replace(augment, mean=augment.mean or mean, std=augment.std or std)
    return replace(config, model=model, data=replace(config.data, augment=augment))


def _encoder(config: RecogniseConfig, saved: dict[str, Any] | None) -> tuple[Encoder | None, dict[str, Any] | None]:
    """The pretrained encoder, None where it is still to be built, and the settings it was pretrained with."""
    if saved is not None:
        # The run's own checkpoint has the weights; the encoder's file may be gone.
        return None, saved.get("pretrained")
    if not config.model.checkpoint:
        return None, None
    encoder = load_encoder(config.model.checkpoint, network=config.model.network)
    return encoder, {name: encoder.config[name] for name in ("model", "data") if name in (encoder.config or {})}  # type: ignore[index]


def _labelled(corpus: Corpus, split: str) -> NDArray[np.int64]:
    rows = np.asarray(corpus.select(split), np.int64)
    rows = rows[corpus.labels[rows] >= 0]
    if not len(rows):
        raise UserError(f"no video of split {split!r} has a label, so nothing can be tested")
    return rows


def _loader(config: RecogniseConfig, videos: Corpus, world: World, precision: Precision) -> SpeedLoader:
    data, crop = config.data, config.data.augment
    assert crop.mean is not None and crop.std is not None
    return SpeedLoader(
        videos,
        frames=data.frames,
        size=data.size,
        speeds=(data.speed,),
        batch_size=data.batch_size,
        device=str(world.device),
        seed=config.seed,
        rank=world.rank,
        world_size=world.size,
        split=data.train_split,
        short=data.short,
        fps=data.fps,
        clips_per_video=data.clips_per_video,
        augment=Augment(
            crop_area=crop.crop_area, crop_ratio=crop.crop_ratio, flip=crop.flip, brightness=0, contrast=0,
            saturation=0, hue=0, jitter=0, grayscale=0, mean=crop.mean, std=crop.std,
        ),
        dtype="float16" if precision.name in ("bf16", "fp16") else "float32",
        threads=data.threads,
        prefetch=data.prefetch,
    )  # fmt: skip
