"""What settings and transcoded copies would change: measured on this machine, the whole then predicted by the verdict.

Threads and augmentation are tried with the whole loader. Of copies a few are made in a temporary folder; the same clips
are decoded from them and from the originals, and what changes is the stages that decoding consists of.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ascnet.config import Config
from bench.measure.stats import estimate, ratios
from bench.stages.alone import on_threads
from bench.stages.alone_graph import Augmented, DaliDecode
from bench.stages.rung import Work
from bench.verdict import Change, Observed, predict
from dali_pipes import ClipRequest, Corpus
from dali_pipes.corpus.transcode import PRESETS, Encoded, encode
from dali_pipes.errors import DataError, VideoError
from dali_pipes.stages import StageTime, StageTimes

# Longer videos are not transcoded for a try: it would take longer than all the rest.
MOST_FRAMES = 2000
# Clips decoded from each copy, and as many from its original.
CLIPS = 6
ON_COPIES = ("read", "cut", "decode")


@dataclass(frozen=True)
class Variant:
    """Another setting of the loader.

    Attributes:
        name: What would be set, as a configuration has it.
        config: With it.
    """

    name: str
    config: Config


def variants(config: Config, threads: int) -> list[Variant]:
    """The loader with a thread more and one fewer, and without what its augmentation costs most for."""
    found = []
    for count in (threads - 1, threads + 1):
        if count >= 1:
            found.append(Variant(f"threads={count}", replace(config, data=replace(config.data, threads=count))))
    augment = config.data.augment
    if augment.grayscale > 0 or (augment.jitter > 0 and max(_colours(config)) > 0):
        plain = replace(augment, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0, jitter=0.0, grayscale=0.0)
        found.append(Variant("no change of colours", replace(config, data=replace(config.data, augment=plain))))
    if augment.blur > 0:
        sharp = replace(augment, blur=0.0)
        found.append(Variant("no blur", replace(config, data=replace(config.data, augment=sharp))))
    return found


def _colours(config: Config) -> tuple[float, float, float, float]:
    augment = config.data.augment
    return augment.brightness, augment.contrast, augment.saturation, augment.hue


def compared(base: Sequence[float], other: Sequence[float]) -> dict[str, float | int]:
    """How many times as quick, from rates of the same rounds; median and interval."""
    return estimate(ratios(other, base)).as_dict()


@dataclass(frozen=True)
class Copies:
    """What a transcode preset does to the videos that were tried.

    Attributes:
        preset: Its name.
        videos: How many were tried.
        clips: Clips decoded from each kind.
        bytes: Size of the copies by that of the originals.
        factors: Stage -> its time on copies by its time on originals.
        times: How many times as quick the workers' part is.
    """

    preset: str
    videos: int
    clips: int
    bytes: float
    factors: dict[str, float]
    times: float

    def change(self, observed: Observed) -> Change:
        """Every stage that decoding consists of, as it would be."""
        known = {stage.name: stage for stage in observed.stages}
        stages = [known[name].scaled(factor) for name, factor in self.factors.items() if name in known]
        return Change(f"`dali-pipes transcode --preset {self.preset}`", stages=stages)

    def as_dict(self, observed: Observed) -> dict[str, Any]:
        return {
            "preset": self.preset,
            "videos": self.videos,
            "clips": self.clips,
            "bytes": self.bytes,
            "stage_factors": self.factors,
            "workers_times": self.times,
            "predicted_samples_per_second": predict(observed, self.change(observed)),
        }


def try_preset(
    work: Work,
    requests: Sequence[ClipRequest],
    preset: str,
    folder: Path,
    *,
    videos: int,
    told: Callable[[str], None] = lambda text: None,
) -> Copies:
    """Transcode a few videos, decode the same clips from both, and compare.

    Args:
        work: As of the ladder.
        requests: Clips to decode, of any videos; those of the first few are taken.
        preset: Name of a transcode preset.
        folder: Empty, for the copies; they are removed again.
        videos: How many videos to try.
        told: Called with a line for each video.

    Raises:
        DataError: If there is no such preset, or none of the videos can be transcoded.
    """
    if preset not in PRESETS:
        raise DataError(f"--try-presets {preset}: must be one of {', '.join(PRESETS)}, or none")
    made: list[tuple[int, Encoded]] = []
    target = folder / preset
    target.mkdir(parents=True)
    try:
        for row in dict.fromkeys(request.video for request in requests):
            video = work.corpus[row]
            if len(made) == videos:
                break
            if video.frames > MOST_FRAMES:
                continue
            told(f"preset {preset}: transcoding video {len(made) + 1} of {videos}")
            try:
                # Numbered, so that the index has them in this order.
                made.append((row, encode(video, target / f"{len(made):04d}.mp4", PRESETS[preset])))
            except VideoError:
                continue  # the next one will do as well
        if not made:
            raise DataError(
                f"--try-presets {preset}: no video of the corpus with at most {MOST_FRAMES} frames can be transcoded"
            )
        copies = replace(work, corpus=Corpus.build(target, progress=False))
        places = {row: place for place, (row, _) in enumerate(made)}
        raw = _some([request for request in requests if request.video in places], CLIPS * len(made))
        small = [replace(request, video=places[request.video]) for request in raw]
        factors, times = _factors(work, copies, raw, small)
    finally:
        shutil.rmtree(target, ignore_errors=True)
    size = sum(encoded.bytes for _, encoded in made) / sum(work.corpus[row].bytes for row, _ in made)
    return Copies(preset, len(made), len(raw), size, factors, times)


def _some(requests: Sequence[ClipRequest], count: int) -> list[ClipRequest]:
    """So many, repeated if there are fewer."""
    return [requests[place % len(requests)] for place in range(count)]


def _factors(
    work: Work, copies: Work, raw: Sequence[ClipRequest], small: Sequence[ClipRequest]
) -> tuple[dict[str, float], float]:
    """Stage -> time on copies by time on originals; and how many times as quick the workers are."""
    before, after = StageTimes(), StageTimes()
    seconds = [0.0, 0.0]
    # Twice in turns, the first without counting: decoders and page cache warm up in it.
    for counts in (False, True):
        for at, (one, requests, times) in enumerate(((work, raw, before), (copies, small, after))):
            clock = times if counts else StageTimes()

            def prepare(request: ClipRequest, one: Work = one, clock: StageTimes = clock) -> None:
                with clock.follow("plan"):
                    one.preparer(request)

            spent, _, _ = on_threads(prepare, requests if counts else requests[: len(requests) // 2], work.threads)
            seconds[at] = spent
    # All stages that read or decode, together: of reading packets in between only the wall time is told apart.
    factor = _held(after) / max(_held(before), 1e-9)
    factors = {name: factor for name in ON_COPIES if name in before.snapshot()}
    if any(not work.on_host(work.video(request)) for request in raw):
        factors["graph"] = _graph_factor(work, copies, raw, small)
    return factors, seconds[0] / seconds[1]


def _held(times: StageTimes) -> float:
    """Seconds in which threads read and decoded; waiting for cores is left out, a matter of what else runs."""
    spent = sum((times.snapshot().get(name, StageTime()) for name in ON_COPIES), StageTime())
    return max(spent.wall - spent.queued, spent.cpu)


def _graph_factor(work: Work, copies: Work, raw: Sequence[ClipRequest], small: Sequence[ClipRequest]) -> float:
    """Of the graph where DALI decodes: decoding and the rest one after the other, on copies by on originals."""
    spent = []
    for one, requests in ((work, raw), (copies, small)):
        batches = [requests[at : at + one.batch_size] for at in range(0, len(requests), one.batch_size)]
        total = 0.0
        for rung in (DaliDecode(one), Augmented(one)):
            if type(rung).missing(one, requests) is None:
                rung.run(batches)
                done = rung.run(batches)
                total += done.seconds / done.samples
            rung.close()
        spent.append(total)
    return spent[1] / spent[0]
