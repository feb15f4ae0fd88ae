"""`python -m bench bank`: searching and updating the memory bank, beside plain torch and FAISS.

What each finds is compared with float64 first. A search has to read every row once, so its time is also held against
the memory bandwidth of the device, measured in the same run. docs/bench-bank.md says how to read the result.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console

from ascnet.bank.memory_bank import MemoryBank
from ascnet.bank.search import bytes_read
from ascnet.errors import UserError
from ascnet.precision import pick_device
from bench.bank.searches import DTYPES, SEARCHERS, Searcher, Setting, Writer, differs, make_bank, reference
from bench.bank.table import print_result
from bench.measure import bandwidth, options
from bench.measure.figures import figure, header
from bench.measure.output import write_json
from bench.measure.stats import ratios
from dali_pipes import Progress
from dali_pipes.corpus.engine import default_workers
from dali_pipes.errors import DataError

ROWS = {"cpu": (10_000, 100_000), "cuda": (10_000, 100_000, 1_000_000, 10_000_000)}
# Seconds that a measurement lasts at least, and the most calls in it.
TURN, MOST_CALLS = 0.03, 1000
# Searches that are compared with the reference, of each size of a batch.
COMPARED = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this sub-command."""
    parser.add_argument(
        "--rows", nargs="+", type=options.positive, metavar="N", help="default: 10000 100000; on a GPU to 10000000"
    )
    parser.add_argument("--dim", nargs="+", type=options.positive, default=[64, 256], help="default: 64 256")
    parser.add_argument("--dtype", nargs="+", choices=tuple(DTYPES), default=list(DTYPES), help="default: all")
    parser.add_argument(
        "--batch", nargs="+", type=options.positive, default=[1, 16, 64], help="queries of a search (default: 1 16 64)"
    )
    parser.add_argument("--k", type=options.positive, default=1, help="neighbours of a query (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="cuda, cuda:1, cpu; default: a GPU if any")
    parser.add_argument("--threads", type=options.positive, help="of all of them on the CPU; default: one a core")
    parser.add_argument("--rounds", type=options.positive, default=5, help="rounds that count (default: %(default)s)")
    parser.add_argument(
        "--memory", type=float, metavar="GB", help="most that a setting may take; default: four fifths of what is free"
    )
    parser.add_argument("--seed", type=int, default=0, help="of rows, queries and orders (default: %(default)s)")
    parser.add_argument(
        "--require",
        type=float,
        metavar="SHARE",
        help="exit 1 where ours, over the most rows with the largest batch, reads at less than this share of the "
        "memory's bandwidth",
    )
    parser.add_argument("--output", type=Path, help="write the result here as JSON")


def run(args: argparse.Namespace) -> int:
    """Compare, time, print and save.

    Returns:
        0, or 1 where `--require` is missed or ours is wrong.

    Raises:
        DataError: For a user's mistake.
    """
    device = _device(args.device)
    if args.memory is not None and not args.memory > 0:
        raise DataError(f"--memory {args.memory:g}: must be more than 0 GB")
    threads, before = args.threads or default_workers(), torch.get_num_threads()
    result = header("bank", args)
    torch.set_num_threads(threads)
    try:
        speed = bandwidth.measure(device)
        limit = int(args.memory * 1e9) if args.memory is not None else bandwidth.free_bytes(device) * 4 // 5
        settings, left_out = fitting(_settings(args, device), limit)
        if not settings:
            raise DataError(f"nothing fits: {left_out[0]['setting']}: {left_out[0]['reason']}")
        result |= {
            "device": str(device),
            "threads": threads,
            "bandwidth": speed.as_dict(),
            "searchers": {name: kind.notes for name, kind in SEARCHERS.items()},
            "left_out": left_out,
            "banks": [],
        }
        order = random.Random(args.seed)
        with Progress("bank", len(settings) * len(args.batch), unit="settings") as progress:
            for setting in settings:
                try:
                    result["banks"].append(_measure(setting, args, speed, limit, order, progress))
                except torch.OutOfMemoryError as error:
                    # Somebody else has taken what was free.
                    left_out.append({"setting": setting.name, "reason": str(error).split(".")[0]})
    finally:
        torch.set_num_threads(before)
    if not result["banks"]:
        raise DataError(f"nothing could be measured: {left_out[0]['setting']}: {left_out[0]['reason']}")
    result["figures"] = figures_of(result["banks"])
    result["goal"] = judge(result["banks"], args.require)
    if args.output is not None:
        write_json(args.output, result)
    out = Console(highlight=False)
    print_result(result, out if out.is_terminal else Console(width=130, highlight=False))
    ours_wrong = any("ours" in bank["wrong"] for bank in result["banks"])
    return int(ours_wrong or not result["goal"].get("met", True))


def fitting(settings: Sequence[Setting], limit: int) -> tuple[list[Setting], list[dict[str, str]]]:
    """Settings whose rows and search by ours fit in so many bytes, and the others with the reason."""
    fit, out = [], []
    for setting in settings:
        needed = setting.bank_bytes + sum(SEARCHERS["ours"].needs(setting))
        if setting.k > setting.rows:
            out.append({"setting": setting.name, "reason": f"k is {setting.k}; it has fewer rows"})
        elif needed > limit:
            out.append({"setting": setting.name, "reason": f"needs {needed / 1e9:.1f} GB of {limit / 1e9:.1f} GB"})
        else:
            fit.append(setting)
    return fit, out


def absent(setting: Setting, limit: int) -> dict[str, str]:
    """Who cannot take part over these rows, with the reason; told before anything is allocated."""
    reasons, kept = {}, setting.bank_bytes
    for name, kind in SEARCHERS.items():
        reason, (keeps, takes) = kind.refuses(setting), kind.needs(setting)
        if not reason and kept + keeps + takes > limit:
            reason = f"needs {(keeps + takes) / 1e9:.1f} GB beside {kept / 1e9:.1f} GB, of {limit / 1e9:.1f} GB"
        if reason:
            reasons[name] = reason
        else:
            kept += keeps
    return reasons


def _measure(
    setting: Setting,
    args: argparse.Namespace,
    speed: bandwidth.Bandwidth,
    limit: int,
    order: random.Random,
    progress: Progress,
) -> dict[str, Any]:
    """All searchers over the same rows: compared, then timed with each batch, first searching, then updating."""
    missing = absent(setting, limit)
    bank, query = make_bank(setting, args.seed)
    searchers = {name: kind(bank) for name, kind in SEARCHERS.items() if name not in missing}
    wrong = compare(searchers, query, args.batch, setting.k)
    right = {name: searcher for name, searcher in searchers.items() if name not in wrong}
    read = bytes_read(bank.features)
    found: dict[str, Any] = {
        "rows": setting.rows,
        "dim": setting.dim,
        "dtype": setting.dtype,
        "k": setting.k,
        "bytes": read,
        "in_cache": read < 2 * speed.cache,
        "plan": str(bank.plan(setting.k)),
        "missing": missing,
        "wrong": wrong,
        "batches": {},
    }
    for batch in args.batch:
        part = query[:batch]
        calls = {name: partial(searcher.search, part, setting.k) for name, searcher in right.items()}
        seconds = _timed(calls, setting.device, args.rounds, order)
        found["batches"][str(batch)] = {
            "search_ms": {name: [1e3 * value for value in values] for name, values in seconds.items()},
            "queries_per_second": {name: [batch / value for value in values] for name, values in seconds.items()},
            "share_of_bandwidth": {
                name: [read / value / speed.best for value in values] for name, values in seconds.items()
            },
        }
        progress.advance()
    # Last, for it changes rows that are searched above.
    found["wrong_update"] = {}
    for batch in args.batch:
        updates = _updates(bank, searchers, min(batch, setting.rows), found["wrong_update"])
        seconds = _timed(updates, setting.device, args.rounds, order)
        found["batches"][str(batch)]["updated_rows_per_second"] = {
            name: [min(batch, setting.rows) / value for value in values] for name, values in seconds.items()
        }
    return found


def compare(searchers: Mapping[str, Searcher], query: torch.Tensor, batches: Sequence[int], k: int) -> dict[str, str]:
    """Who finds other rows than float64 does, with what is wrong; every size of a batch is tried."""
    wrong: dict[str, str] = {}
    rows = next(iter(searchers.values())).bank.features
    expected = reference(rows, query, k)
    for name, searcher in searchers.items():
        for batch in batches:
            reason = ""
            for start in range(0, min(len(query), COMPARED * batch), batch):
                here = slice(start, start + batch)
                _, found = searcher.search(query[here], k)
                reason = reason or differs(rows, query[here], expected[here], found)
            if reason:
                wrong.setdefault(name, f"{reason} in batches of {batch}")
    return wrong


def _updates(
    bank: MemoryBank, searchers: Mapping[str, Searcher], batch: int, wrong: dict[str, str]
) -> dict[str, Callable[[], object]]:
    """Calls that write a batch of rows, of those who can and whose rows are then what they should be."""
    device, calls = bank.features.device, dict[str, Callable[[], object]]()
    videos = torch.randperm(len(bank), device=device)[:batch]
    features = torch.randn(batch, bank.features.shape[1], device=device)
    expected = F.normalize(features.double(), dim=1).to(bank.features.dtype)
    for name, searcher in searchers.items():
        if not isinstance(searcher, Writer):
            continue
        bank.features[videos] = 0
        searcher.update(videos, features)
        # Rounding to the rows' format may go either way.
        if not torch.allclose(bank.features[videos].float(), expected.float(), rtol=1e-2, atol=1e-6):
            wrong[name] = f"other rows after an update of {batch}"
            continue
        calls[name] = partial(searcher.update, videos, features)
    return calls


def _timed(
    calls: Mapping[str, Callable[[], object]], device: torch.device, rounds: int, order: random.Random
) -> dict[str, list[float]]:
    """Seconds a call, of each round; all take part in a round, in random order."""
    counts = {}
    for name, call in calls.items():
        once = bandwidth.seconds_of(call, device)
        counts[name] = max(1, min(MOST_CALLS, math.ceil(TURN / max(once, 1e-9))))
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name in order.sample(list(calls), len(calls)):
            seconds[name].append(bandwidth.seconds_of(calls[name], device, counts[name]))
    return seconds


def figures_of(banks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What `bench compare` compares: rates of each, ours as a share of the bandwidth, and ours over each peer."""
    figures: dict[str, Any] = {}
    for bank in banks:
        for batch, part in bank["batches"].items():
            where = f"({bank['rows']} x {bank['dim']} {bank['dtype']}, batch {batch})"
            for title, values in (("queries/s", "queries_per_second"), ("updated rows/s", "updated_rows_per_second")):
                known = part[values]
                for name, rates in known.items():
                    figures[f"{name} {title} {where}"] = figure(rates, title.replace("updated ", ""), "higher")
                    if name != "ours" and "ours" in known:
                        figures[f"ours / {name} {title} {where}"] = figure(ratios(known["ours"], rates), "x", "higher")
            if "ours" in part["share_of_bandwidth"]:
                share = part["share_of_bandwidth"]["ours"]
                figures[f"ours share of bandwidth {where}"] = figure(share, "share", "higher")
    return figures


def judge(banks: Sequence[Mapping[str, Any]], goal: float | None) -> dict[str, Any]:
    """Ours at the largest setting, of each number format: the most rows, then the longest, and the largest batch.

    Returns:
        `goal`, `shares` (format -> share of the bandwidth, None where ours is wrong) and `met`; nothing without a goal.
    """
    if goal is None:
        return {}
    largest = max((bank["rows"], bank["dim"]) for bank in banks)
    shares: dict[str, float | None] = {}
    for bank in banks:
        if (bank["rows"], bank["dim"]) == largest:
            part = bank["batches"][max(bank["batches"], key=int)]["share_of_bandwidth"]
            shares[bank["dtype"]] = float(figure(part["ours"], "share", "higher")["median"]) if "ours" in part else None
    met = all(share is not None and share >= goal for share in shares.values())
    return {"goal": goal, "rows": largest[0], "dim": largest[1], "shares": shares, "met": met}


def _settings(args: argparse.Namespace, device: torch.device) -> list[Setting]:
    largest = max(args.batch)
    return [
        Setting(rows, dim, dtype, largest, args.k, device)
        for rows in sorted(set(args.rows or ROWS[device.type]))
        for dim in sorted(set(args.dim))
        for dtype in dict.fromkeys(args.dtype)
    ]


def _device(name: str) -> torch.device:
    try:
        device = pick_device(name)
    except UserError as error:
        raise DataError(f"--{error}") from error
    if device.type not in ROWS:
        raise DataError(f"--device {name}: expected one of {', '.join(ROWS)}")
    return device
