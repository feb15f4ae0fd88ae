"""Tables of `python -m bench stages`: the ladder, the stages at work, the loads, the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.stages.whole import FullPass
from bench.verdict import Stage
from dali_pipes.stages import STAGES

# Loads shown, in this order, where they were seen: name, what it is, factor, digits, unit.
LOADS = (
    ("gpu/sm_load", "GPU, computing", 100, 0, "%"),
    ("gpu/decoder_load", "GPU, video decoder", 100, 0, "%"),
    ("gpu/encoder_load", "GPU, video encoder", 100, 0, "%"),
    ("gpu/memory_used_gib", "GPU, memory", 1, 1, "GiB"),
    ("gpu/pcie_rx_mb_s", "PCIe, to the GPU", 1, 0, "MB/s"),
    ("gpu/pcie_tx_mb_s", "PCIe, from the GPU", 1, 0, "MB/s"),
    ("host/cpu_load", "CPU, whole machine", 100, 0, "%"),
    ("host/tree_cpus", "cores of this process and its children", 1, 2, ""),
    ("host/memory_load", "memory, whole machine", 100, 0, "%"),
    ("host/rss_gib", "memory of this process", 1, 2, "GiB"),
    ("host/process_read_mb_s", "fetched from storage by this process", 1, 1, "MB/s"),
    ("host/disk_read_mb_s", "fetched from disks, whole machine", 1, 1, "MB/s"),
)


def stage_rows(done: FullPass) -> list[dict[str, Any]]:
    """What each stage took of a pass, and what its threads waited for.

    Returns:
        For each stage `stage`, `pool`, `ms` a sample that it holds a thread of the pool; of that `cpu_ms`, `blocked_ms`
        and `queued_ms` (another program had the core); `helpers_ms` of CPU time of threads that work for it; `share` of
        the pool's time. At the end of each pool a row `wait`: the rest of its time.
    """
    observed, rows = done.observed, []
    for pool in observed.pools:
        taken = 0.0
        # In the order of a request.
        for stage in sorted((one for one in observed.stages if one.pool == pool.name), key=_place):
            share = stage.held * observed.rate / pool.threads
            taken += share
            rows.append(
                {
                    "stage": stage.name,
                    "pool": pool.name,
                    "ms": 1e3 * stage.held,
                    "cpu_ms": 1e3 * stage.cpu,
                    "blocked_ms": 1e3 * stage.blocked,
                    "queued_ms": 1e3 * stage.queued,
                    "helpers_ms": 1e3 * stage.helpers,
                    "share": min(share, 1.0),
                }
            )
        if taken:
            # For samples, for batches asked for, or for a core.
            rest = max(0.0, 1.0 - taken)
            rows.append({"stage": "wait", "pool": pool.name, "ms": 1e3 * rest * pool.threads / observed.rate})
            rows[-1] |= {"cpu_ms": 0.0, "blocked_ms": 0.0, "queued_ms": 0.0, "helpers_ms": 0.0, "share": rest}
    for stage in (one for one in observed.stages if not one.pool):
        rows.append({"stage": stage.name, "pool": "", "ms": None, "cpu_ms": 1e3 * stage.cpu, "blocked_ms": 0.0})
        rows[-1] |= {"queued_ms": 0.0, "helpers_ms": 0.0, "share": None}
    return rows


def _place(stage: Stage) -> int:
    return list(STAGES).index(stage.name) if stage.name in STAGES else len(STAGES)


def waits(done: FullPass) -> dict[str, float | None]:
    """Shares of the time of a pass: who waited for whom, and how often a batch was ready."""
    return {
        "ready": done.observed.ready,
        "caller_waited": done.waited / done.seconds,
        "graph_starved": min(1.0, done.starved / done.seconds),
        "graph_idle": min(1.0, done.idle / done.seconds),
        "cores_free": done.observed.cores,
        "cores_used": done.reading.used,
        "cpu_seconds_per_sample": done.cpu / done.samples,
    }


def print_all(result: Mapping[str, Any], console: Console) -> None:
    """Everything that a person reads, the verdict last."""
    console.print(_ladder(result))
    for line in result["gaps"]:
        console.print(f"- {escape(line)}")
    for name, part in result["stages"].items():
        console.print()
        console.print(_stages(name, part))
        if part["loads"]:
            console.print(_loads(name, part["loads"]))
    if result["tried"]:
        console.print()
        console.print(_tried(result["tried"]))
    console.print()
    console.print("[bold]Verdict[/bold]")
    for sentence in result["verdict"]["sentences"]:
        console.print(escape(sentence))


def _ladder(result: Mapping[str, Any]) -> Table:
    table = Table(title="each stage alone, at its ceiling", title_justify="left")
    for name in ("rung", "clips/s [95 %]", "and", "CPU ms/clip", "what"):
        table.add_column(name, justify="left" if name in ("rung", "what") else "right", no_wrap=name != "what")
    for name, rung in result["ladder"].items():
        if rung["missing"]:
            table.add_row(name, "-", "", "-", escape(f"left out: {rung['missing']}"))
            continue
        rate = rung["clips_per_second"]
        more = ", ".join(f"{value['median']:.4g} {unit}/s" for unit, value in rung["amounts_per_second"].items())
        table.add_row(
            name,
            f"{rate['median']:.4g} [{rate['low']:.4g}, {rate['high']:.4g}]",
            more,
            f"{1e3 * rung['cpu_seconds_per_clip']['median']:.3g}",
            escape(rung["about"]),
        )
    return table


def _stages(name: str, part: Mapping[str, Any]) -> Table:
    known = part["waits"]
    ready = "-" if known["ready"] is None else f"{known['ready']:.0%}"
    caption = (
        f"a batch was ready at {ready} of the calls; the caller waited {known['caller_waited']:.0%} of the time, the "
        f"graph {known['graph_starved']:.0%} for samples and {known['graph_idle']:.0%} for something to do; "
        f"{known['cores_used']:.2f} cores used of {known['cores_free']:.2f} to be had"
    )
    table = Table(title=f"at work: {name}", title_justify="left", caption=caption, caption_justify="left")
    for column in ("pool", "stage", "ms/sample", "computing", "blocked", "no core", "helpers", "of its time"):
        table.add_column(column, justify="left" if column in ("pool", "stage") else "right", no_wrap=True)
    for row in part["rows"]:
        table.add_row(
            row["pool"] or "(others)",
            row["stage"],
            "-" if row["ms"] is None else f"{row['ms']:.2f}",
            f"{row['cpu_ms']:.2f}",
            f"{row['blocked_ms']:.2f}",
            f"{row['queued_ms']:.2f}",
            f"{row['helpers_ms']:.2f}",
            "-" if row["share"] is None else f"{row['share']:.0%}",
        )
    return table


def _loads(name: str, loads: Mapping[str, Mapping[str, float]]) -> Table:
    table = Table(title=f"loads: {name}", title_justify="left")
    for column in ("load", "mean", "95th percentile", "most"):
        table.add_column(column, justify="left" if column == "load" else "right", no_wrap=True)
    for key, words, factor, digits, unit in LOADS:
        if key in loads:
            values = (loads[key][part] * factor for part in ("mean", "p95", "max"))
            table.add_row(words, *(f"{value:.{digits}f} {unit}".rstrip() for value in values))
    return table


def _tried(tried: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title="tried", title_justify="left")
    for column in ("change", "times as quick [95 %]", "how"):
        table.add_column(column, justify="right" if "times" in column else "left")
    for one in tried:
        times = one["times"]
        width = "" if times["count"] < 2 else f" [{times['low']:.2f}, {times['high']:.2f}]"
        table.add_row(escape(one["name"]), f"{times['median']:.2f}{width}", escape(one["how"]))
    return table
