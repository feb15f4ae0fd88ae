"""Pretraining on made clips in several processes of one machine, with the variables that `torchrun` would set."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from training_data import MadeCorpus, MadeStream, open_made, tiny

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Job:
    """One run.

    Attributes:
        out: Its folder.
        words: Its settings.
        resume: Whether it goes on.
        allow: Settings that may differ then.
        broken: Videos that the stream cannot deliver.
        acts: By rank, what it does before a batch: `kill@7`, `term@7`, `fail@7`, `nan@7` (a clip of batch 7 is spoilt).
    """

    out: str
    words: list[str]
    resume: bool = False
    allow: list[str] = field(default_factory=list)
    broken: list[int] = field(default_factory=list)
    acts: dict[str, str] = field(default_factory=dict)
    port: int = 0


def start(world: int, jobs: Sequence[Job]) -> list[subprocess.Popen[str]]:
    """Starts all ranks; each does one job after another, till one does not end well."""
    sockets = [socket.socket() for _ in jobs]
    for job, free in zip(jobs, sockets, strict=True):
        free.bind(("127.0.0.1", 0))
        job.port = free.getsockname()[1]
    for free in sockets:
        free.close()
    told = json.dumps([asdict(job) for job in jobs])
    shared = {
        **os.environ, "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1",
        "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    processes = []
    for rank in range(world):
        environment = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        command = [sys.executable, "-m", "training_ranks", told]
        processes.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    return processes


def finish(processes: list[subprocess.Popen[str]], timeout: float = 300) -> tuple[list[int], list[str]]:
    """Exit status and standard error of every rank."""
    try:
        said = [process.communicate(timeout=timeout)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], said


def metrics(out: Path | str) -> list[dict[str, Any]]:
    """What a run recorded, without what depends on the clock."""
    rows = [json.loads(line) for line in (Path(out) / "metrics.jsonl").read_text().splitlines()]
    return [{name: row[name] for name in RECORDED} for row in rows]


RECORDED = (
    "step", "epoch", "loss", "loss_acp", "loss_scp", "feature_std", "motion_std", "grad_norm", "lr", "ema_momentum",
    "scp_share", "positive_same_label", "skipped",
)  # fmt: skip


def train(job: Job, rank: int = 0, world: int = 1) -> dict[str, Any]:
    """One rank's part of a job, in this process."""
    from ascnet.pretrain import pretrain

    what, _, at = job.acts.get(str(rank), "").partition("@")

    def open_data(config: Any, corpus: Any, device: torch.device) -> Any:
        loader, _ = open_made(config, corpus, device, before, rank=rank, world=world)
        if what == "nan":
            give = type(loader).__iter__

            class Spoilt(type(loader)):  # type: ignore[misc]
                def __iter__(self) -> Any:
                    for number, batch in enumerate(give(self), start=self.epoch * len(self) + self.step + 1):
                        if number == int(at):
                            batch.clips[1] = torch.nan
                        yield batch

            loader.__class__ = Spoilt
        return loader, MadeStream(device, frozenset(job.broken)) if config.gamma else None

    def before(batch: int) -> None:
        if not at or batch + 1 != int(at):
            return
        if what in ("kill", "term"):
            os.kill(os.getpid(), {"kill": 9, "term": 15}[what])
        elif what == "fail":
            raise OSError("the disk is gone")

    corpus: Any = MadeCorpus(24)
    return pretrain(tiny(*job.words), corpus, job.out, resume=job.resume, allow=job.allow, open_data=open_data)


def main(told: str) -> int:
    """All jobs of one rank."""
    from ascnet import cli
    from ascnet.errors import UserError

    torch.set_num_threads(1)
    for job in [Job(**values) for values in json.loads(told)]:
        os.environ["MASTER_PORT"] = str(job.port)
        try:
            status = cli._status(train(job, int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])))
        except (UserError, OSError) as error:
            status = cli._mistake(error)
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
