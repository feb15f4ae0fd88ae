"""The training of a classifier from its first step to its last, its validations, and the tests behind it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from ascnet import checkpoint
from ascnet.errors import UserError
from ascnet.evaluate.clip_scores import VideoScores, Views, score_videos
from ascnet.evaluate.metrics import summary, top_k
from ascnet.evaluate.recognise_config import RecogniseConfig, learning_rate
from ascnet.evaluate.recognise_state import RecogniseState
from ascnet.evaluate.recognise_step import TrainStep
from ascnet.logs.writers import JsonLines
from ascnet.parallel.distributed import World
from ascnet.precision import Precision
from ascnet.training.interrupt import REASONS, TimeLimit
from ascnet.training.saving import Saver
from dali_pipes import Corpus, Progress

Say = Callable[[str], None]


def views_of(config: RecogniseConfig, clips: int, crops: int = 1) -> Views:
    """The clips of a validation or of a test."""
    data = config.data
    assert data.augment.mean is not None and data.augment.std is not None
    return Views(
        frames=data.frames, size=data.size, clips=clips, crops=crops, average=config.test.average, speed=data.speed,
        fps=data.fps, short=data.short, mean=data.augment.mean, std=data.augment.std,
    )  # fmt: skip


def say_first(world: World, say: Say, text: str) -> None:
    """Shows a line, on the first process."""
    if world.is_first:
        say(text)


class Job:
    """One training and its tests."""

    def __init__(
        self,
        state: RecogniseState,
        precision: Precision,
        layout: torch.memory_format,
        config: RecogniseConfig,
        corpus: Corpus,
        held: NDArray[np.int64],
        tested: NDArray[np.int64],
        run: Path,
        stack: ExitStack,
        say: Say,
        progress: bool,
    ) -> None:
        """
        Args:
            state: Classifier, optimiser, loader and place of the run.
            precision: Number format and device.
            layout: Order of the numbers of clips and filters.
            config: All settings, resolved.
            corpus: The videos, with the splits that they came with.
            held: Row numbers of the videos held out of training.
            tested: Row numbers of the videos to test on.
            run: Folder of the run.
            stack: Closes what is opened here.
            say: Shows a line.
            progress: Whether to show progress.
        """
        self.state, self.precision, self.config, self.corpus = state, precision, config, corpus
        self.world, self.run, self.tested, self.stack = state.world, run, tested, stack
        self.chosen_on = tested if config.protocol == "rspnet" else held
        self.say: Say = partial(say_first, state.world, say)
        self.shown = progress and state.world.is_first
        self.steps = len(state.loader)
        self.total = config.epochs * self.steps
        self.left_out: dict[int, str] = {}
        self.writer: JsonLines | None = None
        self.step = TrainStep(state, precision, layout, corpus.labels, self.total)

    def announce(self, resumed: bool) -> None:
        """Says what is trained on what, with which total batch and learning rate."""
        config, world = self.config, self.world
        total = config.data.batch_size * world.size
        kind = "linear classifier on frozen features" if config.model.frozen else "all weights"
        self.say(
            f"{kind}: {len(self.state.loader.sampler.videos)} videos to train on, {len(self.chosen_on)} to choose by "
            f"({'the test split, as published' if config.protocol == 'rspnet' else 'held out of training'}), "
            f"{len(self.tested)} to test; {config.model.encoder} from {config.model.checkpoint or 'random weights'}"
        )
        self.say(
            f"batch {config.data.batch_size} x {world.size} process(es) = {total} videos a step in total; peak lr "
            f"{learning_rate(config.optim, total):.4g}, {config.optim.schedule}; {self.steps} steps an epoch, "
            f"{self.total} in all; {self.precision.name} on {world.device}"
            + (f"; resumed at step {self.state.step}" if resumed else "")
        )

    def train(self, reason: Callable[[], int], limit: TimeLimit, resumed: bool) -> int:
        """To the last step, or to where it is stopped; the number of the reason in `REASONS`, 0 at the end."""
        state, config = self.state, self.config
        # Only step, world and save are used.
        saver = Saver(cast(Any, state), self.run, self.say, self.run / "checkpoints" / "last.pt" if resumed else None)
        self.writer = JsonLines(self.run, state.step) if self.world.is_first else None
        if self.writer is not None:
            self.stack.callback(self.writer.close)
        videos = config.data.batch_size * self.world.size
        rows: list[dict[str, Any]] = []

        def flush() -> None:
            values = self.step.finished()
            for row, loss in zip(rows, values, strict=True):
                row["loss"] = loss
            if rows:
                self._record(rows, {"mean/loss": sum(values) / len(values)})
            rows.clear()

        stopped = self._agreed(reason())
        while not stopped:
            epoch, place = divmod(state.step, self.steps)
            if not place and epoch > state.validated:
                self._validate(epoch)
            if state.step == self.total:
                break
            label = f"epoch {epoch + 1}/{config.epochs}"
            with Progress(label, (self.steps - place) * videos, enabled=self.shown) as meter:
                for batch in state.loader:
                    begun = time.perf_counter()
                    rate = self.step(batch)
                    state.step += 1
                    rows.append({"step": state.step, "epoch": state.step / self.steps, "lr": rate})
                    meter.advance(videos)
                    limit.saw_step(time.perf_counter() - begun)
                    if state.step % config.log_interval == 0:
                        flush()
                    if state.step % config.checkpoint_interval == 0:
                        flush()
                        saver.save()
                        limit.saw_checkpoint(saver.seconds)
                    stopped = self._agreed(reason())
                    if stopped:
                        break
            flush()
        saver.save(last=True)
        return stopped

    def _agreed(self, reason: int) -> int:
        counts = self.world.total(*(reason == number for number in range(len(REASONS))))
        return max(number for number, count in enumerate(counts) if count)

    def _record(self, rows: list[dict[str, Any]], interval: dict[str, Any]) -> None:
        if self.writer is None:
            return
        try:
            self.writer.write(rows, {"step": self.state.step, **interval})
        except OSError as error:
            # A full disk must not end the training; what was not written is kept and tried again.
            self.say(f"warning: metrics.jsonl cannot be written: {error.strerror or error}")

    def _validate(self, epoch: int) -> None:
        state, config = self.state, self.config
        state.validated = epoch
        if not len(self.chosen_on) or (epoch % config.validation.every and epoch != config.epochs):
            return
        found = self._scores(self.chosen_on, views_of(config, config.validation.clips), f"validate {epoch}")
        assert found is not None
        top1 = top_k(found.scores, self.corpus.labels[found.rows])[1]
        state.history.append({"epoch": epoch, "validation_top1": top1})
        self._record([], state.history[-1])
        better = not state.best or top1 > state.best["top1"]
        if better:
            state.best = {"epoch": epoch, "top1": top1}
            state.save_best(self.run)
        self.say(f"epoch {epoch}/{config.epochs}: validation top-1 {top1:.2f} %{', the best so far' if better else ''}")

    def test(self, stop: Callable[[], bool]) -> dict[str, Any] | None:
        """Scores of the last and of the best model on the test split; None where `stop` said so."""
        config, state = self.config, self.state
        views = views_of(config, config.test.clips, config.test.crops)
        found: dict[str, Any] = {}
        models = {"last": config.epochs}
        if state.best and state.best["epoch"] != config.epochs:
            models["best"] = state.best["epoch"]
        for name, epoch in models.items():
            if name == "best":
                best = checkpoint.load(self.run / "checkpoints" / "best.pt")
                state.classifier.load_weights(best["model"])
            scores = self._scores(self.tested, views, f"test {name}", stop)
            if scores is None:
                return None
            found[name] = {
                "epoch": epoch,
                **summary(scores.scores, self.corpus.labels[scores.rows], self.corpus.classes),
            }
        if state.best and "best" not in found:
            found["best"] = found["last"]
        if state.best:
            found["best"] = {**found["best"], "validation_top1": state.best["top1"]}
        found["left_out"] = {self.corpus[row].uri: why for row, why in sorted(self.left_out.items())}
        return found

    def _scores(
        self, rows: NDArray[np.int64], views: Views, what: str, stop: Callable[[], bool] = lambda: False
    ) -> VideoScores | None:
        """Scores by all processes, each of which has its share of the videos; the same on all of them."""
        world = self.world
        own = score_videos(
            self.state.classifier,
            self.corpus,
            rows[world.rank :: world.size],
            views,
            precision=self.precision,
            batch_size=self.config.test.batch_size,
            threads=self.config.data.threads,
            prepare=self.step.prepare,
            stop=stop,
            what=what,
            progress=self.shown,
        )
        parts = world.everyone(own)
        if any(part is None for part in parts):
            return None
        found = [part for part in parts if part is not None]
        self.left_out |= {row: why for part in found for row, why in part.failed.items()}
        kept = [part for part in found if len(part.rows)]
        if not kept:
            raise UserError(
                f"{what}: none of the {len(rows)} videos could be decoded; the first: {self.corpus[rows[0]].uri}"
            )
        order = np.argsort(np.concatenate([part.rows for part in kept]))
        return VideoScores(
            np.concatenate([part.rows for part in kept])[order],
            np.concatenate([part.scores for part in kept])[order],
            self.left_out,
        )
