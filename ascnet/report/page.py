"""One file that shows a run: everything in it, nothing fetched, bounded in size."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from ascnet.errors import UserError
from ascnet.report.moving import LEVELS, Level

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        key: Its address within the page.
        title: Heading; plain text.
        text: A sentence or two below the heading; plain text.
        html: Content, at a level of pictures.
    """

    key: str
    title: str
    text: str
    html: Callable[[Level], str]


@dataclass(frozen=True)
class Page:
    """What stands on a page; all of it plain text but for the sections' content."""

    name: str
    kind: str
    about: str
    tiles: Sequence[tuple[str, str]]
    sections: Sequence[Section]
    notes: Sequence[str] = ()
    footer: str = ""

    def html(self, most: int) -> str:
        """The page, with the best pictures that fit.

        Args:
            most: Bytes that it may have.

        Raises:
            UserError: If it does not fit with the poorest pictures.
        """
        size = 0
        for level in LEVELS:
            text = self.at(level)
            size = len(text.encode())
            if size <= most:
                return text
        raise UserError(
            f"--max-mb {most / 1e6:g}: the page has {size / 1e6:.2f} MB with the smallest pictures; allow more, or ask "
            "for fewer with --queries, --neighbours and --points"
        )

    def at(self, level: Level) -> str:
        """The page with pictures of one level."""
        script = (HERE / "page.js").read_text(encoding="utf-8")
        # Only this script runs: a name from a data set that got past the escaping would still do nothing.
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        content = [f'<aside class="notes" aria-label="What is missing">{notes}</aside>'] if notes else []
        content += [
            f'<section id="{section.key}" aria-labelledby="{section.key}-title"><h2 id="{section.key}-title">'
            f"{escape(section.title)}</h2><p>{escape(section.text)}</p>{section.html(level)}</section>"
            for section in self.sections
        ]
        values = {
            "script_hash": f"sha256-{digest}",
            "title": escape(f"{self.name} · {self.kind}"),
            "style": (HERE / "page.css").read_text(encoding="utf-8"),
            "kind": escape(self.kind),
            "name": escape(self.name),
            "about": escape(self.about),
            "tiles": "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in self.tiles),
            "links": "".join(f'<li><a href="#{one.key}">{escape(one.title)}</a></li>' for one in self.sections),
            "sections": "\n".join(content),
            "footer": escape(self.footer),
            "script": script,
        }
        # One pass, so that what was put in is not searched for places again.
        page = (HERE / "page.html").read_text(encoding="utf-8")
        return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], page)
