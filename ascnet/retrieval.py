"""Positives: which video c_k comes from, and when it is asked for (METHOD: Algorithm 1, lines 8 and 9).

    lookahead 0    batch arrives, a_j, search, ask for c_k, wait for the decoder, train          (Algorithm 1)
    lookahead d    batch arrives, a_j, search, ask for c_k .......... d steps later ............ train

With a look-ahead of d steps the decoder has that long for c_k. a_j is computed once, when the batch arrives, and kept
for the step itself: no extra forward pass, but a_j and the gallery are d updates older than in Algorithm 1.

Of several processes each has its part of every batch, in the order of their ranks. What depends on the whole batch is
agreed on by all of them: `next` and `collect` are collective.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ascnet.bank.shards import Bank
from ascnet.config import RetrievalConfig
from ascnet.errors import CheckpointError
from ascnet.logs.profile import region
from ascnet.parallel.distributed import World

if TYPE_CHECKING:
    from dali_pipes import ClipBatch, ClipRequest

Rows = NDArray[np.int64]
# (anchor, other): the view that is c_i and the view that is c_j. The second one is used by symmetric losses only.
DIRECTIONS = ((0, 1), (1, 0))


class Sampler(Protocol):
    """What is used of `dali_pipes.ClipSampler`."""

    def single(self, video: int, speed: float, *, epoch: int, position: int, role: int = 1) -> ClipRequest: ...


class Loader(Protocol):
    """What is used of `dali_pipes.SpeedLoader`."""

    @property
    def sampler(self) -> Sampler: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[ClipBatch]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...
    def close(self) -> None: ...


class Stream(Protocol):
    """What is used of `dali_pipes.ClipStream`."""

    def submit(self, requests: list[ClipRequest]) -> None: ...
    def get(self) -> ClipBatch: ...
    def close(self) -> None: ...


class PositiveSearch:
    """Chooses for every sample the video that its positive clip is taken from."""

    def __init__(self, bank: Bank, config: RetrievalConfig, seed: int, world: World | None = None) -> None:
        self._bank, self._config, self._seed = bank, config, seed
        self._world = world or World(torch.device("cpu"))

    def __call__(self, a_j: Tensor, videos: Sequence[int], epoch: int, positions: Sequence[int], role: int) -> Rows:
        """Videos (B,), -1 where none can be had: the bank holds nothing yet but what is excluded.

        Args:
            a_j: Queries, (B, D).
            videos: (B,) the samples' own videos, which are never chosen.
            epoch: Epoch of the batch; it keys the random pick, with the seed, position and role.
            positions: (B,) places of the samples in their epoch.
            role: Tells the positives of one sample apart.
        """
        if self._config.positive == "random":
            chosen = self._random(videos, epoch, positions, role)
        else:
            chosen = self._nearest(a_j, videos, epoch, positions, role)
        # Batch normalisation of the target's head needs two clips; a lone positive is left out.
        (found,) = self._world.total(int((chosen >= 0).sum()))
        return np.full_like(chosen, -1) if found < 2 else chosen

    def _nearest(self, a_j: Tensor, videos: Sequence[int], epoch: int, positions: Sequence[int], role: int) -> Rows:
        own = torch.tensor(videos, device=self._bank.valid.device)
        groups = self._bank.groups[own] if self._config.exclude == "group" else None
        _, near = self._bank.nearest(a_j, exclude=own, exclude_groups=groups, k=self._config.topk)
        candidates: Rows = near.cpu().numpy()
        if self._config.topk == 1:
            return candidates[:, 0]
        counts = (candidates >= 0).sum(axis=1)
        draws = [self._draws(epoch, position, role) for position in positions]
        picks = [int(draw.integers(count)) if count else 0 for draw, count in zip(draws, counts, strict=True)]
        return candidates[np.arange(len(candidates)), picks]

    def _random(self, videos: Sequence[int], epoch: int, positions: Sequence[int], role: int) -> Rows:
        rows = self._bank.valid.nonzero()[:, 0]
        groups = self._bank.groups[rows].cpu().numpy() if self._config.exclude == "group" else None
        own_groups = self._bank.groups[torch.tensor(videos, device=rows.device)].cpu().numpy()
        valid: Rows = rows.cpu().numpy()
        chosen = np.full(len(videos), -1, np.int64)
        for place, (video, position) in enumerate(zip(videos, positions, strict=True)):
            others = valid[(valid != video) if groups is None else (groups != own_groups[place])]
            if len(others):
                chosen[place] = others[self._draws(epoch, position, role).integers(len(others))]
        return chosen

    def _draws(self, epoch: int, position: int, role: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, epoch, position, role])


@dataclass
class Item:
    """A batch on its way to its step.

    Attributes:
        batch: The two clips of each sample.
        state: Loader state before this batch.
        videos: (B,) videos delivered.
        a_j: For each direction, target appearance features of the other clip, (B, D).
        chosen: For each direction, (B,) videos of the positives, -1 for none; after `LookAhead.collect` also -1 where
            the decoder could not deliver that video.
    """

    batch: ClipBatch
    state: dict[str, Any]
    videos: list[int]
    a_j: list[Tensor]
    chosen: list[Rows]


@dataclass
class Positives:
    """The positives of a part of a batch.

    Attributes:
        clips: c_k, (P, 3, T, H, W); None where the speed task is left out, in all processes.
        found: (P,) places in the part that they belong to.
    """

    clips: Tensor | None
    found: Tensor


class LookAhead:
    """Batches with their target features, their positives asked for `depth` steps before they are trained on.

    Attributes:
        depth: Steps between arrival and training.
        waited: Seconds spent waiting for clips so far.
    """

    def __init__(
        self,
        loader: Loader,
        stream: Stream | None,
        appearance_target: Callable[[Tensor], Tensor],
        search: PositiveSearch,
        *,
        depth: int,
        total: int,
        symmetric: bool = False,
        parts: int = 1,
        world: World | None = None,
        joint_norm: bool = True,
    ) -> None:
        """
        Args:
            loader: Gives batches of two views.
            stream: Gives the positives' clips; None leaves the search out.
            appearance_target: Clips (B, 3, T, H, W) to a_j (B, D).
            search: Chooses the positives' videos.
            depth: Steps between arrival and training.
            total: Batches in the whole run; none is fetched beyond.
            symmetric: Whether both views are anchors in turn.
            parts: Parts that a batch is trained on in.
            world: The processes that share a batch.
            joint_norm: Whether batch normalisation is over all of them.
        """
        self.waited = 0.0
        self._parts, self._joint = parts, joint_norm
        self._world = world or World(torch.device("cpu"))
        self._loader, self._stream, self._target, self._search = loader, stream, appearance_target, search
        self.depth, self._left = depth, total
        self._directions = DIRECTIONS if symmetric else DIRECTIONS[:1]
        self._batches = self._endless()
        self._queue: deque[Item] = deque()
        self._saved: deque[dict[str, Any]] = deque()

    def next(self) -> Item:
        """The batch to train on now; fetches until `depth` more are under way."""
        while self._left and len(self._queue) <= self.depth:
            self._queue.append(self._fetch())
            self._left -= 1
        return self._queue.popleft()

    def collect(self, item: Item, direction: int) -> list[Positives]:
        """c_k of each part of an item, waiting for it if need be.

        Where the decoder had to put another video in place of the one retrieved, that sample goes without, and so does
        a sample that would be the only one of its part.
        """
        chosen, batch = item.chosen[direction], None
        asked = np.flatnonzero(chosen >= 0)
        if len(asked):
            assert self._stream is not None
            started = time.perf_counter()
            with region("wait"):
                batch = self._stream.get()
            self.waited += time.perf_counter() - started
            delivered = np.array([request.video for request in batch.requests])
            chosen[asked[delivered != chosen[asked]]] = -1
        runs = self._runs(chosen)
        result = []
        for rows, run in zip(np.array_split(np.arange(len(chosen)), self._parts), runs, strict=True):
            if not run:
                chosen[rows] = -1
            places = np.flatnonzero(chosen[rows] >= 0)
            found = torch.as_tensor(places, device=item.batch.clips.device)
            if not run:
                result.append(Positives(None, found))
                continue
            # Asked for by other processes only: there is nothing to show, but the collectives wait for this one too.
            clips = (item.batch if batch is None else batch).clips[:, 0]
            kept = np.flatnonzero(np.isin(asked, rows[places]))
            if len(kept) < len(clips):
                clips = clips[torch.as_tensor(kept, device=clips.device)]
            result.append(Positives(clips, found))
        return result

    def agreement(self, item: Item) -> tuple[int, int]:
        """How many positives of an item the search would choose again now, with the same a_j and the bank of today, and
        how many it has; of this process and the first direction. Ask before `collect`; collective."""
        chosen = item.chosen[0]
        again = self._choose(item.batch, item.videos, item.a_j[0], 1)
        return int(((chosen == again) & (chosen >= 0)).sum()), int((chosen >= 0).sum())

    def _runs(self, chosen: Rows) -> list[bool]:
        """Whether each part has enough positives for the speed task, in all processes; drops those that have not."""
        parts = np.array_split(chosen, self._parts)
        if not self._joint:
            for part in parts:
                if (part >= 0).sum() < 2:
                    part[:] = -1
        if self._stream is None:
            return [False] * self._parts
        return [count >= 2 for count in self._world.total(*(int((part >= 0).sum()) for part in parts))]

    def state_dict(self) -> dict[str, Any]:
        """What makes the next steps again: the loader's state before the oldest batch not trained on, and for each
        batch under way its features and its positives, which later weights and a later bank would not give again."""
        under_way = [
            {
                "videos": item.videos,
                "a_j": [feature.cpu() for feature in item.a_j],
                "chosen": [rows.tolist() for rows in item.chosen],
            }
            for item in self._queue
        ]
        return {"loader": self._queue[0].state if self._queue else self._loader.state_dict(), "under_way": under_way}

    def load_state_dict(self, state: dict[str, Any], *, left: int) -> None:
        """Continues from `state_dict`, with `left` steps to go. Call it before the first `next`.

        A state without batches under way is as good: then they are searched for once more.
        """
        self._loader.load_state_dict(state["loader"])
        self._saved = deque(state["under_way"])
        self._left = left

    def _endless(self) -> Iterator[ClipBatch]:
        while True:
            yield from self._loader

    def _fetch(self) -> Item:
        started = time.perf_counter()
        state = self._loader.state_dict()
        with region("wait"):
            batch = next(self._batches)
        self.waited += time.perf_counter() - started
        videos = [request.video for request in batch.requests]
        if self._saved:
            saved = self._saved.popleft()
            if saved["videos"] != videos:
                raise CheckpointError(
                    "the loader does not give the batch that the checkpoint was written at; "
                    "are the videos and settings those of the interrupted run?"
                )
            a_j = [feature.to(batch.clips.device) for feature in saved["a_j"]]
            chosen = [np.array(rows, np.int64) for rows in saved["chosen"]]
        else:
            a_j = [self._target(batch.clips[:, other]) for _, other in self._directions]
            chosen = [self._choose(batch, videos, feature, role) for role, feature in enumerate(a_j, start=1)]
        item = Item(batch, state, videos, a_j, chosen)
        for direction in range(len(self._directions)):
            self._ask(item, direction)
        return item

    def _choose(self, batch: ClipBatch, videos: list[int], a_j: Tensor, role: int) -> Rows:
        if self._stream is None:
            return np.full(len(videos), -1, np.int64)
        with region("retrieval"):
            return self._search(a_j, videos, batch.epoch, batch.positions.tolist(), role)

    def _ask(self, item: Item, direction: int) -> None:
        # c_k has the speed of c_i: that, and nothing of their looks, is what the speed task makes agree.
        anchor, _ = self._directions[direction]
        batch, requests = item.batch, []
        rows = zip(item.chosen[direction].tolist(), batch.requests, batch.positions.tolist(), strict=True)
        for video, own, position in rows:
            if video >= 0:
                speed, role = own.views[anchor].speed, 1 + direction
                requests.append(
                    self._loader.sampler.single(video, speed, epoch=batch.epoch, position=position, role=role)
                )
        if requests:
            assert self._stream is not None
            self._stream.submit(requests)
