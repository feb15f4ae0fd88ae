"""Clips for tests of the trainer, made from nothing but their request: a loader and a stream without videos.

They honour the interface of `dali_pipes.SpeedLoader` and `dali_pipes.ClipStream`, in float64 where asked, which no
decoder gives. Every clip is a function of its request, so whoever knows the requests knows the clips.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from ascnet.config import Config
from dali_pipes import ClipBatch, ClipRequest, Key, View

FRAMES, SIZE = 4, 16

TINY = (
    "model.encoder=r3d10",
    "model.width=0.0625",
    "model.projector_hidden=12",
    "model.projector_dim=6",
    "model.predictor_hidden=10",
    f"data.frames={FRAMES}",
    f"data.size={SIZE}",
    "data.batch_size=4",
    "device=cpu",
    "log.interval=1",
    "log.tensorboard=false",
)


def tiny(*overrides: str) -> Config:
    """A configuration that trains in milliseconds a step."""
    return Config.load(None, [*TINY, *overrides])


class MadeCorpus:
    """Videos that exist in name only; labels alternate, neighbours share a group."""

    def __init__(self, videos: int = 12, *, labelled: bool = True) -> None:
        self.labels = np.arange(videos) % 2 if labelled else np.full(videos, -1)
        self.groups = np.arange(videos) // 2
        self.fingerprint = f"made{videos}"

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, video: int) -> Any:
        return SimpleNamespace(uri=f"video{video}.mp4")


def make_clip(request: ClipRequest, view: int) -> torch.Tensor:
    """(3, T, H, W) float64, the same for the same request."""
    shown = request.views[view]
    words = [*request.key, request.video, int(10 * shown.speed), shown.start, view]
    draws = np.random.default_rng(words)
    # Half of it belongs to the video, so that there is an appearance to find.
    own = np.random.default_rng(request.video).normal(size=(3, FRAMES, SIZE, SIZE))
    return torch.from_numpy(0.5 * own + draws.normal(size=own.shape))


def make_batch(requests: tuple[ClipRequest, ...], epoch: int, positions: list[int], device: torch.device) -> ClipBatch:
    clips = torch.stack([torch.stack([make_clip(r, v) for v in range(len(r.views))]) for r in requests])
    return ClipBatch(
        clips=clips.to(device),
        speeds=torch.tensor([[view.speed for view in r.views] for r in requests], device=device),
        videos=torch.tensor([r.video for r in requests], device=device),
        starts=torch.tensor([[view.start for view in r.views] for r in requests]),
        requests=requests,
        epoch=epoch,
        positions=torch.tensor(positions),
    )


class MadeSampler:
    def __init__(self, seed: int) -> None:
        self.seed = seed

    def single(self, video: int, speed: float, *, epoch: int, position: int, role: int = 1) -> ClipRequest:
        return ClipRequest(int(video), (View(float(speed), 0),), Key(self.seed, epoch, position, role))


class MadeLoader:
    """Shuffled epochs of two views, dealt to ranks; `before` is called with every batch's number beforehand."""

    def __init__(
        self,
        config: Config,
        corpus: MadeCorpus,
        device: torch.device,
        before: Callable[[int], None] | None = None,
        *,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.sampler = MadeSampler(config.seed)
        self.corpus, self.device, self.before = corpus, device, before
        self.batch_size, self.speeds = config.data.batch_size, config.data.speeds
        self.rank, self.whole = rank, config.data.batch_size * world
        self.epoch = self.position = 0
        self.handed_out: list[ClipBatch] = []

    def __len__(self) -> int:
        return len(self.corpus) // self.whole

    @property
    def step(self) -> int:
        return self.position // self.whole

    def request(self, epoch: int, position: int) -> ClipRequest:
        order = np.random.default_rng([self.sampler.seed, epoch]).permutation(len(self.corpus))
        flip = np.random.default_rng([self.sampler.seed, epoch, position]).permutation(2)
        views = tuple(View(self.speeds[i], 0) for i in flip)
        return ClipRequest(int(order[position]), views, Key(self.sampler.seed, epoch, position))

    def __iter__(self) -> Iterator[ClipBatch]:
        while self.step < len(self):
            if self.before is not None:
                self.before(self.epoch * len(self) + self.step)
            first = self.position + self.rank * self.batch_size
            positions = list(range(first, first + self.batch_size))
            requests = tuple(self.request(self.epoch, position) for position in positions)
            self.position += self.whole
            self.handed_out.append(make_batch(requests, self.epoch, positions, self.device))
            yield self.handed_out[-1]
        self.epoch, self.position = self.epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self.position = state["epoch"], state["position"]

    def close(self) -> None:
        pass


class MadeStream:
    """Clips in the order of asking; videos named in `broken` come back as video 0, as a replacement would."""

    def __init__(self, device: torch.device, broken: frozenset[int] = frozenset()) -> None:
        self.device, self.broken = device, broken
        self.queue: deque[list[ClipRequest]] = deque()
        self.asked: list[list[ClipRequest]] = []

    def submit(self, requests: list[ClipRequest]) -> None:
        self.asked.append(requests)
        self.queue.append(requests)

    def get(self) -> ClipBatch:
        requests = [ClipRequest(0, r.views, r.key) if r.video in self.broken else r for r in self.queue.popleft()]
        return make_batch(tuple(requests), -1, [0] * len(requests), self.device)

    def close(self) -> None:
        pass


def open_made(
    config: Config,
    corpus: Any,
    device: torch.device,
    before: Callable[[int], None] | None = None,
    *,
    rank: int = 0,
    world: int = 1,
) -> tuple[MadeLoader, MadeStream | None]:
    """`open_data` of `pretrain` for made clips."""
    loader = MadeLoader(config, corpus, device, before, rank=rank, world=world)
    return loader, MadeStream(device) if config.gamma else None
