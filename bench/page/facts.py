"""Where a result was measured: machine, packages, commit, corpus."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from bench.page.read import Result

# Those that have words of their own below; others are shown by their key.
_SPECIAL = {"cpu", "cores", "cores_usable", "memory_gib", "gpus", "packages", "commit", "load_before"}


def environment(result: Result) -> list[tuple[str, str]]:
    """Name and value of everything that is known of the machine, as plain text."""
    known = result.data.get("environment")
    if not isinstance(known, Mapping):
        return []
    facts = []
    cores = f"{known.get('cores_usable')} of {known.get('cores')} cores" if known.get("cores") else ""
    facts.append(("CPU", ", ".join(text for text in (str(known.get("cpu") or "unknown"), cores) if text)))
    if known.get("memory_gib"):
        facts.append(("Memory", f"{known['memory_gib']} GiB"))
    gpus = known.get("gpus")
    facts.append(("GPU", "; ".join(_gpu(one) for one in gpus) if isinstance(gpus, list) and gpus else "none"))
    facts += [(str(key).replace("_", " ").capitalize(), plain(v)) for key, v in known.items() if key not in _SPECIAL]
    if isinstance(known.get("packages"), Mapping):
        facts.append(("Packages", ", ".join(f"{name} {version}" for name, version in known["packages"].items())))
    facts.append(("Commit", commit(result) or "unknown"))
    load = known.get("load_before")
    if isinstance(load, list):
        facts.append(("Load before (1, 5, 15 minutes)", plain(load)))
    return [*facts, *corpus(result)]


def corpus(result: Result) -> list[tuple[str, str]]:
    """What is known of the videos."""
    known = result.data.get("corpus")
    if not isinstance(known, Mapping):
        return []
    return [(f"Corpus: {str(key).replace('_', ' ')}", plain(value)) for key, value in known.items()]


def commit(result: Result) -> str:
    """Short hash, and whether files differed from it; "" where it is not known."""
    known = result.data.get("environment")
    found = known.get("commit") if isinstance(known, Mapping) else None
    if not isinstance(found, Mapping) or not found.get("hash"):
        return ""
    return f"{str(found['hash'])[:10]}{', with changes' if found.get('changed') else ''}"


def date(result: Result) -> str:
    """Day and minute, UTC; "" where it is not known."""
    try:
        made = datetime.fromisoformat(str(result.data.get("created")))
    except ValueError:
        return ""
    return made.strftime("%Y-%m-%d %H:%M") + (" UTC" if not made.utcoffset() and made.tzinfo else "")


def plain(value: Any) -> str:
    """Anything as a line of text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(one)}" for key, one in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(one) for one in value)
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _gpu(one: Any) -> str:
    if not isinstance(one, Mapping):
        return str(one)
    rest = {key: value for key, value in one.items() if key not in ("name", "memory_gib")}
    memory = f"{one['memory_gib']} GiB" if one.get("memory_gib") else ""
    return ", ".join(text for text in (str(one.get("name", "?")), memory, plain(rest)) if text)
