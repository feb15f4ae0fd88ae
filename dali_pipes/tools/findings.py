"""What the doctor says: one finding a line, with a level and, where something can be done, a remedy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        section: gpu, software, machine, or a corpus's path.
        name: What was looked at.
        level: ok; note: it works, but better is possible or worth knowing; problem: it cannot be used as it is.
        text: What was found.
        remedy: What to do about it, "" where nothing.
        value: The same for machines, where there is a number or a few; None where there is not.
    """

    section: str
    name: str
    level: Level
    text: str
    remedy: str = ""
    value: Any = None


def size(count: float) -> str:
    """Bytes in words.

    >>> size(512), size(1536), size(3 << 30)
    ('512 bytes', '1.5 KiB', '3.0 GiB')
    """
    if count < 1024:
        return f"{count:.0f} bytes"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        if count < 1024:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} TiB"


def lines_of(findings: list[Finding]) -> list[str]:
    """Findings as aligned lines under the names of their sections, and one line that sums up."""
    lines: list[str] = []
    section = None
    for finding in findings:
        if finding.section != section:
            lines += [""] * bool(lines) + [finding.section]
            section = finding.section
        lines.append(f"  {finding.level:<8} {finding.name:<16} {finding.text}")
        if finding.remedy:
            lines.append(f"  {'':<8} {'':<16} -> {finding.remedy}")
    counts = {level: sum(finding.level == level for finding in findings) for level in ("problem", "note", "ok")}
    return [*lines, "", f"problems {counts['problem']}, notes {counts['note']}, ok {counts['ok']}"]
