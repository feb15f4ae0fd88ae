"""Everything about one video that matters for training on it, as a dictionary for machines and as lines for people."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dali_pipes.corpus import Video
from dali_pipes.decode.choice import choose
from dali_pipes.tools.copies import copy_rows, describe_copies
from dali_pipes.tools.cost import Cost, clip_cost
from dali_pipes.tools.gop import Structure, structure, timeline
from dali_pipes.tools.presets import advised

FRAMES = 16
SPEEDS = (1.0, 2.0)
DEVICES = ("cpu", "gpu")
# From here on most of the time goes into frames that nobody sees.
DEAR = 3.0
_TYPES = "IPBS-"


def inspect_video(
    video: Video,
    *,
    devices: tuple[str, ...] = DEVICES,
    cache: str | os.PathLike[str] | None = None,
    size: int = 112,
) -> dict[str, Any]:
    """Describe a video: the probe's findings, GOPs, what clips cost, which decoder it gets, and advice.

    Args:
        video: Row of a corpus.
        devices: For which the decoder is told: "cpu", "gpu".
        cache: Folder of small copies to look for one in; None: none.
        size: Side of the clips that these copies are for, pixels.

    Returns:
        What `dali-pipes inspect --json` prints; see docs/tools.md.

    Raises:
        DataError: There is no such folder.
        VideoError: The file cannot be read.
    """
    copies = describe_copies(video, cache, size)
    found = structure(video)
    costs = [clip_cost(video, frames=FRAMES, speed=speed) for speed in SPEEDS]
    return {
        "uri": video.uri,
        "container": found.container,
        "codec": video.codec,
        "pixel_format": video.pixel_format,
        "width": video.width,
        "height": video.height,
        "rotation": video.rotation,
        "frames": video.frames,
        "packets": found.packets,
        "rate": video.rate,
        "constant": video.constant,
        "interval_seconds": None if found.intervals is None else spread(found.intervals),
        "duration": video.duration,
        "bytes": video.bytes,
        "stream_bytes": found.stream_bytes,
        "bit_rate": 8 * found.stream_bytes / video.duration if video.duration > 0 else None,
        "numbering": video.numbering,
        "uniform": video.uniform,
        "sliceable": video.sliceable,
        "notes": video.notes,
        "gop": {
            "key_frames": video.key_frames.tolist(),
            "lengths": spread(found.lengths),
            "bytes": None if found.bytes is None else spread(found.bytes),
            "types": found.types,
        },
        "clips": [_clip(cost) for cost in costs],
        "decoders": {
            device: {"decoder": choice.decoder, "reason": choice.reason}
            for device, choice in ((device, choose(video, device)) for device in devices)
        },
        "cache": copies,
        "advice": advice(video, found, costs, devices),
    }


def spread(values: NDArray[Any]) -> dict[str, float] | None:
    """Smallest, middle and largest; None of nothing."""
    if not len(values):
        return None
    return {
        "min": values.min().item(),
        "median": float(np.median(values)),
        "max": values.max().item(),
    }


def _clip(cost: Cost) -> dict[str, float]:
    return {
        "speed": cost.speed,
        "frames": FRAMES,
        "starts": cost.starts,
        "wanted": cost.wanted,
        "decoded": cost.decoded,
        "lead_in": cost.lead_in,
        "most": cost.most,
    }


def advice(video: Video, found: Structure, costs: list[Cost], devices: tuple[str, ...] = DEVICES) -> list[str]:
    """What would make the video cheaper or safer to train on, in words; empty where nothing would."""
    lines = []
    dearest = max(costs, key=lambda cost: cost.decoded / cost.wanted)
    if dearest.decoded >= DEAR * dearest.wanted:
        lines.append(
            f"{dearest.decoded:.0f} frames are decoded for the {dearest.wanted:.0f} of a clip at {dearest.speed:g}x, "
            f"{100 * dearest.lead_in / dearest.decoded:.0f} % of them lead-in (GOPs of {np.median(found.lengths):.0f})"
        )
        lines += [f"for the {device.upper()}: {advised(device)}" for device in devices]
    if video.numbering == "count":
        lines.append(
            "frames are found by counting only, and on the host only; "
            "a copy made by `dali-pipes transcode` has time stamps"
        )
    if not video.uniform:
        lines.append("the picture's size or format changes; a copy made by `dali-pipes transcode` has one size")
    if video.frames < FRAMES:
        lines.append(f"shorter than a clip of {FRAMES} frames, which begins again at frame 0 (short='loop')")
    return lines


def lines_of(report: dict[str, Any], width: int = 80) -> list[str]:
    """The report as aligned lines.

    Args:
        report: As `inspect_video` gives it.
        width: Columns of the terminal.
    """
    gop = report["gop"]
    keys, lengths = gop["key_frames"], gop["lengths"]
    rows = [
        ("file", report["uri"]),
        ("container", report["container"]),
        ("codec", report["codec"]),
        ("pixel format", report["pixel_format"]),
        ("size", _size(report)),
        ("frames", f"{report['frames']} in {report['packets']} packets"),
        ("rate", _rate(report)),
        ("duration", f"{report['duration']:.3f} s"),
        ("bytes", _bytes(report)),
        ("numbering", _NUMBERING[report["numbering"]]),
        ("sliceable", "yes: each packet shows one frame" if report["sliceable"] else "no: packets are not frames"),
        ("notes", report["notes"] or "none"),
        ("", ""),
        ("key frames", f"{len(keys)}: {_some(keys)}"),
        ("", timeline(keys, report["frames"], max(width - 14, 20))),
        ("GOP length", f"{_spread(lengths)} frames"),
        ("GOP bytes", _spread(gop["bytes"]) if gop["bytes"] else "not told by the packets"),
        ("pictures", _types(gop["types"])),
        ("", ""),
    ]
    for clip in report["clips"]:
        rows.append(
            (
                f"clip at {clip['speed']:g}x",
                f"{clip['decoded']:.1f} frames decoded for {clip['wanted']:.1f} wanted "
                f"({clip['lead_in']:.1f} of lead-in), at most {clip['most']}; {_starts(report, clip)}",
            )
        )
    rows += [
        (f"on {device.upper()}", f"{choice['decoder']}: {choice['reason']}")
        for device, choice in report["decoders"].items()
    ]
    rows += copy_rows(report["cache"])
    rows += [("advice", line) for line in report["advice"]] or [("advice", "none: leave it as it is")]
    return [f"{name:<12}  {text}".rstrip() for name, text in rows]


_NUMBERING = {"pts": "pts: by time stamps", "count": "count: only by counting from a key frame on"}


def _size(report: dict[str, Any]) -> str:
    rotation = f", shown turned by {report['rotation']} degrees clockwise" if report["rotation"] else ", not rotated"
    changing = "" if report["uniform"] else ", changes within the video"
    return f"{report['width']} x {report['height']}{rotation}{changing}"


def _rate(report: dict[str, Any]) -> str:
    text = f"{report['rate']:.3f} frames/s, {'constant' if report['constant'] else 'variable'}"
    spread = report["interval_seconds"]
    if spread is None:
        return text
    low, middle, high = (1000 * spread[key] for key in ("min", "median", "max"))
    return f"{text}: {low:.1f} / {middle:.1f} / {high:.1f} ms between frames (min / median / max)"


def _bytes(report: dict[str, Any]) -> str:
    text = f"{report['bytes']}, of which the video stream {report['stream_bytes']}"
    return text if report["bit_rate"] is None else f"{text} = {report['bit_rate'] / 1000:.0f} kbit/s"


def _spread(values: dict[str, float]) -> str:
    return f"{values['min']:.0f} / {values['median']:.0f} / {values['max']:.0f} (min / median / max)"


def _some(numbers: list[int], most: int = 8) -> str:
    shown = ", ".join(map(str, numbers[:most]))
    return f"{shown} ... {numbers[-1]}" if len(numbers) > most else shown


def _types(groups: list[dict[str, int]] | None) -> str:
    if groups is None:
        return "types not told by the packets"
    total: Counter[str] = Counter()
    for group in groups:
        total.update(group)
    each = {kind: spread(np.array([group.get(kind, 0) for group in groups])) for kind in _TYPES if total[kind]}
    return "per GOP " + ", ".join(
        f"{_NAMES.get(kind, kind)} {value['min']:.0f} / {value['median']:.0f} / {value['max']:.0f}"
        for kind, value in each.items()
        if value
    )


_NAMES = {"-": "(none)"}


def _starts(report: dict[str, Any], clip: dict[str, float]) -> str:
    return f"{'mean over' if clip['starts'] > 1 else 'from'} {clip['starts']:.0f} start{'s'[: clip['starts'] != 1]}"
