"""What the machine offers: GPU, libraries, cores, memory, limits. Everything is asked for, nothing is assumed."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from dali_pipes.decode.choice import CPU_CODECS, GPU_CODECS
from dali_pipes.tools.findings import Finding, size

# Optional packages: name, module, distributions that bring it, and what it is for.
OPTIONAL: tuple[tuple[str, str, tuple[str, ...], str], ...] = (
    ("torchcodec", "torchcodec", ("torchcodec",), "decodes small copies in threads, where processes=False"),
    ("OpenCV", "cv2", ("opencv-python-headless", "opencv-python"), "compared with by bench"),
    ("ray", "ray", ("ray",), "indexing and decoding on several machines"),
    ("fsspec", "fsspec", ("fsspec",), "videos behind addresses such as http://"),
    ("s3fs", "s3fs", ("s3fs",), "videos in S3 and its kind"),
    ("gcsfs", "gcsfs", ("gcsfs",), "videos in Google Cloud Storage"),
)
_REQUIRED = (
    ("torch", "torch", ("torch",)),
    ("DALI", "nvidia.dali", ("nvidia-dali-cuda120", "nvidia-dali-cuda130", "nvidia-dali-cuda110")),
    ("PyAV", "av", ("av",)),
)
_FFMPEG = ("libavcodec", "libavformat", "libswscale")
_ROOM = 1 << 30
_FILES = 1024


def gpu() -> list[Finding]:
    """The GPUs that torch sees, their driver, and the codecs that go to NVDEC."""
    try:
        import torch
    except (ImportError, OSError):
        return []  # `software` says what is the matter
    if not torch.cuda.is_available():
        why = "torch is built without CUDA" if torch.version.cuda is None else "no GPU or no driver is found"
        return [
            Finding(
                "gpu", "cuda", "note",
                f"torch sees no CUDA GPU ({why}): all runs on the CPU, where DALI decodes {', '.join(CPU_CODECS)} "
                "and PyAV the rest",
                "install an NVIDIA driver and a torch with CUDA if there is a GPU",
                value=[],
            )
        ]  # fmt: skip
    found = []
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        text = f"{about.name}, {size(about.total_memory)}, compute capability {about.major}.{about.minor}"
        found.append(Finding("gpu", f"cuda:{index}", "ok", text, value={"name": about.name}))
    driver = driver_version()
    text = driver or "not told: neither pynvml nor nvidia-smi is here"
    found.append(Finding("gpu", "driver", "ok" if driver else "note", text, value=driver))
    codecs = ", ".join(f"{codec} from {w}x{h}" for codec, (w, h) in GPU_CODECS.items())
    found.append(Finding("gpu", "NVDEC", "ok", f"is given {codecs}; PyAV decodes the rest", value=list(GPU_CODECS)))
    return found


def driver_version() -> str | None:
    """The NVIDIA driver's version, asked of NVML or of nvidia-smi; None where neither is there."""
    if importlib.util.find_spec("pynvml") is not None:
        try:
            pynvml = importlib.import_module("pynvml")
            pynvml.nvmlInit()
            try:
                version = pynvml.nvmlSystemGetDriverVersion()
            finally:
                pynvml.nvmlShutdown()
            return version.decode() if isinstance(version, bytes) else str(version)
        except Exception:  # the library may be there without a driver, and each version has errors of its own
            pass
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    words = done.stdout.split()
    return words[0] if words and done.returncode == 0 else None


def software() -> list[Finding]:
    """Versions of what is needed and of what is optional, and the FFmpeg libraries inside PyAV."""
    found = [Finding("software", "python", "ok", sys.version.split()[0], value=sys.version.split()[0])]
    for name, module, distributions in _REQUIRED:
        version = version_of(*distributions)
        try:
            package = importlib.import_module(module)
        except (ImportError, OSError) as error:  # absent, or a shared library that it needs is
            text = f"{version or 'not installed'}, cannot be imported: {str(error).partition(chr(10))[0]}"
            found.append(Finding("software", name, "problem", text, "install the package again: docs/install.md"))
            continue
        found.append(Finding("software", name, "ok", version or "installed", value=version))
        if module == "av":
            versions = package.library_versions
            libraries = {library: ".".join(map(str, versions[library])) for library in sorted(versions)}
            text = ", ".join(f"{library} {libraries[library]}" for library in _FFMPEG)
            found.append(Finding("software", "FFmpeg in PyAV", "ok", text, value=libraries))
    return [*found, *(optional(*package) for package in OPTIONAL)]


def version_of(*distributions: str) -> str | None:
    """Version of the first of these distributions that is installed; None where none is."""
    for distribution in distributions:
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def optional(name: str, module: str, distributions: tuple[str, ...], purpose: str) -> Finding:
    """Whether an optional package is there and, where that is in doubt, whether it loads."""
    if importlib.util.find_spec(module) is None:
        return Finding("software", name, "ok", f"not installed; optional: {purpose}")
    version = version_of(*distributions)
    if module == "torchcodec":
        # It loads FFmpeg's shared libraries from the system, which may be absent. In a process of its own, for they
        # are other versions than those inside PyAV.
        reason = load_failure("torchcodec.decoders")
        if reason:
            remedy = f"optional ({purpose}): it needs FFmpeg's shared libraries on the system"
            return Finding("software", name, "note", f"{version}, does not load: {reason}", remedy, value=version)
    return Finding("software", name, "ok", f"{version or 'installed'}; optional: {purpose}", value=version)


def load_failure(module: str) -> str:
    """Why a module cannot be imported, the error's first line; "" where it can."""
    try:
        done = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return "it takes more than 60 s"
    if done.returncode == 0:
        return ""
    errors = [line for line in done.stderr.splitlines() if line and not line.startswith((" ", "Traceback"))]
    named = [line for line in errors if "Error" in line.partition(":")[0]]
    return (named or errors or [f"exit code {done.returncode}"])[0][:160]


def machine() -> list[Finding]:
    """Cores, memory, shared memory, open files, room for temporary files."""
    cores = len(os.sched_getaffinity(0))
    quota = cpu_quota()
    text = f"{cores} of {os.cpu_count()} may be used"
    remedy = ""
    if quota is not None and quota < cores:
        text += f", but the control group grants the time of {quota:g}"
        remedy = f"give the loader threads={max(round(quota), 1)}: it takes one for each core otherwise"
    found = [Finding("machine", "cores", "note" if remedy else "ok", text, remedy, {"cores": cores, "quota": quota})]
    total, free = memory()
    level = "note" if free < _ROOM else "ok"
    remedy = "batches of frames are kept in memory: smaller batch_size or prefetch" if level == "note" else ""
    text = f"{size(free)} free of {size(total)}"
    found.append(Finding("machine", "memory", level, text, remedy, {"free": free, "total": total}))  # type: ignore[arg-type]
    for name, folder, use in (
        ("/dev/shm", "/dev/shm", "ray and DataLoader workers use it; dali_pipes itself does not"),
        ("temporary files", tempfile.gettempdir(), "small files of the index and of previews"),
    ):
        found.append(_room(name, folder, use))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = soft != resource.RLIM_INFINITY and soft < _FILES
    text = f"{'no limit' if soft == resource.RLIM_INFINITY else soft} (at most {hard})"
    remedy = f"ulimit -n {_FILES}" if few else ""
    found.append(Finding("machine", "open files", "note" if few else "ok", text, remedy, soft))
    return found


def cpu_quota(root: str | os.PathLike[str] = "/sys/fs/cgroup") -> float | None:
    """Cores' worth of time that the control group grants (version 2, then 1); None where it sets no limit."""
    base = Path(root)
    try:
        quota, period = (base / "cpu.max").read_text().split()[:2]
    except (OSError, ValueError):
        try:
            quota = (base / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (base / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    return None if quota in ("max", "-1") else int(quota) / int(period)


def memory(root: str | os.PathLike[str] = "/sys/fs/cgroup") -> tuple[int, int]:
    """All memory and what is free of it, bytes; the control group's where it grants less than there is."""
    words = [line.split() for line in Path("/proc/meminfo").read_text().splitlines()]
    kilobytes = {line[0].rstrip(":"): int(line[1]) for line in words}
    total, free = kilobytes["MemTotal"] * 1024, kilobytes["MemAvailable"] * 1024
    try:
        limit, used = (int((Path(root) / f"memory.{name}").read_text()) for name in ("max", "current"))
    except (OSError, ValueError):  # no control group, or "max"
        return total, free
    return min(total, limit), min(free, max(limit - used, 0))


def _room(name: str, folder: str, use: str) -> Finding:
    try:
        usage = shutil.disk_usage(folder)
    except OSError as error:
        return Finding("machine", name, "note", f"{folder}: {error.strerror}", use)
    little = usage.free < _ROOM
    text = f"{size(usage.free)} free in {folder}"
    return Finding("machine", name, "note" if little else "ok", text, use if little else "", usage.free)
