"""This project's own stream of clips, fed with the same requests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch

from bench.measure.plan import Request
from bench.peers.base import Candidate, Setting


class Ours(Candidate):
    """dali_pipes.ClipStream: one decode for all views."""

    kind = "ours"
    notes = "ClipStream: one decode for all views of a request, in as many processes as there are workers"
    needs = ("dali_pipes", "nvidia.dali")
    processes: ClassVar[bool] = True

    def __init__(self, requests: Sequence[Request], setting: Setting) -> None:
        from dali_pipes import ClipRequest, ClipStream, View

        self.setting = setting
        self.requests = [
            ClipRequest(
                request.video, tuple(View(speed, at) for speed, at in zip(request.speeds, request.starts, strict=True))
            )
            for request in requests
        ]
        self.stream = ClipStream(
            setting.corpus,
            frames=setting.frames,
            size=setting.size,
            batch_size=setting.batch_size,
            views=len(requests[0].numbers),
            device=str(setting.device),
            augment=None,
            dtype="float16" if setting.dtype is torch.float16 else "float32",
            threads=setting.workers,
            processes=self.processes,
            prefetch=setting.prefetch,
        )

    def epoch(self, batches: Sequence[Sequence[int]]) -> Iterator[torch.Tensor]:
        for batch in self.stream.map([self.requests[number] for number in batch] for batch in batches):
            yield batch.clips

    def close(self) -> None:
        self.stream.close()


class OursThreads(Ours):
    """The same, decoding in the threads themselves: what the processes are worth."""

    notes = "ClipStream with processes=False: as many threads as there are workers decode"
    processes = False
