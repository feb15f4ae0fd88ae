"""One measurement of `python -m bench sweep`: the loader alone, or the training step fed by it, under some settings.

Everything but the clips is made once: the model, the optimiser and a full bank. Loader and stream of positives are
opened for each measurement, as a run opens them, and closed after it; nothing of one setting goes on during another.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch

from bench.measure.processes import resident
from bench.sweep.halving import LeftOut
from dali_pipes import Corpus, SpeedLoader
from dali_pipes.decode.choice import Decoder, survey
from dali_pipes.errors import first_line
from dali_pipes.heap import HeapTrimmer

if TYPE_CHECKING:
    from ascnet.config import Config
    from ascnet.retrieval import Stream
    from ascnet.training.train_step import TrainStep

Objective = Literal["loader", "step"]
UNITS: dict[Objective, str] = {"loader": "clips/s", "step": "steps/s"}

# PSNR, dB, that the worst sample must reach: of the same decoder, and of another one, which converts colours and scales
# in its own way (as `bench loader` has it: below that it is another picture).
SAME_DECODER, OTHER_DECODER = 60.0, 24.0
# Deliveries before the clock starts, beside those that fill the queue.
LEAD = 2


@dataclass(frozen=True)
class Knobs:
    """What is turned. Fields are named as the last part of their keys.

    Attributes:
        threads: Threads that read and decode on the host; the DALI graph's follow unless the configuration has some.
        prefetch: Batches kept on the way.
        decoder: Who decodes.
        lookahead: Steps between the search for a positive and its use.
    """

    threads: int
    prefetch: int
    decoder: Decoder
    lookahead: int

    def keys(self) -> dict[str, int | str]:
        """Dotted key of the configuration -> value."""
        return {KEYS[name]: value for name, value in asdict(self).items()}

    @property
    def cost(self) -> tuple[int, int, int]:
        """Of two settings that are as quick, the one with fewer threads, then with less memory, is the better one."""
        return self.threads, self.prefetch, self.lookahead

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in asdict(self).items())


KEYS = {
    "threads": "data.threads",
    "prefetch": "data.prefetch",
    "decoder": "data.decoder",
    "lookahead": "retrieval.lookahead",
}


@dataclass
class Reference:
    """The first batch as the default delivers it.

    Attributes:
        digest: Of what was asked for and of every value.
        asked: Digest of what was asked for alone.
        small: Every fourth pixel of the clips, float32.
    """

    digest: str
    asked: str
    small: torch.Tensor


class Rig:
    """Measures settings on one corpus with one configuration.

    Args:
        config: The base configuration.
        corpus: The videos.
        objective: "loader": clips/s of the loader alone. "step": training steps/s with it.
        memory_gib: A setting under which the process comes to hold more is left out.
        default: Whose clips all others must deliver.

    Attributes:
        memory: Setting -> most that the process held while it was measured, GiB.
    """

    def __init__(self, config: Config, corpus: Corpus, objective: Objective, memory_gib: float, default: Knobs) -> None:
        from ascnet.parallel.distributed import World
        from ascnet.precision import pick_device

        # Without the speed task no stream of positives is opened, which the loader alone has no use for.
        self.config = replace(config, gamma=0.0) if objective == "loader" else config
        self.corpus, self.objective, self.memory_gib, self.default = corpus, objective, memory_gib, default
        self.memory: dict[Knobs, float] = {}
        self.world = World(pick_device(config.device))
        self.device = self.world.device
        self._train: TrainStep | None = None
        self._reference: Reference | None = None
        self._checked: set[Knobs] = set()
        self._trim = HeapTrimmer(interval=0.0)

    def measure(self, knobs: Knobs, turn: int, seconds: float, limit: float) -> float:
        """Clips or steps a second.

        Args:
            knobs: The setting.
            turn: Its epoch is delivered, so that all settings of a turn get the same requests.
            seconds: How long to count.
            limit: Seconds after which to stop whatever has been counted.

        Raises:
            LeftOut: If the setting delivers other clips, takes too much memory, fails, or does not get under way.
        """
        until = time.perf_counter() + limit
        try:
            if knobs not in self._checked:
                self._check(knobs)
                self._checked.add(knobs)
            return self._rate(knobs, turn, seconds, until)
        except (RuntimeError, ValueError, MemoryError) as error:  # of DALI, torch and ours
            raise LeftOut(first_line(error)) from error

    def _rate(self, knobs: Knobs, turn: int, seconds: float, until: float) -> float:
        with ExitStack() as stack:
            loader, stream = self._open(knobs, turn, stack)
            deliveries = self._deliveries(loader, stream, knobs)
            lead = LEAD + (knobs.prefetch if self.objective == "step" else 0)
            for number in range(lead):
                next(deliveries)
                self._watch(knobs)
                if time.perf_counter() > until:
                    raise LeftOut(f"{number + 1} of {lead} batches before the measurement took all its time")
            self._wait()
            count, began = 0, time.perf_counter()
            while True:
                next(deliveries)
                count += 1
                self._watch(knobs)
                now = time.perf_counter()
                if now - began >= seconds or now > until:
                    break
            self._wait()
            each = self.config.data.batch_size * len(self.config.data.speeds) if self.objective == "loader" else 1
            return each * count / (time.perf_counter() - began)

    def _open(self, knobs: Knobs, epoch: int, stack: ExitStack) -> tuple[SpeedLoader, Stream | None]:
        from ascnet.build import open_clips

        # What closed settings left behind is no memory of this one.
        self._trim()
        config = replace(
            self.config,
            data=replace(self.config.data, threads=knobs.threads, prefetch=knobs.prefetch, decoder=knobs.decoder),
        )
        opened, stream = open_clips(config, self.corpus, self.device, self.world)
        loader = cast(SpeedLoader, opened)
        stack.callback(loader.close)
        if stream is not None:
            stack.callback(stream.close)
        loader.set_epoch(epoch)
        return loader, stream

    def _deliveries(self, loader: SpeedLoader, stream: Stream | None, knobs: Knobs) -> Iterator[None]:
        """One after another, without end: a batch, or a step of training."""
        if self.objective == "loader":
            while True:
                for _ in loader:
                    yield
        from ascnet.retrieval import LookAhead, PositiveSearch

        if self._train is None:
            self._train = build_step(self.config, self.corpus, loader, self.world)
        train = self._train
        ahead = LookAhead(
            loader,
            stream,
            train.appearance_target,
            PositiveSearch(train.bank, self.config.retrieval, self.config.seed, self.world),
            depth=knobs.lookahead,
            total=1 << 62,
            symmetric=self.config.symmetric,
            parts=self.config.optim.accumulate,
            world=self.world,
        )
        while True:
            train(ahead.next(), ahead, 1.0)
            yield

    def _check(self, knobs: Knobs) -> None:
        """Hold the first batch against the default's.

        Raises:
            LeftOut: If it holds other clips.
        """
        if self._reference is None:
            self._reference = self._first(self.default)
        if knobs == self.default:
            return
        mine, theirs = self._first(knobs), self._reference
        if mine.digest == theirs.digest:
            return
        if mine.asked != theirs.asked:
            raise LeftOut("other clips are delivered than by the default")
        lowest = SAME_DECODER if knobs.decoder == self.default.decoder else OTHER_DECODER
        found = lowest_psnr(mine.small, theirs.small, self.config.data.augment.std)
        if not found >= lowest:  # so written that NaN is refused
            raise LeftOut(f"its pictures have a PSNR of {found:.1f} dB to the default's, less than {lowest:g}")

    def _first(self, knobs: Knobs) -> Reference:
        with ExitStack() as stack:
            loader, _ = self._open(knobs, 0, stack)
            batch = next(iter(loader))
            asked = digest(batch.videos, batch.starts, batch.speeds, batch.positions)
            return Reference(
                digest=asked + digest(batch.clips), asked=asked, small=batch.clips[..., ::4, ::4].float().cpu()
            )

    def _watch(self, knobs: Knobs) -> None:
        held = resident() / 1024
        self.memory[knobs] = max(self.memory.get(knobs, 0.0), held)
        if held > self.memory_gib:
            raise LeftOut(f"holds {held:.2f} GiB, more than the {self.memory_gib:.2f} GiB of --memory-gib")

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def build_step(config: Config, corpus: Corpus, loader: SpeedLoader, world: Any) -> TrainStep:
    """A training step that changes no weights and finds a positive for every sample, from the first step on.

    The learning rate is 0, which costs as much as any other; so all settings train the same model. The bank holds
    random features of all videos trained on: with an empty one no positives would be decoded.
    """
    from ascnet.training.train_step import TrainStep

    step = TrainStep.fresh(config, corpus, world)
    for group in step.optimizer.param_groups:
        group["lr"] = 0.0
    for rows in torch.as_tensor(loader.sampler.videos).split(4096):
        step.bank.update(rows, torch.randn(len(rows), config.model.projector_dim, device=world.device))
    return step


def decoders(corpus: Corpus, device: torch.device, base: Decoder) -> list[Decoder]:
    """The values of `data.decoder` that differ in what they do with this corpus, `base` standing for its equals.

    DALI takes the same videos whenever it takes as many: "auto" takes none but those that "dali" takes.
    """
    kept: dict[int, Decoder] = {}
    for decoder in (base, *(other for other in _DECODERS if other != base)):
        counts = survey(corpus, "gpu" if device.type == "cuda" else "cpu", decoder)
        kept.setdefault(sum(count for choice, count in counts.items() if choice.decoder == "dali"), decoder)
    return list(kept.values())


_DECODERS: tuple[Decoder, ...] = ("auto", "host", "dali")


def digest(*tensors: torch.Tensor) -> str:
    """Short hash of all values."""
    whole = hashlib.sha256()
    for tensor in tensors:
        whole.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return whole.hexdigest()[:16]


def lowest_psnr(one: torch.Tensor, other: torch.Tensor, std: tuple[float, float, float]) -> float:
    """PSNR of the worst sample of normalised clips ``(B, V, 3, T, H, W)``, dB; of pictures of 0 to 255."""
    scale = 255 * torch.tensor(std).view(3, 1, 1, 1)
    error = ((one - other) * scale).square().flatten(1).mean(dim=1).max()
    return float(10 * torch.log10(255.0**2 / error.clamp(min=1e-9)))


def memory_available() -> float:
    """Memory that this process can still have, GiB: what the machine has free, or its control group leaves."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(int(line.split()[1]) / 2**20 for line in lines if line.startswith("MemAvailable"))
    group = Path("/sys/fs/cgroup")
    try:
        most, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):  # no control groups of version 2, or "max": no limit
        return free
    return min(free, (most - used) / 2**30)
