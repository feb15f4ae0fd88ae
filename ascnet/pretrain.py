"""Pretraining from beginning to end: data, model, memory bank, the loop, checkpoints.

    summary = pretrain(Config.load("configs/ucf101.yaml"), Corpus.open("ucf101.parquet"), Path("runs/ucf101"))

A checkpoint holds all that the next step depends on, so a run that was stopped (Ctrl-C, SIGTERM, or killed) and resumed
makes the same steps as one that was not.
"""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ascnet import checkpoint, ema, optim
from ascnet.build import build_bank, build_model, open_clips, run_length
from ascnet.config import Config
from ascnet.errors import CheckpointError
from ascnet.interrupt import catch_interrupts
from ascnet.log import TrainLog
from ascnet.memory_bank import MemoryBank
from ascnet.model import ASCNet
from ascnet.precision import Precision, pick_device
from ascnet.retrieval import DIRECTIONS, Item, Loader, LookAhead, PositiveSearch, Stream
from ascnet.settings import flatten

if TYPE_CHECKING:
    from dali_pipes import Corpus

__all__ = ["pick_device", "pretrain", "same_label", "spread", "train_step"]

# Settings that a resumed run may change: none of them changes what is computed.
FREE = ("log.", "checkpoint.", "data.corpus", "data.threads", "data.prefetch", "device")


def pretrain(
    config: Config,
    corpus: Corpus,
    out: str | os.PathLike[str],
    *,
    resume: bool = False,
    open_data: Callable[[Config, Corpus, torch.device], tuple[Loader, Stream | None]] | None = None,
) -> dict[str, Any]:
    """Trains ASCNet on the videos of a corpus.

    Writes to `out`: config.yaml (resolved), checkpoints/, metrics.jsonl (a line per step), tensorboard/, summary.json.

    Args:
        config: All settings.
        corpus: The videos.
        out: Folder of the run.
        resume: Go on from the newest checkpoint of `out`; where there is none, start.
        open_data: Makes the loader and the stream of positives; by default those of dali_pipes.

    Returns:
        The summary: `steps` made in all, `total_steps`, `interrupted` (a signal ended the run early), `resumed_from`
        (step or None), `checkpoint` (path), `seconds` of this process, and the last step's `loss`, `loss_acp`,
        `loss_scp`, `feature_std`, `clips_per_second`, `wait_share`.

    Raises:
        ConfigError: If the settings cannot be used here.
        CheckpointError: If `out` holds a run and `resume` is not set, or its checkpoint does not fit.
        TrainingError: If the loss is no longer a number.
    """
    run, started = Path(out), time.monotonic()
    device = pick_device(config.device)
    precision = Precision(config.precision, device)
    saved = _saved_run(run, config, corpus, resume)
    run.mkdir(parents=True, exist_ok=True)
    config.save(run / "config.yaml")
    torch.manual_seed(config.seed)
    with ExitStack() as stack:
        if config.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            stack.callback(torch.use_deterministic_algorithms, torch.are_deterministic_algorithms_enabled())
            torch.use_deterministic_algorithms(True)
        interrupt = stack.enter_context(catch_interrupts())
        loader, stream = (open_data or open_clips)(config, corpus, device)
        stack.callback(loader.close)
        if stream is not None:
            stack.callback(stream.close)
        total, warmup = run_length(config, len(loader)), round(config.optim.warmup_epochs * len(loader))
        peak = optim.peak_rate(config.optim, config.data.batch_size)

        model = build_model(config).to(device, precision.weights)
        layout = torch.channels_last_3d if config.channels_last else torch.contiguous_format
        model = model.to(memory_format=layout).train()  # type: ignore[call-overload]
        optimizer = optim.build_optimizer(model, config.optim)
        scaler = torch.amp.GradScaler(device.type, enabled=precision.name == "fp16")
        bank = build_bank(config, corpus, device, precision)

        def prepare(clips: Tensor) -> Tensor:
            return clips.to(precision.compute).contiguous(memory_format=layout)

        def appearance_target(c_j: Tensor) -> Tensor:
            with precision.autocast():
                return model.appearance_target(prepare(c_j))

        search = PositiveSearch(bank, config.retrieval, config.seed)
        ahead = LookAhead(
            loader,
            stream,
            appearance_target,
            search,
            depth=config.retrieval.lookahead,
            total=total,
            symmetric=config.symmetric,
        )
        step = 0
        if saved is not None:
            step = saved["step"]
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            scaler.load_state_dict(saved["scaler"])
            bank.load_state_dict(saved["bank"])
            ahead.load_state_dict(saved["ahead"], left=total - step)
            _restore_rng(saved["rng"], device)
        resumed_from, saved = (step if saved is not None else None), None

        log = TrainLog(run, total, step, config.log, tolerate_overflow=precision.name == "fp16")
        stack.callback(log.close)
        log.say(
            f"{len(loader)} steps an epoch, {total} in all, {config.data.batch_size} videos a step on {device} in "
            f"{precision.name}; peak lr {peak:.4g}" + (f"; resumed at step {step}" if resumed_from else "")
        )
        labels = np.asarray(corpus.labels)

        def write_checkpoint() -> Path:
            log.flush()  # raises where the loss is not finite, so that no such state is ever saved
            payload = {
                "step": step,
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "scaler": scaler.state_dict(),
                "bank": bank.state_dict(),
                "ahead": ahead.state_dict(),
                "rng": _rng(device),
                "config": config.to_dict(),
                "versions": _versions(),
                "corpus": {"fingerprint": corpus.fingerprint, "videos": len(corpus)},
            }
            return checkpoint.save(run, step, payload, keep=config.checkpoint.keep)

        written, path = step, None
        while step < total and not interrupt:
            begun, waited = time.perf_counter(), ahead.waited
            item = ahead.next()
            rate = optim.rate_at(step, total, warmup, peak, config.optim.final_lr_ratio)
            momentum = ema.momentum_at(step, total, config.ema.momentum, config.ema.final)
            for group in optimizer.param_groups:
                group["lr"] = rate
            values = train_step(model, optimizer, scaler, bank, item, ahead, config, precision, prepare, momentum)
            step += 1
            seconds = time.perf_counter() - begun
            clips = len(item.videos) * 2 + sum(int((rows >= 0).sum()) for rows in item.chosen)
            log.record(
                {
                    "step": step,
                    "epoch": step / len(loader),
                    **values,
                    "lr": rate,
                    "ema_momentum": momentum,
                    "scp_share": float(np.mean([rows >= 0 for rows in item.chosen])),
                    "positive_same_label": same_label(labels, item),
                    "clips_per_second": clips / seconds,
                    "wait_share": (ahead.waited - waited) / seconds,
                    "step_seconds": seconds,
                }
            )
            if step % config.checkpoint.interval == 0:
                written, path = step, write_checkpoint()
        if path is None or written != step:
            path = write_checkpoint()
        interrupted = step < total
        if interrupted:
            log.say(f"{interrupt.name}: stopped after step {step} of {total}; --resume goes on from {path}")
    names = ("loss", "loss_acp", "loss_scp", "feature_std", "clips_per_second", "wait_share")
    summary = {
        "out": str(run),
        "steps": step,
        "total_steps": total,
        "interrupted": interrupted,
        "resumed_from": resumed_from,
        "checkpoint": str(path),
        "seconds": time.monotonic() - started,
        **{name: log.last.get(name) for name in names},
    }
    _write_json(run / "summary.json", summary)
    return summary


def train_step(
    model: ASCNet,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    bank: MemoryBank,
    item: Item,
    ahead: LookAhead,
    config: Config,
    precision: Precision,
    prepare: Callable[[Tensor], Tensor],
    momentum: float,
) -> dict[str, Tensor]:
    """Lines 6 to 12 of Algorithm 1 for one batch, then the bank's rows of its videos; returns scalars to record."""
    optimizer.zero_grad(set_to_none=True)
    directions = DIRECTIONS[: len(item.a_j)]
    outputs = []
    for place, (anchor, _) in enumerate(directions):
        with precision.autocast():
            c_i = prepare(item.batch.clips[:, anchor])
            output = model(c_i, item.a_j[place], partial(_positives, ahead, item, place, prepare))
        scaler.scale(output.loss / len(directions)).backward()
        outputs.append(output)
        output.loss = output.loss.detach()
    scaler.unscale_(optimizer)
    trained = [parameter for parameter in model.parameters() if parameter.grad is not None]
    norm = nn.utils.get_total_norm([parameter.grad for parameter in trained])  # type: ignore[misc]
    if config.optim.clip_norm is not None:
        nn.utils.clip_grads_with_norm_(trained, config.optim.clip_norm, norm)
    scaler.step(optimizer)
    scaler.update()
    model.update_target(momentum)

    features = item.a_j if config.retrieval.source == "target" else [output.a_i for output in outputs]
    if len(features) > 1 and config.model.normalize:
        features = [F.normalize(feature, dim=1) for feature in features]
    bank.update(torch.as_tensor(item.videos), torch.stack(features).mean(dim=0))
    speed = outputs[0].m_i
    return {
        "loss": torch.stack([output.loss for output in outputs]).mean(),
        "loss_acp": torch.stack([output.acp for output in outputs]).mean(),
        "loss_scp": torch.stack([output.scp for output in outputs]).nanmean(),
        "grad_norm": norm,
        "feature_std": spread(outputs[0].a_i),
        "motion_std": spread(speed) if speed is not None else norm.new_full((), math.nan),
    }


def _positives(
    ahead: LookAhead, item: Item, direction: int, prepare: Callable[[Tensor], Tensor]
) -> tuple[Tensor | None, Tensor]:
    c_k, found = ahead.collect(item, direction)
    return (c_k if c_k is None else prepare(c_k)), found


def spread(features: Tensor) -> Tensor:
    """Standard deviation over the batch of features (B, D) of unit length, times sqrt(D).

    1 for features all over the sphere, 0 when all have collapsed to one point (SimSiam, Chen and He 2021, section 4.1).
    """
    return F.normalize(features, dim=1).std(dim=0).mean() * math.sqrt(features.shape[1])


def same_label(labels: np.ndarray[Any, np.dtype[np.int64]], item: Item) -> float | None:
    """Share of positives with the label of their sample; None where no pair has two known labels."""
    own, chosen = np.tile(item.videos, len(item.chosen)), np.concatenate(item.chosen)
    own, chosen = labels[own[chosen >= 0]], labels[chosen[chosen >= 0]]
    known = (own >= 0) & (chosen >= 0)
    return float((own == chosen)[known].mean()) if known.any() else None


def _saved_run(run: Path, config: Config, corpus: Corpus, resume: bool) -> dict[str, Any] | None:
    last = run / "checkpoints" / "last.pt"
    if not last.exists():
        return None
    if not resume:
        raise CheckpointError(f"{run} holds a run already; add --resume to go on with it, or give another --out")
    saved = checkpoint.load(last)
    now, then = flatten(config.to_dict()), flatten(saved["config"])
    changed = [
        name
        for name in sorted(now.keys() | then.keys())
        if now.get(name) != then.get(name) and not name.startswith(FREE)
    ]
    if changed:
        shown = ", ".join(f"{name} {then.get(name)!r} -> {now.get(name)!r}" for name in changed)
        raise CheckpointError(f"{last} was made with other settings ({shown}); resume with those, or start a new run")
    if saved["corpus"]["fingerprint"] != corpus.fingerprint:
        raise CheckpointError(
            f"{last} was made with another corpus ({saved['corpus']['videos']} videos, fingerprint "
            f"{saved['corpus']['fingerprint']}); this one has {len(corpus)} and {corpus.fingerprint}"
        )
    return saved


def _rng(device: torch.device) -> dict[str, Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def _restore_rng(state: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), "torch": str(torch.__version__), "cuda": str(torch.version.cuda)}


def _write_json(path: Path, values: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)
