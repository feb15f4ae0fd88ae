"""All decoders side by side, each in its own process: opened, compared with a full decode, timed in turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ascnet.logs.monitor import Monitor
from bench.decoders.base import AHEAD, Decoder, Job
from bench.decoders.running import WAY, Runner, Turn
from bench.measure import figures
from bench.measure.check import REACH, Check, judge
from bench.measure.isolated import Failure, Isolated, Lost
from bench.measure.reference import RESIZES, Frames, frames_around
from bench.measure.rounds import Figure, Round, measure
from bench.measure.stats import ratios
from dali_pipes import Progress

# Side of the pictures that are compared, pixels.
SIDE = 64
# Seconds between two looks at the load of the GPU's decoder.
LOOKS = 0.1


class Contest:
    """Opens decoders when entered, and ends their processes when left.

    Args:
        decoders: Name -> decoder.
        job: What they are told.
        timeout: Seconds after which one that has not answered has failed.
        seed: Of the orders.
        say: Shows a line.

    Attributes:
        missing: Name -> why it is not here or does not take the job.
        failed: Name -> how it failed while it was opened or run. It takes part in nothing more.
    """

    def __init__(
        self,
        decoders: Mapping[str, type[Decoder]],
        job: Job,
        *,
        timeout: float,
        seed: int,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.decoders, self.job, self.timeout, self.seed, self.say = decoders, job, timeout, seed, say
        self.missing: dict[str, str] = {}
        self.failed: dict[str, str] = {}
        self._processes: dict[str, Isolated] = {}
        self._monitor: Monitor | None = None

    def __enter__(self) -> Contest:
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all processes."""
        for name in list(self._processes):
            self._drop(name)
        if self._monitor is not None:
            self._monitor.close()

    def compare(self, numbers: Sequence[int], lowest_psnr: float) -> dict[str, Check]:
        """Compare what each delivers for some requests with a full sequential decode.

        One that raises is wrong, with what it raised as the reason; one whose process is lost has failed.
        """
        requests = [self.job.requests[number] for number in numbers]
        truth = frames_around(requests, SIDE, reach=REACH, ways=[RESIZES[WAY]])
        checks = {}
        for name, process in list(self._processes.items()):
            self.say(f"comparing {name}")
            try:
                delivered = process.call("deliver", list(numbers), SIDE, timeout=self.timeout)
            except Lost as error:
                self._fail(name, error)
                continue
            except Failure as error:
                checks[name] = Check(reason=self._named(error))
                continue
            checks[name] = self._judge(delivered, numbers, truth, lowest_psnr)
        return checks

    def time(self, names: Sequence[str], numbers: Sequence[int], *, rounds: int, warmup: int, what: str) -> list[Round]:
        """Time some of them in interleaved rounds over the requests; who fails in any of these is in none."""
        running = {name: name for name in names if name in self._processes}
        if not running:
            return []
        with Progress(f"{what}: timing", (rounds + warmup) * len(running), unit="turns") as progress:

            def told(name: str, number: int, figure: Figure) -> None:
                progress.advance()

            done = measure(
                running,
                list(numbers),
                rounds=rounds,
                warmup=warmup,
                batch_size=self.job.batch_size,
                lead=AHEAD,
                seed=self.seed,
                device=torch.device("cpu"),
                told=told,
                timer=self._turn,
            )
        return [
            Round(
                [name for name in turn.order if name not in self.failed],
                {name: figure for name, figure in turn.figures.items() if name not in self.failed},
            )
            for turn in done
        ]

    def _open(self) -> None:
        if self.job.device != "cpu":
            self._monitor = Monitor(torch.device(self.job.device), LOOKS, say=self.say)
        for name, kind in self.decoders.items():
            absent = [module for module in kind.needs if not _installed(module)]
            if kind.where == "cuda" and self.job.device == "cpu":
                self.missing[name] = "needs a GPU (--device cuda)"
            elif absent:
                self.missing[name] = f"{absent[0]}: not installed"
            else:
                self._processes[name] = Isolated(Runner, kind, self.job)
        for name, process in list(self._processes.items()):
            self.say(f"opening {name}")
            try:
                reason = process.call("open", timeout=self.timeout)
            except Failure as error:
                self._fail(name, error)
                continue
            if reason is not None:
                self.missing[name] = self._named(reason)
                self._drop(name)

    def _judge(
        self,
        delivered: list[tuple[list[int], NDArray[np.uint8]]],
        numbers: Sequence[int],
        truth: Frames,
        lowest_psnr: float,
    ) -> Check:
        def pictures() -> Iterator[tuple[str, int, NDArray[np.uint8]]]:
            for number, (which, small) in zip(numbers, delivered, strict=True):
                for frame, picture in zip(which, small, strict=True):
                    yield self.job.requests[number].path, frame, picture

        return judge(pictures, truth, lowest_psnr=lowest_psnr)

    def _turn(self, name: str, batches: Sequence[Sequence[int]], *, lead: int, device: torch.device) -> Figure:
        """One decoder's round; what is meaningless is returned for one that has failed."""
        nothing = Figure(0, float("nan"), float("nan"), float("nan"))
        if name in self.failed:
            return nothing
        if self._monitor is not None:
            self._monitor.read()
        try:
            turn: Turn = self._processes[name].call("turn", batches, lead, timeout=self.timeout)
        except Failure as error:
            self._fail(name, error)
            return nothing
        seen = self._monitor.read() if self._monitor is not None else {}
        return replace(turn, decoder_load=seen.get("gpu/decoder_load"))

    def _fail(self, name: str, error: Failure) -> None:
        self.failed[name] = self._named(error)
        self.say(f"{name} failed: {self.failed[name]}")
        self._drop(name)

    def _drop(self, name: str) -> None:
        self._processes.pop(name).close()

    def _named(self, reason: object) -> str:
        """A reason in which files have only their names."""
        text = str(reason)
        for path in {request.path for request in self.job.requests}:
            text = text.replace(path, Path(path).name)
        return text


def summarise(rounds: Sequence[Round]) -> dict[str, dict[str, Any]]:
    """Figures of each decoder, and the ratio of ours to it, pair by pair within rounds.

    Ours is the one on the GPU where it takes part, else the one on the CPU.

    Returns:
        Decoder -> what is measured -> figure.
    """
    if not rounds:
        return {}
    turns = {name: [turn.figures[name] for turn in rounds] for name in rounds[0].figures}
    ours = next((name for name in ("ours-cuda", "ours-cpu") if name in turns), None)
    summary: dict[str, dict[str, Any]] = {}
    for name, done in turns.items():
        known = [turn for turn in done if isinstance(turn, Turn)]
        rate = [turn.samples_per_second for turn in known]
        summary[name] = {
            "clips/s": figures.figure(rate, "clips/s", "higher"),
            "frames/s": figures.figure([turn.frames_per_second for turn in known], "frames/s", "higher"),
            "CPU s/clip": figures.figure([turn.cpu_seconds_per_sample for turn in known], "s", "lower"),
            "memory": figures.figure([turn.memory_mib for turn in known], "MiB", "lower"),
        }
        loads = [turn.decoder_load for turn in known if turn.decoder_load is not None]
        if loads and len(loads) == len(known):
            summary[name]["decoder load"] = figures.figure(loads, "share", "higher")
        if ours is not None and name != ours:
            own = [turn.samples_per_second for turn in turns[ours]]
            summary[name][f"{ours} / it"] = figures.figure(ratios(own, rate), "x", "higher")
    return summary


def _installed(module: str) -> bool:
    """Whether the package of a module is there, without importing it."""
    with suppress(ImportError, ValueError):
        return find_spec(module.partition(".")[0]) is not None
    return False
