"""A folder of results for the tests of `bench report`: one of each command, made by the commands' own functions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from bench.commands import step
from bench.commands.bank import figures_of as bank_figures
from bench.decoders import contest
from bench.decoders.running import Turn
from bench.measure.check import Check
from bench.measure.figures import figure
from bench.measure.output import write_json
from bench.measure.rounds import Figure, Round, figures, summarise
from bench.peers import curves
from bench.stages import ladder
from bench.stages.rung import Pass
from bench.step.verdict import judge

# Results of commands as they were measured, of each one.
OLD = (
    "ablation-weizmann-900steps-2cores",
    "cache-kinetics400-2cores",
    "embed-kinetics400-2cores",
    "fuzz-2000",
    "loader-kinetics400-2cores",
    "loader-vp9-2cores",
    "lookahead-kinetics400-2cores",
    "overhead-kinetics400-2cores",
    "overhead-kinetics400-copies112-2cores",
    "size-1million-2cores",
)
RESULTS = Path(__file__).resolve().parents[2] / "bench" / "results"
EVIL = "<img src=x onerror=alert(1)>"
AROUND = {
    "format": 1,
    "created": "2026-11-23T16:00:00+00:00",
    "environment": {
        "cpu": "Some CPU", "cores": 8, "cores_usable": 4, "memory_gib": 31.5, "load_before": [0.1, 0.2, 0.3],
        "gpus": [{"name": "Some GPU", "memory_gib": 79.1, "capability": "9.0", "driver": "570.1"}],
        "packages": {"torch": "2.13.0"}, "commit": {"hash": "0123456789abcdef", "changed": True},
    },
    "corpus": {"name": "some.parquet", "fingerprint": "feedfacefeedface", "videos": 12, "usable": 11},
}  # fmt: skip
RIGHT = Check(frames=64, told_apart=60, psnr=38.5, psnr_nearest=41.2, resize="square, antialiased")


def header(benchmark: str, **arguments: Any) -> dict[str, Any]:
    return {**AROUND, "benchmark": benchmark, "arguments": arguments}


def loader(**ratios: float) -> dict[str, Any]:
    """Ours beside a peer for each ratio, one that is wrong and one that is missing; curves over workers."""
    rates = {"ours": 40.0, **{name.replace("_", "-"): 40.0 / ratio for name, ratio in ratios.items()}}
    rounds = [
        Round(list(rates), {name: Figure(32, 1.0, rate * (1 + 0.02 * turn), 1 / rate) for name, rate in rates.items()})
        for turn in range(3)
    ]
    checks = {name: RIGHT.as_dict() for name in rates}
    checks["wrong-peer"] = Check(frames=64, wrong=7, psnr=21.0, psnr_nearest=22.0, reason="7 wrong frames").as_dict()
    window = {"requests": 8, "checks": checks, "rounds": [], "summary": summarise(rounds)}
    turns = {
        value: [
            Round(list(rates), {name: Figure(32, 1.0, rate * min(value, 2), 1 / rate) for name, rate in rates.items()})
            for _ in range(3)
        ]
        for value in (1, 2, 4)
    }
    axis = curves.Axis("workers", (1, 2, 4))
    curve = {"axis": "workers", "values": [1, 2, 4], "window": "independent", "around": {"prefetch": 2}}
    return {
        **header("loader", frames=16, speeds=[1.0, 2.0], candidates=list(rates), require={"best": 1.0}),
        "candidates": {name: {"kind": "best", "notes": f"notes on {name}"} for name in [*rates, "wrong-peer", "gone"]},
        "missing": {"gone": f"not installed {EVIL}"},
        "windows": {"independent": window},
        "goals": [],
        "curves": [{**curve, "candidates": curves.curve(axis, turns)}],
        "figures": figures(rounds, "independent"),
    }


def decode() -> dict[str, Any]:
    rates = {"ours-cpu": 20.0, "pyav": 10.0, "opencv": 16.0}
    rounds = [
        Round(
            list(rates),
            {
                name: Turn(8, 1.0, rate + turn / 10, 1 / rate, frames_per_second=24 * rate, memory_mib=80.0)
                for name, rate in rates.items()
            },
        )
        for turn in range(3)
    ]
    summary = contest.summarise(rounds)
    checks = {name: RIGHT.as_dict() for name in rates}
    checks["decord"] = Check(frames=64, wrong=3, psnr=23.0, reason="3 wrong frames").as_dict()
    return {
        **header("decode", frames=16, clips=24),
        "candidates": {name: {"where": "cpu", "notes": ""} for name in [*rates, "decord", "spdl", "pynvvideocodec"]},
        "missing": {"pynvvideocodec": "needs a GPU"},
        "failed": {"spdl": "no answer within 120 s"},
        "windows": {"shared": {"checks": checks, "summary": summary, "rounds": []}},
        "figures": {f"decode {name} {key} (shared)": one for name, row in summary.items() for key, one in row.items()},
    }


def stages() -> dict[str, Any]:
    rates = {"plan": 4000.0, "read": 900.0, "decode needed": 70.0, "decode in order": 120.0, "loader": 60.0}
    rates |= {"step": 90.0, "loader + step": 45.0}
    passes = {
        name: [
            Pass(samples=16, seconds=16 / rate * (1 + turn / 50), cpu=0.5, amounts={"frames": 64.0})
            for turn in range(3)
        ]
        for name, rate in rates.items()
    }
    climbed = ladder.Climb(passes, [], False)
    found = {
        name: {
            "missing": "",
            "about": f"about {name}",
            "clips_per_second": figure([2 * one.rate for one in done], "clips/s", "higher"),
            "amounts_per_second": {"frames": figure([64 * one.rate for one in done], "frames/s", "higher")},
            "cpu_seconds_per_clip": figure([one.cpu / 32 for one in done], "s", "lower"),
        }
        for name, done in passes.items()
    }
    found["decode by DALI"] = {"missing": "the CPU decoder of DALI does not take h264", "about": ""}
    row = {"cpu_ms": 10.0, "blocked_ms": 1.0, "helpers_ms": 0.0}
    rows = [
        {"stage": "read", "pool": "workers", "ms": 2.0, "share": 0.06, **row},
        {"stage": "decode", "pool": "workers", "ms": 28.0, "share": 0.84, **row},
        {"stage": "wait", "pool": "workers", "ms": 3.3, "share": 0.10, **row},
        {"stage": "graph", "pool": "graph", "ms": 5.0, "share": 0.3, **row},
        {"stage": "wait", "pool": "graph", "ms": 11.0, "share": 0.7, **row},
        {"stage": "other", "pool": "", "ms": None, "share": None, **row},
    ]
    waits = {"ready": 0.4, "caller_waited": 0.5, "graph_starved": 0.6, "graph_idle": 0.0}
    loads = {"host/cpu_load": {"mean": 0.9, "p95": 1.0, "max": 1.0}}
    times = figure([1.5, 1.55, 1.6], "x", "higher")
    return {
        **header("stages", frames=16, seconds=90.0),
        "figures": ladder.figures(climbed, 2),
        "ladder": found,
        "gaps": ladder.reading(climbed, 7.5, cold=False, warm=1.0),
        "stages": {"loader": {"rows": rows, "waits": waits, "loads": loads}},
        "tried": [{"name": "threads=4 instead of 2", "times": times, "how": "measured with the whole loader"}],
        "verdict": {
            "sentences": ["The loader alone:", "Decoding binds at 60 samples/s.", "threads=4: 1.5 times as many."]
        },
    }


def training_step() -> dict[str, Any]:
    rates = {step.DEVICE: 10.0, step.LOADER: 8.0, "look-ahead 0": 6.0, "look-ahead 2": 7.5}
    rounds = [
        {name: step.Turn(rate + turn / 10, 8 * rate, 0.2, 0.1, {}) for name, rate in rates.items()} for turn in range(3)
    ]
    return {
        **header("step", steps=10),
        "device": "cpu",
        "wrong": {"look-ahead 1": "it trains on other clips"},
        "figures": step.figures_of(rounds),
        "verdict": judge(step.measured(rounds)).as_dict(),
        "goal": {"goal": 0.95, "met": False},
        "trace": {"file": "trace.json", "mode": "look-ahead 2", "steps": 3, "ms_per_step": {"forward": 12.5}},
    }


def bank() -> dict[str, Any]:
    banks = []
    for rows in (1000, 10_000, 100_000):
        rates = {"ours": [1e6 / rows] * 2, "faiss": [8e5 / rows] * 2}
        batch = {"queries_per_second": rates, "updated_rows_per_second": {"ours": [5e4, 6e4]}}
        batch["share_of_bandwidth"] = {"ours": [0.7, 0.8], "faiss": [0.5, 0.6]}
        known: dict[str, Any] = {"rows": rows, "dim": 32, "dtype": "fp32", "batches": {"1": batch, "16": batch}}
        banks.append({**known, "wrong": {"torch": "other rows for 1 of 16 queries"}, "missing": {"triton": "no GPU"}})
    return {
        **{key: value for key, value in header("bank", rounds=2).items() if key != "corpus"},
        "bandwidth": {"read": 5.2e9, "copied": 6e9},
        "banks": banks,
        "figures": bank_figures(banks),
        "goal": {"goal": 0.7, "rows": 100_000, "dim": 32, "shares": {"fp32": 0.75}, "met": True},
        "left_out": [{"setting": "10000000 x 128 fp32", "reason": "needs 5.1 GB of 4.0 GB"}],
        "searchers": {"ours": "MemoryBank.search"},
    }


def sweep() -> dict[str, Any]:
    settings = [{"data.threads": threads, "data.prefetch": 2} for threads in (2, 1, 4)]
    rounds = [{"0": 30.0 + turn, "2": 36.0 + turn} for turn in range(3)]
    own, best = ([turn[number] for turn in rounds] for number in ("0", "2"))
    trial = {"bracket": 1, "turn": 1, "seconds": 2.0, "reason": ""}
    return {
        **header("sweep", minutes=1.5),
        "unit": "clips/s",
        "verdict": "threads 4 gives 1.19 times the default.",
        "stopped": "the gain is within noise",
        "default": settings[0],
        "best": settings[2],
        "settings": [
            {"number": n, **one, "memory_gib": 1.5, "left_out": "took too much memory" if n == 1 else ""}
            for n, one in enumerate(settings)
        ],
        "trials": [
            {**trial, "setting": n, "stage": stage, "rate": rate}
            for n, stage, rate in (
                (0, "warm-up", 28.0),
                (0, "rung", 30.5),
                (1, "rung", None),
                (2, "rung", 35.0),
                (2, "round", 36.0),
            )
        ],
        "rounds": rounds,
        "figures": {
            "default clips/s": figure(own, "clips/s", "higher"),
            "best clips/s": figure(best, "clips/s", "higher"),
        },
    }


def profile() -> dict[str, Any]:
    """A command that the page has no drawing for."""
    found = {
        "loader samples/s": figure([10.0, 11.0], "samples/s", "higher"),
        "lost to data": figure(0.2, "share", "lower"),
    }
    return {**header("something_new"), "figures": {**found, "step samples/s": figure(20.0, "samples/s", "higher")}}


def fill(folder: Path) -> Path:
    """Results of all commands, older ones among them, and files that are none."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in OLD:
        shutil.copy(RESULTS / f"{name}.json", folder)
    for name, result in {
        f"loader-{EVIL.replace('/', '')}": loader(torch_usual=2.0, decord_best=0.8, pyav_best=1.0),
        "decode-some": decode(),
        "stages-some": stages(),
        "step-some": training_step(),
        "bank": bank(),
        "sweep-some": sweep(),
        "new": profile(),
    }.items():
        write_json(folder / f"{name}.json", result)
    (folder / "cut.json").write_text('{"benchmark": "loader", "win')
    (folder / "list.json").write_text("[1, 2]")
    (folder / "trace.json").write_text('{"traceEvents": []}')
    (folder / "odd.json").write_text(json.dumps({**header("decode"), "windows": {"shared": {"summary": 3}}}))
    return folder
