"""`python -m bench loader`: our stream of clips beside PyTorch DataLoaders over other decoders.

All candidates get the same requests. What they deliver is compared with a full decode first; who delivers other frames
is not ranked. Then they are timed in interleaved rounds. docs/bench.md says how to read the result.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape

from bench.measure import goals, plan
from bench.measure.check import REACH, Check, compare
from bench.measure.figures import header
from bench.measure.options import device, open_corpus, positive, speeds
from bench.measure.output import print_result, write_json
from bench.measure.reference import Frames, frames_around
from bench.measure.rounds import Round, figures, lead, measure, summarise
from bench.measure.telling import telling
from bench.peers import CANDIDATES, Candidate, Setting, curves
from bench.peers.base import one_thread
from dali_pipes.errors import DataError

# Without --candidates, curves are of ours and of the best that each tool permits.
CURVED = ("ours", "best", "dali")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this sub-command."""
    parser.add_argument("corpus", type=Path, metavar="CORPUS_OR_FOLDER", help="a .parquet index or a folder of videos")
    parser.add_argument("--frames", type=positive, default=16, help="frames of a clip (default: %(default)s)")
    parser.add_argument("--size", type=positive, default=112, help="side of the clips, pixels (default: %(default)s)")
    parser.add_argument("--speeds", type=speeds, default=(1.0, 2.0), help="playback speed of each view (default: 1,2)")
    parser.add_argument(
        "--window",
        choices=(*plan.WINDOWS, "both"),
        default="both",
        help="where the views of a video start: anywhere, or all at the same frame (default: %(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=positive,
        default=2,
        help="DataLoader workers, and threads of ours (default: %(default)s)",
    )
    parser.add_argument(
        "--prefetch",
        type=positive,
        default=2,
        help="batches prepared ahead: by each worker of a DataLoader, in all by the others (default: %(default)s)",
    )
    parser.add_argument("--batch-size", type=positive, default=4, help="pairs of a batch (default: %(default)s)")
    parser.add_argument("--pairs", type=positive, default=64, help="requests timed a round (default: %(default)s)")
    parser.add_argument("--rounds", type=positive, default=7, help="rounds that count (default: %(default)s)")
    parser.add_argument("--warmup", type=int, default=1, help="rounds dropped before them (default: %(default)s)")
    parser.add_argument(
        "--check",
        type=positive,
        default=24,
        help="requests compared before timing, per window (default: %(default)s)",
    )
    parser.add_argument(
        "--lowest-psnr",
        type=float,
        default=24.0,
        help="dB below which a candidate shows another picture (default: %(default)s)",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "float16"),
        default="float32",
        help="of the clips delivered (default: %(default)s)",
    )
    parser.add_argument("--device", default="cpu", help="where the clips must be in the end (default: %(default)s)")
    parser.add_argument(
        "--candidates",
        type=names,
        help="comma-separated, of: "
        + ", ".join(CANDIDATES)
        + " (default: all; in curves ours and the best of each tool)",
    )
    parser.add_argument(
        "--over",
        type=curves.axis,
        action="append",
        default=[],
        metavar="AXIS=VALUE,...",
        help="also measure the first window over values of a setting: workers=1,2,4, batch-size=2,4,8 or "
        "prefetch=1,2,4; may be given for each of them",
    )
    parser.add_argument("--curves-only", action="store_true", help="with --over: measure nothing but the curves")
    parser.add_argument(
        "--require",
        type=goals.parse,
        default={},
        metavar="KIND=RATIO,...",
        help="least ratio of ours to the quickest peer of a kind, for example usual=2.0,best=1.0; exit 1 if missed",
    )
    parser.add_argument("--seed", type=int, default=0, help="of requests and orders (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="write the result here as JSON")


def run(args: argparse.Namespace) -> int:
    """Compare, time, print and save.

    Returns:
        0, or 1 where a goal of --require is missed.

    Raises:
        DataError: For a user's mistake.
    """
    one_thread()
    log = Console(stderr=True)
    axes = curves.once(args.over)
    if args.curves_only and (args.require or not axes):
        raise DataError("--curves-only: needs --over, and measures none of the ratios that --require asks for")
    curved = args.candidates or [name for name in CANDIDATES if CANDIDATES[name].kind in CURVED]
    args.candidates = (curved if args.curves_only else args.candidates) or tuple(CANDIDATES)
    windows: list[plan.Window] = list(plan.WINDOWS) if args.window == "both" else [args.window]
    corpus = open_corpus(args.corpus)
    result = header("loader", args, corpus)
    usable = [(int(row), corpus[int(row)]) for row in corpus.select()]
    plans = {
        window: plan.draw(
            usable, count=args.pairs, frames=args.frames, speeds=args.speeds, window=window, seed=args.seed
        )
        for window in windows
    }
    setting = Setting(
        args.frames,
        args.size,
        args.batch_size,
        args.workers,
        getattr(torch, args.dtype),
        device(args.device),
        corpus,
        args.prefetch,
    )
    asked = [request for part in plans.values() for request in part]
    missing = {
        name: reason
        for name in args.candidates
        if (reason := CANDIDATES[name].missing() or CANDIDATES[name].refuses(asked, setting))
    }
    result |= {
        "candidates": {n: {"kind": CANDIDATES[n].kind, "notes": CANDIDATES[n].notes} for n in args.candidates},
        "missing": missing,
        "windows": {},
        "goals": [],
        "curves": [],
        "figures": {},
    }
    kinds = {name: CANDIDATES[name].kind for name in args.candidates}
    if not args.curves_only:
        with ExitStack() as stack:
            opened = _open([n for n in args.candidates if n not in missing], plans, setting, stack, log)
            first = 0
            for window, requests in plans.items():
                numbers = range(first, first + len(requests))
                first += len(requests)
                part, rounds = _window(opened, requests, numbers, setting, args, log, window)
                result["windows"][window] = part
                result["figures"] |= figures(rounds, window)
                verdicts = goals.judge(args.require, window, kinds, part["summary"])
                result["goals"] += [verdict.as_dict() for verdict in verdicts]
    for found in _curves(axes, [n for n in curved if n not in missing], plans, setting, args, log):
        result["figures"] |= found.pop("figures")
        result["curves"].append(found)
    if args.output is not None:
        write_json(args.output, result)
    out = Console()
    out = out if out.is_terminal else Console(width=130)
    print_result(result, out)
    for found in result["curves"]:
        curves.print_curve(found, out)
    if args.curves_only:  # else the tables of the windows say so
        for name, reason in missing.items():
            out.print(f"{name}: missing: {escape(reason)}")
    return 0 if all(goal["met"] for goal in result["goals"]) else 1


def _open(
    names: Sequence[str],
    plans: Mapping[plan.Window, list[plan.Request]],
    setting: Setting,
    stack: ExitStack,
    log: Console,
) -> dict[str, Candidate]:
    """Open candidates over the requests of all windows, one list after the other."""
    requests = [request for part in plans.values() for request in part]
    opened = {}
    for name in names:
        log.print(f"opening {name}")
        opened[name] = CANDIDATES[name](requests, setting)
        stack.callback(opened[name].close)
    return opened


def _window(
    opened: Mapping[str, Candidate],
    requests: list[plan.Request],
    numbers: range,
    setting: Setting,
    args: argparse.Namespace,
    log: Console,
    window: str,
) -> tuple[dict[str, Any], list[Round]]:
    """Compare, then time, all candidates over one window's requests."""
    log.print(f"{window}: comparing {min(args.check, len(requests))} of {len(requests)} requests with a full decode")
    checks = check_all(opened, requests[: args.check], numbers[: args.check], setting, args.lowest_psnr)
    right = {name: opened[name] for name, check in checks.items() if check.right}
    rounds: list[Round] = []
    if right:
        with telling(log, window, (args.rounds + args.warmup) * len(right)) as told:
            rounds = measure(
                right,
                list(numbers),
                rounds=args.rounds,
                warmup=args.warmup,
                batch_size=args.batch_size,
                lead=lead(setting),
                seed=args.seed,
                device=setting.device,
                told=told,
            )
    part = {
        "requests": len(requests),
        "digest": plan.digest(requests),
        "checks": {name: check.as_dict() for name, check in checks.items()},
        "rounds": [turn.as_dict() for turn in rounds],
        "summary": summarise(rounds),
    }
    return part, rounds


def _curves(
    axes: Sequence[curves.Axis],
    names: Sequence[str],
    plans: Mapping[plan.Window, list[plan.Request]],
    setting: Setting,
    args: argparse.Namespace,
    log: Console,
) -> list[dict[str, Any]]:
    """The first window over the values of each axis, one axis after the other."""
    if not axes:
        return []
    window, requests = next(iter(plans.items()))
    some = requests[: args.check]
    log.print(f"{window}: decoding what {len(some)} requests are compared with")
    truth = frames_around(some, setting.size, reach=REACH)

    def check(opened: Mapping[str, Candidate], at: Setting) -> dict[str, Check]:
        return check_all(opened, some, range(len(some)), at, args.lowest_psnr, truth)

    found = []
    for along in axes:
        log.print(f"{along}: opening and comparing {', '.join(names)}")
        total = (args.rounds + args.warmup) * len(names) * len(along.values)
        with telling(log, along.name, total) as told:
            found.append(
                curves.trace(
                    along,
                    {name: CANDIDATES[name] for name in names},
                    requests,
                    setting,
                    rounds=args.rounds,
                    warmup=args.warmup,
                    seed=args.seed,
                    window=window,
                    check=check,
                    told=told,
                )
            )
    return found


def check_all(
    opened: Mapping[str, Candidate],
    requests: Sequence[plan.Request],
    numbers: Sequence[int],
    setting: Setting,
    lowest_psnr: float,
    truth: Frames | None = None,
) -> dict[str, Check]:
    """Compare what each candidate delivers with a full sequential decode, which may be given.

    A candidate that raises is wrong, with what it raised as the reason: the others are measured all the same.
    """
    truth = frames_around(requests, setting.size, reach=REACH) if truth is None else truth
    checks = {}
    for name, candidate in opened.items():
        try:
            batches = list(candidate.epoch(plan.in_batches(list(numbers), setting.batch_size)))
        except Exception as error:
            first = (str(error).strip().splitlines() or [""])[-1]
            checks[name] = Check(reason=f"{type(error).__name__}: {first}")
            continue
        checks[name] = compare(batches, requests, truth, size=setting.size, lowest_psnr=lowest_psnr)
    return checks


def names(text: str) -> tuple[str, ...]:
    """Names of candidates, for argparse."""
    chosen = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    unknown = [name for name in chosen if name not in CANDIDATES]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown {', '.join(unknown)}; known: {', '.join(CANDIDATES)}")
    return chosen
