"""Raw videos in, clips at any playback speed out, decoded and augmented by NVIDIA DALI on GPU or CPU."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dali_pipes.augment import Augment, Draws
    from dali_pipes.background import StreamStats
    from dali_pipes.clips.request import ClipBatch, ClipRequest, Key, View
    from dali_pipes.clips.sampler import ClipSampler, even_requests
    from dali_pipes.corpus import Corpus, Video
    from dali_pipes.corpus.guarded import probe_videos
    from dali_pipes.corpus.storage import StorageOptions, configure_storage
    from dali_pipes.corpus.synthetic import make_demo_corpus
    from dali_pipes.decode.cache import VideoCache
    from dali_pipes.errors import DataError, VideoError
    from dali_pipes.loader import SpeedLoader
    from dali_pipes.prepare import read_frames
    from dali_pipes.progress import Progress, track
    from dali_pipes.stream import ClipStream

# DALI keeps host memory of this size and larger for the next batch. Its own threshold of 32 MiB is above what most
# batches of clips take, so the kernel would clear new pages for each of them (docs/loader.md). DALI reads this once,
# before anything of it is used.
os.environ.setdefault("DALI_MALLOC_POOL_THRESHOLD", "1M")

# Where each name is found. Looked up when first used (PEP 562): torch and DALI take seconds to import, and neither the
# processes that probe videos nor the command line need them.
_HOME = {
    "Augment": "augment",
    "ClipBatch": "clips.request",
    "ClipRequest": "clips.request",
    "ClipSampler": "clips.sampler",
    "ClipStream": "stream",
    "Corpus": "corpus",
    "DataError": "errors",
    "Draws": "augment",
    "Key": "clips.request",
    "Progress": "progress",
    "SpeedLoader": "loader",
    "StorageOptions": "corpus.storage",
    "StreamStats": "background",
    "Video": "corpus",
    "VideoCache": "decode.cache",
    "VideoError": "errors",
    "View": "clips.request",
    "configure_storage": "corpus.storage",
    "even_requests": "clips.sampler",
    "make_demo_corpus": "corpus.synthetic",
    "probe_videos": "corpus.guarded",
    "read_frames": "prepare",
    "track": "progress",
}

__all__ = [
    "Augment",
    "ClipBatch",
    "ClipRequest",
    "ClipSampler",
    "ClipStream",
    "Corpus",
    "DataError",
    "Draws",
    "Key",
    "Progress",
    "SpeedLoader",
    "StorageOptions",
    "StreamStats",
    "Video",
    "VideoCache",
    "VideoError",
    "View",
    "configure_storage",
    "even_requests",
    "make_demo_corpus",
    "probe_videos",
    "read_frames",
    "track",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
