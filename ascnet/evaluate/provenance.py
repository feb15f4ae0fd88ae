"""Where a score comes from: the command, the commit of the code, and the versions that matter."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any


def provenance() -> dict[str, Any]:
    """Command, commit and versions; whatever cannot be found out is None, never an error."""
    return {
        "command": command_line(),
        "commit": commit(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in ("torch", "dali-pipes")}},
    }


def command_line() -> str:
    """The command of this process, as it can be typed again."""
    words = [Path(sys.argv[0]).name, *sys.argv[1:]] if sys.argv else []
    return shlex.join(words)


def commit() -> str | None:
    """Commit of the checkout that this package lies in, with "-dirty" where tracked files differ from it."""
    folder = Path(__file__).resolve().parents[2]
    # An installed package may lie inside somebody else's repository.
    if not (folder / ".git").exists():
        return None
    try:
        head = _git(folder, "rev-parse", "HEAD")
        return head + ("-dirty" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *words: str) -> str:
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    done = subprocess.run(
        ["git", *words], cwd=folder, capture_output=True, text=True, check=True, timeout=10, env=environment
    )
    return done.stdout.strip()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
