"""Pretraining from beginning to end: data, model, memory bank, the loop, checkpoints.

    summary = pretrain(Config.load("configs/ucf101.yaml"), Corpus.open("ucf101.parquet"), Path("runs/ucf101"))

A checkpoint holds all that the next step depends on, so a run that was stopped (Ctrl-C, SIGTERM, a limit of time, or
killed) and resumed makes the same steps as one that was not. Under `torchrun` every process calls the same.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ascnet import ema, optim
from ascnet.build import joint_norm, open_clips, run_length
from ascnet.config import Config
from ascnet.files import written_whole
from ascnet.logs.log import TrainLog
from ascnet.logs.monitor import Monitor, ReplacedVideos
from ascnet.logs.profile import Profiler
from ascnet.logs.stages import StageLoad
from ascnet.model import ASCNet
from ascnet.parallel.distributed import World, restarted
from ascnet.precision import Precision, pick_device
from ascnet.retrieval import Item, Loader, LookAhead, PositiveSearch, Stream
from ascnet.training.interrupt import REASONS, TimeLimit, catch_interrupts
from ascnet.training.run_state import RunState
from ascnet.training.saved_run import check_names, check_new, open_saved
from ascnet.training.saving import Saver
from ascnet.training.skipping import Skips
from ascnet.training.train_step import TrainStep, spread

if TYPE_CHECKING:
    from dali_pipes import Corpus

__all__ = ["pick_device", "pretrain", "spread"]

Open = Callable[[Config, "Corpus", torch.device], tuple[Loader, Stream | None]]


def pretrain(
    config: Config,
    corpus: Corpus,
    out: str | os.PathLike[str],
    *,
    resume: bool = False,
    allow: Sequence[str] = (),
    max_minutes: float | None = None,
    open_data: Open | None = None,
) -> dict[str, Any]:
    """Trains ASCNet on the videos of a corpus.

    Writes to `out`: config.yaml (resolved), checkpoints/, metrics.jsonl (a line per step), tensorboard/, summary.json,
    and skipped.jsonl (the videos of steps whose loss was not finite). Of several processes the first one writes.

    Args:
        config: All settings.
        corpus: The videos.
        out: Folder of the run; all processes must see it.
        resume: Go on from the newest checkpoint of `out`; where there is none, start. Implied where `torchrun` has
            started the processes anew after a failure.
        allow: Names of settings, or sections, in which a resumed run may differ from its checkpoint.
        max_minutes: Stop and save before so much time is over.
        open_data: Makes the loader and the stream of positives; by default those of dali_pipes.

    Returns:
        The summary: `steps` made in all, `total_steps`, `skipped` of them for their loss, `interrupted` (the run ended
        early) and `stopped_by` ("SIGINT", "SIGTERM", "time limit" or None), `resumed_from` (step or None), `checkpoint`
        (path), `processes`, `seconds` of this process, and the last step's `loss`, `loss_acp`, `loss_scp`,
        `feature_std`, `clips_per_second`, `wait_share`.

    Raises:
        ConfigError: If the settings cannot be used here.
        CheckpointError: If `out` holds a run and `resume` is not set, its checkpoint does not fit, or the last
            checkpoint cannot be written.
        TrainingError: If the loss of more than `optim.max_skipped` steps in a row is not finite.
    """
    run, started = Path(out), time.monotonic()
    limit = TimeLimit(max_minutes, started)
    check_names(allow)
    with World.join(config.device) as world, ExitStack() as stack:
        precision = Precision(config.precision, world.device)
        saved: dict[str, Any] | None = None
        changed: list[str] = []
        there = world.share(partial(check_new, run, resume or restarted()))
        with world.together():
            if there:
                saved, changed = open_saved(run, config, corpus, allow)
            if world.is_first:
                run.mkdir(parents=True, exist_ok=True)
        if config.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            stack.callback(torch.use_deterministic_algorithms, torch.are_deterministic_algorithms_enabled())
            torch.use_deterministic_algorithms(True)
        interrupt = stack.enter_context(catch_interrupts())
        with world.together():
            if world.is_first:
                config.save(run / "config.yaml")
            loader, stream = (open_data or partial(open_clips, world=world))(config, corpus, world.device)
            stack.callback(loader.close)
            if stream is not None:
                stack.callback(stream.close)
        train = TrainStep.fresh(config, corpus, world, resumed=saved is not None)
        total, warmup = run_length(config, len(loader)), round(config.optim.warmup_epochs * len(loader))
        videos = config.data.batch_size * world.size
        peak = optim.peak_rate(config.optim, videos)
        ahead = LookAhead(
            loader,
            stream,
            train.appearance_target,
            PositiveSearch(train.bank, config.retrieval, config.seed, world),
            depth=config.retrieval.lookahead,
            total=total,
            symmetric=config.symmetric,
            parts=config.optim.accumulate,
            world=world,
            joint_norm=world.size == 1 or joint_norm(config, world),
        )
        state = RunState(config, corpus, world, train.model, train.optimizer, train.scaler, train.bank, loader, ahead)
        notes = []
        with world.together():
            if saved is not None:
                notes = state.restore(saved, changed, total)
                train.running.keep()
                if world.is_first and state.step != saved["step"]:
                    _set_aside(run, saved["step"])
        resumed_from, saved = (state.step if saved is not None else None), None

        log: TrainLog | Silence = Silence()
        with world.together():
            if world.is_first:
                settings = config.to_dict()
                log = TrainLog(
                    run, total, state.step, config.log, watch_loss=False, world_size=world.size, settings=settings
                )
                monitor = stack.enter_context(Monitor(world.device, config.log.monitor, say=log.say))
                log.add_source(monitor.read)
                log.add_source(ReplacedVideos(loader, stream).read)
                log.add_source(StageLoad(loader, stream).read)
        stack.callback(log.close)
        profiler = stack.enter_context(Profiler(run, config.log.profile, world.device, rank=world.rank, say=log.say))
        log.say(
            f"{len(loader)} steps an epoch, {total} in all, {videos} videos a step on {world.device} in "
            f"{precision.name}; peak lr {peak:.4g}"
            + (f"; {world.size} processes" if world.size > 1 else "")
            + (f"; resumed at step {state.step}" if resumed_from else "")
        )
        for note in notes:
            log.say(f"resumed: {note}")
        saver = Saver(state, run, log.say, run / "checkpoints" / "last.pt" if resumed_from is not None else None)
        skips = Skips(config.optim.max_skipped, run, corpus, world, log.say)
        labels = np.asarray(corpus.labels)
        monitor_knn = _knn(config, corpus, world)

        def reason() -> int:
            return REASONS.index("time limit" if limit.reached() else interrupt.name)

        stopped = max(world.everyone(reason()))
        while state.step < total and not stopped:
            profiler.advance(state.step)
            begun, waited = time.perf_counter(), ahead.waited
            item = ahead.next()
            # Another search, so only now and then.
            compared = ahead.depth > 0 and (state.step + 1) % config.log.interval == 0
            agreement = ahead.agreement(item) if compared else (0, 0)
            rate = optim.rate_at(
                state.step, total, warmup, peak, config.optim.final_lr_ratio, config.optim.warmup_start
            )
            momentum = ema.momentum_at(state.step, total, config.ema.momentum, config.ema.final)
            for group in train.optimizer.param_groups:
                group["lr"] = rate
            outcome = train(item, ahead, momentum)
            state.step += 1
            state.skipped += not outcome.finite
            seconds = time.perf_counter() - begun
            limit.saw_step(seconds)
            # One exchange for all that the processes have to know of each other.
            positives, right, known, agreed, asked, waits, *reasons = world.total(
                sum(int((rows >= 0).sum()) for rows in item.chosen),
                *same_label(labels, item),
                *agreement,
                ahead.waited - waited,
                *(reason() == number for number in range(len(REASONS))),
            )
            stopped = max(number for number, count in enumerate(reasons) if count)
            log.record(
                {
                    "step": state.step,
                    "epoch": state.step / len(loader),
                    **outcome.values,
                    "lr": rate,
                    "ema_momentum": momentum,
                    "scp_share": positives / (videos * len(item.chosen)),
                    "positive_same_label": right / known if known else None,
                    "retrieval_agreement": agreed / asked if asked else None,
                    "skipped": state.skipped,
                    "clips_per_second": (2 * videos + positives) / seconds,
                    "wait_share": waits / world.size / seconds,
                    "step_seconds": seconds,
                    **(monitor_knn(train.model, state.step) if monitor_knn is not None else {}),
                }
            )
            if not skips.saw(state.step, item, outcome.finite):
                log.flush()
                skips.give_up()
            if state.step % config.checkpoint.interval == 0 and state.step < total:
                log.flush()
                saver.save()
                limit.saw_checkpoint(saver.seconds)
        log.flush()
        saver.save(last=True)
        interrupted = state.step < total
        if interrupted:
            log.say(
                f"{REASONS[stopped]}: stopped after step {state.step} of {total}; --resume goes on from {saver.path}"
            )
        names = ("loss", "loss_acp", "loss_scp", "feature_std", "clips_per_second", "wait_share")
        summary = {
            "out": str(run),
            "steps": state.step,
            "total_steps": total,
            "skipped": state.skipped,
            "interrupted": interrupted,
            "stopped_by": REASONS[stopped] if interrupted else None,
            "resumed_from": resumed_from,
            "checkpoint": str(saver.path),
            "processes": world.size,
            "seconds": time.monotonic() - started,
            **{name: log.last.get(name) for name in names},
        }
        if world.is_first:
            with written_whole(run / "summary.json") as temporary:
                temporary.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return summary


def _knn(config: Config, corpus: Corpus, world: World) -> Callable[[ASCNet, int], dict[str, float]] | None:
    """Classifies by nearest neighbours at every `eval.every`-th step; all processes call it. None where never."""
    every = config.eval.every
    if every is None:
        return None
    from ascnet.evaluate.knn import KnnMonitor

    with world.together():
        monitor = KnnMonitor(
            corpus, config.to_dict(), world=world, videos=config.eval.videos, threads=config.data.threads
        )
    return lambda model, step: monitor(model.online.encoder) if step % every == 0 else {}


class Silence:
    """The log of a process that does not write."""

    def __init__(self) -> None:
        self.last: dict[str, Any] = {}

    def record(self, row: dict[str, Any]) -> None:
        """Nothing."""

    def flush(self) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def same_label(labels: np.ndarray[Any, np.dtype[np.int64]], item: Item) -> tuple[int, int]:
    """How many positives have the label of their sample, and of how many both labels are known."""
    own, chosen = np.tile(item.videos, len(item.chosen)), np.concatenate(item.chosen)
    own, chosen = labels[own[chosen >= 0]], labels[chosen[chosen >= 0]]
    known = (own >= 0) & (chosen >= 0)
    return int((own == chosen)[known].sum()), int(known.sum())


def _set_aside(run: Path, step: int) -> None:
    """Keeps what was recorded till then under another name, for the steps to come have other numbers."""
    recorded = run / "metrics.jsonl"
    if recorded.exists():
        os.replace(recorded, recorded.with_name(f"metrics.until_step_{step}.jsonl"))
