"""The parts of a run, made from its configuration."""

from __future__ import annotations

import os
import weakref
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ascnet.bank.shards import Bank, make_bank
from ascnet.config import Config
from ascnet.encoders import build_encoder
from ascnet.errors import ConfigError
from ascnet.model import ASCNet
from ascnet.parallel.distributed import World
from ascnet.parallel.sync_norm import synchronise
from ascnet.precision import Precision
from ascnet.retrieval import Loader, Stream
from ascnet.training.activations import checkpoint_blocks
from ascnet.weights import load_encoder

if TYPE_CHECKING:
    from dali_pipes import Corpus


def run_length(config: Config, steps_an_epoch: int) -> int:
    """Steps of the whole run: `epochs`, or `steps` where that is sooner."""
    planned = config.epochs * steps_an_epoch
    return planned if config.steps is None else min(planned, config.steps)


def build_model(config: Config) -> ASCNet:
    """A freshly initialised ASCNet of the configured size."""
    section = config.model
    encoder = build_encoder(section.encoder, width=section.width, **section.options)
    return ASCNet(
        encoder,
        projector_hidden=section.projector_hidden,
        projector_dim=section.projector_dim,
        projector_norm=section.projector_norm,
        predictor_hidden=section.predictor_hidden,
        gamma=config.gamma,
        normalize=section.normalize,
    )


def begin_with(model: ASCNet, path: str) -> None:
    """Gives both encoders the weights of a trained one; the heads stay as they are.

    Raises:
        ConfigError: If they are those of another encoder.
        CheckpointError: If the file is missing or damaged.
    """
    weights = load_encoder(path).state_dict()
    try:
        for network in (model.online, model.target):
            network.encoder.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(f"model.init={path}: not weights of model.encoder with these options: {reason}") from None


def memory_format(config: Config) -> torch.memory_format:
    """Order of the numbers of clips and filters."""
    return torch.channels_last_3d if config.channels_last else torch.contiguous_format


def place_model(config: Config, world: World, precision: Precision, *, resumed: bool = False) -> ASCNet:
    """A model as it is trained: on the device of this process, in its number format, with the options of a run.

    One that is `resumed` gets its weights from a checkpoint later, so `model.init` is not read.
    """
    model = build_model(config)
    if config.model.init is not None and not resumed:
        begin_with(model, config.model.init)
    model = model.to(world.device, precision.weights)
    model = model.to(memory_format=memory_format(config)).train()  # type: ignore[call-overload]
    if joint_norm(config, world):
        synchronise(model, world.device, world.host if world.device.type == "cpu" else None)
        model.joint_norm = True
    if config.model.checkpoint_activations:
        checkpoint_blocks(model.online.encoder)
    if config.compile:
        for network in (model.online, model.target):
            network.encoder.compile()
    return model


def joint_norm(config: Config, world: World) -> bool:
    """Whether batch normalisation is over the batches of all processes."""
    return world.size > 1 and config.model.sync_norm is not False


def build_bank(config: Config, corpus: Corpus, device: torch.device, precision: Precision) -> Bank:
    """An empty bank with a row for every video of the corpus."""
    section = config.retrieval
    dtype = torch.float16 if section.dtype == "fp16" else precision.weights
    return make_bank(
        section.placement,
        len(corpus),
        config.model.projector_dim,
        device=device,
        dtype=dtype,
        momentum=section.momentum,
        groups=torch.as_tensor(np.asarray(corpus.groups)),
        normalize=config.model.normalize,
        budget=int(section.budget_mb * 2**20),
    )


def open_clips(
    config: Config, corpus: Corpus, device: torch.device, world: World | None = None
) -> tuple[Loader, Stream | None]:
    """The loader of c_i and c_j, and the stream that c_k is asked from; None for the latter where gamma is 0.

    Retrieved clips have the frames, size and augmentation of the others. Each of several processes has its part of
    every batch.
    """
    # dali_pipes starts up DALI, which who only looks at a configuration or a checkpoint need not wait for.
    from dali_pipes import Augment, ClipStream, SpeedLoader, VideoCache

    world = world or World(device)
    data, augment = config.data, Augment(**asdict(config.data.augment))
    threads = data.threads
    if threads is None and world.local_size > 1:
        # The loader would take a thread for each core, in every process of this machine.
        threads = max(1, len(os.sched_getaffinity(0)) // world.local_size)
    # Where the arithmetic is half precision anyway, half the bytes do.
    dtype: Any = "float16" if Precision(config.precision, device).name in ("bf16", "fp16") else "float32"
    cache = None
    if data.cache is not None:
        cache = VideoCache.for_clips(data.cache, data.size, limit=int(data.cache_gb * 1e9))
    loader = SpeedLoader(
        corpus,
        frames=data.frames,
        size=data.size,
        speeds=data.speeds,
        batch_size=data.batch_size,
        device=str(device),
        seed=config.seed,
        rank=world.rank,
        world_size=world.size,
        split=data.split,
        window=data.window,
        short=data.short,
        fps=data.fps,
        speed_order="random",
        clips_per_video=data.clips_per_video,
        augment=augment,
        dtype=dtype,
        decoder=data.decoder,
        threads=threads,
        graph_threads=data.graph_threads,
        processes=data.processes,
        prefetch=data.prefetch,
        cache=cache,
    )
    if cache is not None:
        # Used by both; it ends with the one that lives as long as the run.
        weakref.finalize(loader, cache.close)
    if config.gamma == 0:
        return loader, None
    try:
        stream = ClipStream(
            corpus,
            frames=data.frames,
            size=data.size,
            batch_size=data.batch_size,
            device=str(device),
            augment=augment,
            dtype=dtype,
            short=data.short,
            fps=data.fps,
            decoder=data.decoder,
            threads=threads,
            graph_threads=data.graph_threads,
            processes=data.processes,
            prefetch=data.prefetch,
            replacements=loader.sampler.videos,
            cache=cache,
        )
    except BaseException:
        loader.close()
        raise
    return loader, stream
