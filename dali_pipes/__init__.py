"""Raw videos in, clips at any playback speed out, decoded and augmented by NVIDIA DALI on GPU or CPU."""

from __future__ import annotations

from dali_pipes.augment import Augment, Draws
from dali_pipes.clips.request import ClipBatch, ClipRequest, Key, View
from dali_pipes.clips.sampler import ClipSampler, even_requests
from dali_pipes.corpus import Corpus, Video
from dali_pipes.corpus.synthetic import make_demo_corpus
from dali_pipes.errors import DataError, VideoError
from dali_pipes.loader import SpeedLoader
from dali_pipes.prepare import read_frames
from dali_pipes.stream import ClipStream, StreamStats

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
    "SpeedLoader",
    "StreamStats",
    "Video",
    "VideoError",
    "View",
    "even_requests",
    "make_demo_corpus",
    "read_frames",
]
