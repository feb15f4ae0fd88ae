"""The parts of a run, made from its configuration."""

from __future__ import annotations

import weakref
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ascnet.config import Config
from ascnet.encoders import build_encoder
from ascnet.memory_bank import MemoryBank
from ascnet.model import ASCNet
from ascnet.precision import Precision
from ascnet.retrieval import Loader, Stream

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


def build_bank(config: Config, corpus: Corpus, device: torch.device, precision: Precision) -> MemoryBank:
    """An empty bank with a row for every video of the corpus."""
    section = config.retrieval
    dtype = torch.float16 if section.dtype == "fp16" else precision.weights
    return MemoryBank(
        len(corpus),
        config.model.projector_dim,
        device=device,
        dtype=dtype,
        momentum=section.momentum,
        groups=torch.as_tensor(np.asarray(corpus.groups)),
        normalize=config.model.normalize,
        budget=int(section.budget_mb * 2**20),
    )


def open_clips(config: Config, corpus: Corpus, device: torch.device) -> tuple[Loader, Stream | None]:
    """The loader of c_i and c_j, and the stream that c_k is asked from; None for the latter where gamma is 0.

    Retrieved clips have the frames, size and augmentation of the others.
    """
    # dali_pipes starts up DALI, which who only looks at a configuration or a checkpoint need not wait for.
    from dali_pipes import Augment, ClipStream, SpeedLoader, VideoCache

    data, augment = config.data, Augment(**asdict(config.data.augment))
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
        split=data.split,
        window=data.window,
        short=data.short,
        fps=data.fps,
        speed_order="random",
        clips_per_video=data.clips_per_video,
        augment=augment,
        dtype=dtype,
        decoder=data.decoder,
        threads=data.threads,
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
            threads=data.threads,
            prefetch=data.prefetch,
            replacements=loader.sampler.videos,
            cache=cache,
        )
    except BaseException:
        loader.close()
        raise
    return loader, stream
