"""`python -m bench suite`: all that speaks for or against this loader on a machine, in one command.

Every benchmark is a process of its own, so that none finds threads or memory of another. What has been measured already
is not measured again: a suite that was stopped goes on. docs/bench-suite.md says what is run.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from bench.measure.options import positive
from dali_pipes.corpus.engine import default_workers
from dali_pipes.errors import DataError

# Folders of the videos folder that are corpora, where they are there: those that people know.
KNOWN = ("kinetics400", "ucf101", "hmdb51", "weizmann")
COPIES = "copies"


@dataclass(frozen=True)
class Part:
    """One benchmark of one corpus.

    Attributes:
        name: Of the result's file.
        corpus: What it runs over; "" for none.
        words: Command and options.
        minutes: About what it takes on two cores; it is left out where so much is not left.
    """

    name: str
    corpus: str
    words: tuple[str, ...]
    minutes: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this sub-command."""
    parser.add_argument(
        "videos",
        nargs="?",
        type=Path,
        metavar="FOLDER",
        help=f"folder of videos, or of {', '.join(KNOWN)} (default: a corpus that is generated)",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the results, the page and the pictures")
    parser.add_argument("--minutes", type=positive, default=20, help="time for all of it (default: %(default)s)")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="COMMAND", help="benchmarks to run, such as decode (default: all)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Prepare the corpora, measure, make the page.

    Returns:
        0, or 1 where a benchmark failed or was left out for want of time.

    Raises:
        DataError: For a user's mistake.
    """
    log, begun = Console(stderr=True, soft_wrap=True), time.monotonic()
    work: Path = args.out / "corpora"
    work.mkdir(parents=True, exist_ok=True)
    corpora = prepare(args.videos, work, log)
    unknown = set(args.only) - {part.words[0] for part in parts(list(corpora), args.device)}
    if unknown:
        raise DataError(f"--only {' '.join(sorted(unknown))}: the suite has no such benchmark")
    todo = [part for part in parts(list(corpora), args.device) if not args.only or part.words[0] in args.only]
    wrong: list[str] = []
    for number, part in enumerate(todo, start=1):
        output = args.out / f"{part.name}.json"
        left = args.minutes - (time.monotonic() - begun) / 60
        if finished(output):
            log.print(f"{number}/{len(todo)} {part.name}: measured before, kept")
            continue
        if part.minutes > left:
            log.print(f"{number}/{len(todo)} {part.name}: left out, {left:.1f} minutes are left; --minutes allows more")
            wrong.append(part.name)
            continue
        log.print(f"{number}/{len(todo)} {part.name}: about {part.minutes:g} minutes, {left:.1f} left")
        where = [str(corpora[part.corpus])] if part.corpus else []
        code = call([part.words[0], *where, *part.words[1:], "--output", str(output)])
        if code:
            log.print(f"{part.name}: ended with exit code {code}")
            wrong.append(part.name)
    call(["report", str(args.out), "--output", str(args.out / "report.html"), "--png", str(args.out / "pictures")])
    minutes = (time.monotonic() - begun) / 60
    log.print(
        f"{len(todo) - len(wrong)} of {len(todo)} benchmarks in {minutes:.1f} minutes: {args.out / 'report.html'}"
    )
    return 1 if wrong else 0


def parts(corpora: Sequence[str], device: str = "auto") -> list[Part]:
    """What is run over corpora of these names, the most telling first."""
    raw = [name for name in corpora if name != COPIES]
    main, both = raw[:1], [*raw[:1], *(name for name in corpora if name == COPIES)]
    places = [] if device == "auto" else ["--device", device]

    def loader(name: str) -> tuple[str, ...]:
        # A round has to take a second or so of the quickest: what goes before it counts too much in shorter ones, and
        # small videos need more of them. Of long GOPs a few requests are no sample: they differ tenfold in cost.
        pairs = "128" if name == COPIES else "96"
        return ("loader", "--window", "independent", "--pairs", pairs, "--rounds", "5", "--check", "12", *places)

    # Small corpora do not fill the batches of a training run.
    small = ("--set", "data.batch_size=8", "data.clips_per_video=16")
    listed = [
        *(Part(f"loader-{name}", name, loader(name), 6.0 if name in main else 0.8) for name in corpora),
        *(Part(f"stages-{name}", name, ("stages", *places, "--seconds", "90"), 1.0) for name in both),
        *(Part(f"decode-{name}", name, ("decode", *places), 1.0 if name in main else 0.35) for name in corpora),
        *(Part(f"step-{name}", name, ("step",), 1.0) for name in both[-1:]),
        Part("bank", "", ("bank", *places), 1.0),
        *(Part(f"sweep-{name}", name, ("sweep", "--minutes", "2.5", *small), 2.75) for name in both[-1:]),
        *(Part(f"curves-{name}", name, curves(places), 2.5) for name in both[-1:]),
    ]
    return listed


def curves(places: Sequence[str]) -> tuple[str, ...]:
    """The loader over workers and batch sizes: ours beside the best way of each tool."""
    cores = default_workers()
    workers = sorted({1, cores, 2 * cores})
    return (
        *["loader", "--window", "independent", "--curves-only", "--pairs", "96", "--rounds", "3", "--check", "8"],
        *places,
        *("--candidates", "ours,torchcodec-best,decord-best"),
        *("--over", "workers=" + ",".join(map(str, workers)), "--over", "batch-size=2,4,8"),
    )


def prepare(videos: Path | None, work: Path, log: Console) -> dict[str, Path]:
    """Indexes of the corpora, by name, and of small copies of the first one; made once.

    Raises:
        DataError: If the folder is none, or has no usable video.
    """
    from dali_pipes import Corpus, make_demo_corpus

    if videos is None:
        generated = work / "generated"
        if not generated.is_dir():
            log.print("no folder of videos given: generating some")
            unfinished = work / ".generated"
            make_demo_corpus(unfinished, videos=24, frames=120, size=192, codec="h264")
            unfinished.rename(generated)
        sources = {"generated": generated}
    elif not videos.is_dir():
        raise DataError(f"{videos}: not a folder; give one that holds videos, or {', '.join(KNOWN)}")
    else:
        sources = {name: videos / name for name in KNOWN if (videos / name).is_dir()} or {videos.name: videos}
    corpora = {}
    for name, folder in sources.items():
        corpora[name] = work / f"{name}.parquet"
        if not corpora[name].is_file():
            corpus = Corpus.build(folder, "folders", progress=sys.stderr.isatty())
            if not len(corpus.select()):
                raise DataError(f"{folder}: no usable video")
            corpus.save(corpora[name])
    first = next(iter(corpora))
    copies = work / COPIES / "corpus.parquet"
    if not copies.is_file():
        log.print(f"transcoding {first}: preset cpu, short side 112")
        command = ["transcode", str(corpora[first]), str(copies.parent), "--preset", "cpu", "--short-side", "112"]
        if code := _process([sys.executable, "-m", "dali_pipes.cli", *command]):
            raise DataError(f"{corpora[first]}: `dali-pipes transcode` ended with exit code {code}")
    corpora[COPIES] = copies
    return corpora


def finished(path: Path) -> bool:
    """Whether a result is there and whole."""
    with suppress(OSError, ValueError):
        return isinstance(json.loads(path.read_text(encoding="utf-8")), dict)
    return False


def call(words: Sequence[str]) -> int:
    """One benchmark in a process of its own; its exit code."""
    return _process([sys.executable, "-m", "bench", *words])


def _process(command: Sequence[str]) -> int:
    process = subprocess.Popen(command)
    try:
        return process.wait()
    except BaseException:
        # Ctrl-C reaches it too, SIGTERM does not; and its workers must not stay behind.
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        raise
