"""`python -m bench stages`: what binds the loader and the training behind it, what would bind next, what would help.

Every stage is measured alone first, over the same requests in interleaved rounds; then the whole loader and the step,
with the clocks of their stages. Settings and transcoded copies are tried. docs/bench-stages.md says how to read it.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from rich.console import Console

from ascnet.config import Config
from bench.measure.figures import figure, header
from bench.measure.options import device, open_corpus, positive, speeds
from bench.measure.output import write_json
from bench.measure.poller import Poller
from bench.measure.stats import estimate
from bench.stages.advice import Copies, compared, try_preset, variants
from bench.stages.alone import Cut, InOrder, Needed, Plan, Read
from bench.stages.alone_graph import Augmented, Copy, DaliDecode, DaliInOrder, Gather
from bench.stages.ladder import Climb, climb, figures, reading
from bench.stages.rung import Batches, Pass, Rung, Work, decoded_per_frame
from bench.stages.storage_reads import place_of, resident
from bench.stages.table import print_all, stage_rows, waits
from bench.stages.whole import FullLoader, FullPass, LoaderAndStep, StepAlone, Training, open_loader
from bench.verdict import judge
from dali_pipes import Augment, Corpus, Progress
from dali_pipes.corpus.transcode import PRESETS
from dali_pipes.errors import DataError

ALONE: tuple[type[Rung], ...] = (
    Read,
    Plan,
    Cut,
    InOrder,
    DaliInOrder,
    Needed,
    DaliDecode,
    Gather,
    Augmented,
    Copy,
)
# Without --config, on a CPU: an encoder that takes about as long as two cores need for the clips.
SMALL = (
    "model.encoder=r3d10",
    "model.width=0.0625",
    "model.projector_hidden=256",
    "model.projector_dim=64",
    "model.predictor_hidden=256",
    "optim.name=adamw",
    "optim.lr=0.001",
    "data.batch_size=4",
)
# Batches of a round.
ROUND = {"cpu": 8, "cuda": 24}
# Shares of the time for the ladder and for trying settings; the rest is left for copies.
LADDER, SETTINGS = 0.6, 0.25
# Files that are asked how much of them the page cache holds.
ASKED = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this sub-command."""
    parser.add_argument("corpus", type=Path, metavar="CORPUS_OR_FOLDER", help="a .parquet index or a folder of videos")
    parser.add_argument(
        "--config",
        metavar="FILE_OR_NAME",
        help="configuration of the training run (default: the defaults of `ascnet pretrain`; on a CPU a small encoder)",
    )
    parser.add_argument("--set", nargs="+", default=[], metavar="key=value", help="further settings of it")
    parser.add_argument("--frames", type=positive, help="frames of a clip (default: the configuration's)")
    parser.add_argument("--size", type=positive, help="side of the clips, pixels (default: the configuration's)")
    parser.add_argument("--speeds", type=speeds, help="playback speed of both views (default: the configuration's)")
    parser.add_argument("--batch-size", type=positive, help="pairs of a batch (default: the configuration's)")
    parser.add_argument("--threads", type=positive, help="threads of the loader (default: one for each core)")
    parser.add_argument("--pairs", type=positive, help="requests of a round (default: 8 batches, 24 on a GPU)")
    parser.add_argument("--rounds", type=positive, default=3, help="rounds that count, at most (default: %(default)s)")
    parser.add_argument(
        "--seconds",
        type=positive,
        default=150,
        help="time for all of it; rounds are left out where it would take longer (default: %(default)s)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--cold", action="store_true", help="read from storage and not from the page cache")
    parser.add_argument("--no-step", action="store_true", help="leave the training step out")
    parser.add_argument(
        "--try-presets",
        type=presets,
        metavar="NAME,...",
        help=f"transcode presets to try: {', '.join(PRESETS)}, or none (default: the device's)",
    )
    parser.add_argument(
        "--try-videos", type=positive, default=4, help="videos transcoded for that (default: %(default)s)"
    )
    parser.add_argument("--no-settings", action="store_true", help="try no other threads and augmentation")
    parser.add_argument("--seed", type=int, default=0, help="of requests and orders (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="write the result here as JSON")


def presets(text: str) -> tuple[str, ...]:
    """`cpu,tiny` -> ("cpu", "tiny"), for argparse; `none` -> ()."""
    chosen = () if text == "none" else tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    unknown = [name for name in chosen if name not in PRESETS]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown preset {', '.join(unknown)}; known: {', '.join(PRESETS)}, or none")
    return chosen


def run(args: argparse.Namespace) -> int:
    """Measure, judge, print and save; 0.

    Raises:
        DataError, UserError: For a user's mistake.
    """
    corpus = open_corpus(args.corpus)
    result = header("stages", args, corpus)
    result["arguments"]["config"] = None if args.config is None else Path(args.config).name
    on = device(args.device if args.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
    config = configured(args, corpus, on)
    work = described(config, corpus, on, cold=args.cold)
    with ExitStack() as stack:
        result |= _measured(args, config, work, stack)
    if args.output is not None:
        write_json(args.output, result)
    out = Console()
    print_all(result, out if out.is_terminal else Console(width=130))
    return 0


def configured(args: argparse.Namespace, corpus: Corpus, on: torch.device) -> Config:
    """The run to look at: the configuration, the options on top, and epochs long enough for a round.

    Raises:
        UserError: If the configuration cannot be used.
    """
    from ascnet.cli import find_config

    given = {
        "frames": args.frames,
        "size": args.size,
        "speeds": None if args.speeds is None else ",".join(f"{speed:g}" for speed in args.speeds),
        "batch_size": args.batch_size,
        "threads": args.threads,
    }
    small = SMALL if args.config is None and on.type == "cpu" else []
    settings = [*small, *args.set, *(f"data.{key}={value}" for key, value in given.items() if value is not None)]
    settings += [f"device={on}", f"seed={args.seed}"]
    if args.speeds is not None and len(args.speeds) != 2:
        raise DataError(f"--speeds {given['speeds']}: must be two, one for each clip of a sample")
    path = None if args.config is None else find_config(args.config)
    config = Config.load(path, settings)
    split = "train" if config.data.split == "auto" and "train" in corpus.splits else config.data.split
    videos = max(1, len(corpus.select(None if split in ("auto", None) else split)))
    pairs = args.pairs or ROUND[on.type] * config.data.batch_size
    clips = max(config.data.clips_per_video, math.ceil(max(pairs, config.data.batch_size) / videos))
    return Config.load(path, [*settings, f"data.clips_per_video={clips}"])


def described(config: Config, corpus: Corpus, on: torch.device, *, cold: bool) -> Work:
    """The same for the rungs."""
    from ascnet.precision import Precision
    from dali_pipes.corpus.engine import default_workers

    data = config.data
    dtype: Literal["float16", "float32"]
    dtype = "float16" if Precision(config.precision, on).name in ("bf16", "fp16") else "float32"
    return Work(
        corpus=corpus,
        frames=data.frames,
        size=data.size,
        views=len(data.speeds),
        batch_size=data.batch_size,
        threads=data.threads or default_workers(),
        device=on,
        augment=Augment(**asdict(data.augment)),
        dtype=dtype,
        decoder=data.decoder,
        fps=data.fps,
        short=data.short,
        cold=cold,
    )


def _measured(args: argparse.Namespace, config: Config, work: Work, stack: ExitStack) -> dict[str, Any]:
    """All that the result holds besides its header."""
    begun = time.monotonic()
    with open_loader(config, work.corpus, work.device) as loader:
        most = max(1, (args.pairs or ROUND[work.device.type] * work.batch_size) // work.batch_size)
        steps = range(min(len(loader), most))

        # The first epoch's end comes before the requests of the round that warms up.
        def batches(number: int) -> Batches:
            return [loader.requests(number + 2, step) for step in steps]

        asked = [request for batch in batches(0) for request in batch]
        cached = _cached(work.corpus)
        poller = stack.enter_context(Poller(work.device))
        rungs, missing = _rungs(args, config, work, asked)
        for rung in rungs.values():
            stack.callback(rung.close)
        climbed = _climb("stages", rungs, batches, args, LADDER)
        others: dict[str, Rung] = {}
        late = time.monotonic() - begun > args.seconds
        for one in () if args.no_settings or late else variants(config, work.threads):
            others[one.name] = FullLoader(work, one.config)
            stack.callback(others[one.name].close)
        settings = None
        if others:
            settings = _climb("settings", {"loader": rungs["loader"], **others}, batches, args, SETTINGS)
        copies = _copies(args, work, [r for number in range(2) for batch in batches(number) for r in batch])
        lead_in = decoded_per_frame(work, asked)
    return _told(args, work, climbed, settings, copies, missing, poller, cached, lead_in)


def _rungs(
    args: argparse.Namespace, config: Config, work: Work, asked: Sequence[Any]
) -> tuple[dict[str, Rung], dict[str, str]]:
    """Those that mean something here, opened, and why the others do not."""
    rungs: dict[str, Rung] = {}
    missing: dict[str, str] = {}
    for kind in ALONE:
        reason = kind.missing(work, asked)
        if reason is None:
            rungs[kind.name] = kind(work)
        else:
            missing[kind.name] = reason
    rungs["loader"] = FullLoader(work, config)
    if args.no_step:
        missing["step"] = missing["loader + step"] = "--no-step was given"
    else:
        training = Training(work, config)
        rungs["step"], rungs["loader + step"] = StepAlone(work, training), LoaderAndStep(work, training)
    return rungs, missing


def _climb(what: str, rungs: dict[str, Rung], batches: Any, args: argparse.Namespace, share: float) -> Climb:
    with Progress(what, len(rungs) * (args.rounds + 1), unit="passes") as progress:

        def told(name: str, number: int, done: Pass) -> None:
            progress.advance()

        return climb(rungs, batches, rounds=args.rounds, seconds=share * args.seconds, seed=args.seed, told=told)


def _copies(args: argparse.Namespace, work: Work, requests: Sequence[Any]) -> list[Copies]:
    chosen = args.try_presets
    if chosen is None:
        chosen = ("gpu",) if work.where == "gpu" else ("cpu",)
    log, found = Console(stderr=True), []
    with tempfile.TemporaryDirectory(prefix="bench-stages-") as folder:
        for preset in chosen:
            try:
                found.append(try_preset(work, requests, preset, Path(folder), videos=args.try_videos, told=log.print))
            except DataError as error:
                if args.try_presets is not None:
                    raise
                log.print(f"copies are not tried: {error}")
    return found


def _cached(corpus: Corpus) -> float | None:
    """Share of the corpus's first local files that the page cache holds, by bytes; None where that is not known."""
    rows = corpus.select()[:ASKED].tolist()
    places = [place for row in rows if (place := place_of(corpus[row])) is not None]
    shares = [share for path in dict.fromkeys(path for path, _ in places) if (share := resident(path)) is not None]
    return float(np.mean(shares)) if shares else None


def _told(
    args: argparse.Namespace,
    work: Work,
    climbed: Climb,
    settings: Climb | None,
    copies: Sequence[Copies],
    missing: dict[str, str],
    poller: Poller,
    cached: float | None,
    lead_in: tuple[float, float],
) -> dict[str, Any]:
    """The parts of the result, from what was measured."""
    stages, verdicts, sentences = {}, {}, list[str]()
    found = figures(climbed, work.views)
    for name in ("loader + step", "loader"):
        passes = [one for one in climbed.passes.get(name, ()) if isinstance(one, FullPass)]
        if not passes:
            continue
        # That of the median rate speaks for all.
        done = sorted(passes, key=lambda one: one.rate)[len(passes) // 2]
        verdict = judge(done.observed, [one.change(done.observed) for one in copies])
        verdicts[name] = verdict.as_dict()
        sentences += [f"{'Training' if name != 'loader' else 'The loader alone'}:", *verdict.sentences]
        stages[name] = {
            "rows": stage_rows(done),
            "waits": waits(done),
            "loads": poller.summary(done.begun, done.ended),
        }
        ready = [one.observed.ready for one in passes if one.observed.ready is not None]
        if ready:
            found[f"{name} batches ready"] = figure(ready, "share", "higher")
    tried = _tried(settings, copies)
    measured = [one for one in tried if one["how"] == MEASURED]
    if measured:
        sentences.append("Measured with the whole loader:")
        sentences += [_said(one) for one in measured]
    for one in tried:
        found[f"{one['name']}, times as quick"] = {**one["times"], "unit": "x", "better": "higher"}
    return {
        "setting": {
            "frames": work.frames,
            "size": work.size,
            "views": work.views,
            "batch_size": work.batch_size,
            "threads": work.threads,
            "device": work.device.type,
            "dtype": work.dtype,
        },
        "figures": found,
        "ladder": _ladder(climbed, missing, work),
        "rounds": [
            {"order": order, "samples_per_second": {name: passes[at].rate for name, passes in climbed.passes.items()}}
            for at, order in enumerate(climbed.orders)
        ],
        "frames_wanted_per_sample": lead_in[0],
        "frames_decoded_per_frame_wanted": lead_in[1],
        "page_cache": cached,
        "gaps": reading(climbed, lead_in[1], cold=args.cold, warm=cached) + _left_out(args, climbed, settings),
        "stages": stages,
        "copies": [asdict(one) for one in copies],
        "tried": tried,
        "verdict": {"sentences": sentences, **verdicts},
    }


MEASURED = "measured with the whole loader"


def _tried(settings: Climb | None, copies: Sequence[Copies]) -> list[dict[str, Any]]:
    tried = []
    if settings is not None:
        base = settings.rates("loader")
        for name in settings.passes:
            if name != "loader":
                tried.append({"name": name, "times": compared(base, settings.rates(name)), "how": MEASURED})
    for one in copies:
        times = estimate([one.times]).as_dict()
        how = (
            f"copies of {one.videos} videos ({one.bytes:.0%} of their bytes) in place of the originals; the verdict "
            "says what the whole would gain"
        )
        tried.append({"name": f"workers alone on copies, preset {one.preset}", "times": times, "how": how})
    return tried


def _said(one: dict[str, Any]) -> str:
    times = one["times"]
    if times["low"] <= 1 <= times["high"]:
        return f"{one['name']}: no difference that stands out from the noise ({times['median']:.2f} times as quick)."
    return f"{one['name']}: {times['median']:.2f} times as quick [{times['low']:.2f}, {times['high']:.2f}]."


def _left_out(args: argparse.Namespace, climbed: Climb, settings: Climb | None) -> list[str]:
    """What there was no time for."""
    told = []
    if climbed.short:
        told.append(f"{len(climbed.orders)} of {args.rounds} rounds were made within the time; --seconds allows more.")
    if settings is None and not args.no_settings:
        told.append("No other settings were tried: time was over; --seconds allows more.")
    return told


def _ladder(climbed: Climb, missing: dict[str, str], work: Work) -> dict[str, Any]:
    """Every rung in its order: figures, or why it was left out."""
    kinds: tuple[type[Rung], ...] = (*ALONE, FullLoader, StepAlone, LoaderAndStep)
    abouts = {kind.name: kind.about for kind in kinds}
    ladder: dict[str, Any] = {}
    for name, about in abouts.items():
        if name in missing:
            ladder[name] = {"about": about, "missing": missing[name]}
            continue
        passes = climbed.passes[name]
        ladder[name] = {
            "about": about,
            "missing": "",
            "clips_per_second": estimate([work.views * one.rate for one in passes]).as_dict(),
            "cpu_seconds_per_clip": estimate([one.cpu / one.samples / work.views for one in passes]).as_dict(),
            "amounts_per_second": {
                unit: estimate([one.amounts[unit] / one.seconds for one in passes]).as_dict()
                for unit in passes[0].amounts
            },
        }
    return ladder
