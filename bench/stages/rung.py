"""What every rung of `python -m bench stages` is told, and what one is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch

from dali_pipes import Augment, ClipRequest, Corpus, Video
from dali_pipes.augment import PLAIN
from dali_pipes.decode.choice import choose
from dali_pipes.decode.plan import plan
from dali_pipes.pipeline import GraphSpec
from dali_pipes.prepare import Preparer

Batches = Sequence[Sequence[ClipRequest]]


@dataclass(frozen=True)
class Work:
    """What all rungs are told.

    Attributes:
        corpus: The videos.
        frames: Frames of a clip, T.
        size: Side of a clip, pixels.
        views: Clips of a sample.
        batch_size: Samples of a batch.
        threads: Of the loader: workers on the host, and threads of the graph.
        device: Where the clips must be in the end.
        augment: What is drawn for a clip; None: the centred square.
        dtype: Of the clips.
        decoder: As of the loader.
        fps: Reference rate for 1x, or None.
        short: Past a video's last frame, as of the loader.
        cold: Whether the rung that reads asks the kernel to forget each file before.
    """

    corpus: Corpus
    frames: int
    size: int
    views: int
    batch_size: int
    threads: int
    device: torch.device
    augment: Augment | None
    dtype: Literal["float16", "float32"]
    decoder: Literal["auto", "dali", "host"] = "auto"
    fps: float | None = None
    short: Literal["loop", "pad", "skip"] = "loop"
    cold: bool = False

    @property
    def where(self) -> Literal["cpu", "gpu"]:
        """The same as `device`, as dali_pipes says it."""
        return "gpu" if self.device.type == "cuda" else "cpu"

    @cached_property
    def preparer(self) -> Preparer:
        """What the loader's workers do with a request."""
        return Preparer(
            self.corpus, self.frames, self.size, self.augment, self.fps, self.short, self.where, self.decoder,
            processes=True,
        )  # fmt: skip

    def video(self, request: ClipRequest) -> Video:
        """The row that a request is about."""
        return self.corpus[request.video]

    def wanted(self, request: ClipRequest) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Sorted unique frames of a request."""
        return self.preparer.plan(self.video(request), request)[0]

    def on_host(self, video: Video) -> bool:
        """Whether the loader decodes a video on the host."""
        return choose(video, self.where, self.decoder).decoder == "host"

    def spec(self, *, encoded: bool, raw: bool) -> GraphSpec:
        """The graph's specification, for samples that come as packets, as frames, or both."""
        index = None
        if self.device.type == "cuda":
            index = torch.cuda.current_device() if self.device.index is None else self.device.index
        # On the CPU the loader, too, has torch make float16 of DALI's float32.
        dtype: Literal["float16", "float32"] = "float32" if index is None else self.dtype
        return GraphSpec(
            self.views, self.size, self.batch_size, encoded, raw, self.augment or PLAIN, dtype, self.threads, index
        )


@dataclass(frozen=True)
class Pass:
    """One pass of a rung over some requests.

    Attributes:
        samples: Requests done; of a rung that decodes in order, as many as its frames would have been enough for.
        seconds: Wall time, as if all threads had been busy to the end.
        cpu: CPU seconds of this process meanwhile.
        amounts: What else was counted, such as {"MB": 12.5}.
    """

    samples: float
    seconds: float
    cpu: float
    amounts: dict[str, float] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Samples a second."""
        return self.samples / self.seconds


class Rung(ABC):
    """Something that a loader has to do, alone.

    Attributes:
        name: In tables and figures.
        about: What it does, in a few words.
    """

    name: str
    about: str

    def __init__(self, work: Work) -> None:
        self.work = work

    @classmethod
    def missing(cls, work: Work, requests: Sequence[ClipRequest]) -> str | None:
        """Why this rung has no meaning here, or None."""
        return None

    @abstractmethod
    def run(self, batches: Batches) -> Pass:
        """Do it for some batches of requests."""

    def close(self) -> None:  # noqa: B027 -- most hold nothing
        """Free what is held."""


def decoded_per_frame(work: Work, requests: Sequence[ClipRequest]) -> tuple[float, float]:
    """Frames wanted by a request, each once, and frames decoded for each of them: what the key frames cost."""
    wanted = made = 0
    for request in requests:
        video, frames = work.video(request), work.wanted(request)
        wanted += len(frames)
        made += sum(int(run.wanted[-1]) - run.key + 1 for run in plan(frames, video.key_frames, video.key_timestamps))
    return wanted / len(requests), made / wanted
