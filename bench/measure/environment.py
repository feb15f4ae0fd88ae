"""What a measurement was taken on: machine, packages, commit."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from dali_pipes.corpus.engine import default_workers

PACKAGES = (
    "torch",
    "nvidia-dali-cuda120",
    "nvidia-dali-cuda130",
    "av",
    "numpy",
    "pyarrow",
    "torchcodec",
    "decord",
    "opencv-python-headless",
    "opencv-python",
)


def describe() -> dict[str, Any]:
    """Machine, packages and commit. Whatever cannot be found out is None, never an error."""
    return {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "cpu": cpu_name(),
        "cores_usable": default_workers(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "load_before": [round(load, 2) for load in os.getloadavg()],
        "gpus": gpus(),
        "packages": packages(),
        "commit": commit(),
    }


def cpu_name() -> str | None:
    """Model name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or None
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), None)


def gpus() -> list[dict[str, Any]]:
    """Name, memory and compute capability of each GPU that torch can use."""
    if not torch.cuda.is_available():
        return []
    found = []
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        found.append(
            {
                "name": facts.name,
                "memory_gib": round(facts.total_memory / 2**30, 1),
                "capability": f"{facts.major}.{facts.minor}",
                "cuda": torch.version.cuda,
            }
        )
    return found


def packages() -> dict[str, str]:
    """Installed versions of what takes part in a measurement."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def commit() -> dict[str, Any] | None:
    """Commit of this source tree, and whether files differ from it; None outside a git checkout."""
    folder = Path(__file__).resolve().parents[2]
    head = _git(folder, "rev-parse", "HEAD")
    if head is None:
        return None
    # Results are written by the benchmark itself and say nothing of the code that was measured.
    changed = _git(folder, "status", "--porcelain", "--", ".", ":!bench/results")
    return {"hash": head, "changed": bool(changed)}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        run = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return run.stdout.strip()
