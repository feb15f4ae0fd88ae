"""The page: one file, everything in it, nothing fetched."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from bench.page import facts
from bench.page.charts import CONFIG, PALETTES
from bench.page.command import command_of
from bench.page.content import Chart, Part, Ratio
from bench.page.read import Result, Unreadable
from bench.page.sections import part_of, ratios_of
from bench.page.summary import COLOURS, QUICKER, overview
from bench.page.tables import times

# Verdicts that stand in the summary too.
BINDS = {"stages": "What binds", "step": "Is the training step fed"}
HERE = Path(__file__).resolve().parent


class Page:
    """The results of a folder as HTML, and their charts.

    Args:
        title: Heading.
        results: In the order of the page.
        unreadable: Files that are listed with the reason.
    """

    def __init__(self, title: str, results: Sequence[Result], unreadable: Sequence[Unreadable]) -> None:
        self.title = title
        self.unreadable = list(unreadable)
        self.shown: list[tuple[Result, Part]] = []
        for result in results:
            part = part_of(result)
            if isinstance(part, Unreadable):
                self.unreadable.append(part)
            else:
                self.shown.append((result, part))
        self.ratios: list[Ratio] = [ratio for result, _ in self.shown for ratio in ratios_of(result)]
        self.overviews = {name: part for name in QUICKER if (part := overview(self.ratios, name)).charts}
        self._charts: dict[str, Chart] = {}
        self._numbers = itertools.count(1)

    def html(self, library: str) -> str:
        """The page.

        Args:
            library: Vega, Vega-Lite and vega-embed as one script.
        """
        self._charts.clear()
        sections = [self._summary(), *self._sections()]
        script = (HERE / "page.js").read_text(encoding="utf-8")
        charts = {key: one.spec for key, one in self._charts.items()}
        content = json.dumps({"charts": charts, "config": CONFIG, "palettes": PALETTES}, allow_nan=False)
        groups = dict.fromkeys(result.benchmark for result, _ in self.shown)
        names = [("summary", "Summary"), *((f"of-{place}", name) for place, name in enumerate(groups))]
        values = {
            # Only these scripts run: a name from a file that got past the escaping would still do nothing.
            "script_hashes": " ".join(f"'sha256-{_digest(text)}'" for text in (library, script)),
            "title": escape(self.title),
            "style": (HERE / "page.css").read_text(encoding="utf-8"),
            "about": escape(_about(self.shown)),
            "tiles": "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in self._tiles()),
            "links": "".join(f'<li><a href="#{key}">{escape(text)}</a></li>' for key, text in names),
            "notes": self._notes(),
            "sections": "\n".join(sections),
            "footer": escape("Made by `python -m bench report` from the results of the commands that stand with them."),
            # Nothing in it may end the element that it lies in.
            "charts": content.replace("<", "\\u003c"),
            "library": library,
            "script": script,
        }
        # One pass, so that what was put in is not searched for places again.
        page = (HERE / "page.html").read_text(encoding="utf-8")
        return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], page)

    def _tiles(self) -> list[tuple[str, str]]:
        tiles = []
        for name in self.overviews:
            timed = [one for one in self.ratios if one.benchmark == name and one.value]
            if timed:
                medians = [float(one.value["median"]) for one in timed if one.value]
                span = f"{times(min(medians))} to {times(max(medians))}"
                tiles.append((f"{name}: ours / peers", span))
        tiles.append(("Peers timed", str(len({one.peer for one in self.ratios if one.value}))))
        tiles.append(("Results", str(len(self.shown))))
        return tiles

    def _notes(self) -> str:
        if not self.unreadable:
            return ""
        lines = "".join(f"<p><b>{escape(one.name)}</b> {_code(one.reason)}</p>" for one in self.unreadable)
        return f'<aside class="notes" aria-label="Files left out"><h2>Left out</h2>{lines}</aside>'

    def _summary(self) -> str:
        content = []
        for name, part in self.overviews.items():
            content.append(f"<h3>{escape(name.capitalize())}: ours beside each peer</h3>")
            content.append(self._verdict(part.sentences))
            content.append(self._figures(part.charts))
            content += [table.html() for table in part.tables]
        for result, part in self.shown:
            if result.benchmark in BINDS and part.sentences:
                title = f"{BINDS[result.benchmark]}: {escape(result.label)}"
                content.append(f"<h3>{title}</h3>{self._verdict(part.sentences)}")
        if not content:
            content.append("<p>No result here sets ours beside a peer.</p>")
        text = (
            "Each ratio is the median over rounds in which all candidates met the same requests in a random order, "
            f"with its 95 % interval; {COLOURS}. Outputs were compared first: who returned other frames is WRONG and "
            "not timed."
        )
        return (
            '<section id="summary" aria-labelledby="summary-title"><h2 id="summary-title">Summary</h2>'
            f"<p>{escape(text)}</p>{''.join(content)}</section>"
        )

    def _sections(self) -> list[str]:
        from bench.commands import COMMANDS

        sections = []
        groups = itertools.groupby(self.shown, key=lambda pair: pair[0].benchmark)
        for place, (name, members) in enumerate(groups):
            about = COMMANDS.get(name, "")
            text = f"<p>{_code(about[:1].upper() + about[1:])}.</p>" if about else ""
            articles = "".join(self._article(result, part) for result, part in members)
            key, heading = f"of-{place}", escape(name.capitalize())
            sections.append(
                f'<section id="{key}" aria-labelledby="{key}-title"><h2 id="{key}-title">{heading}</h2>{text}{articles}'
                "</section>"
            )
        return sections

    def _article(self, result: Result, part: Part) -> str:
        about = " · ".join(text for text in (facts.date(result), _commit(result), f"{result.name}.json") if text)
        machine = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.environment(result))
        notes = "".join(f"<li>{_code(note)}</li>" for note in part.notes)
        content = [
            f'<h3>{escape(result.label)}</h3><p class="when">{escape(about)}</p>',
            f'<code class="command">{escape(command_of(result))}</code>',
            self._verdict(part.sentences),
            self._figures(part.charts),
            *(table.html() for table in part.tables),
            f"<details><summary>Notes</summary><ul>{notes}</ul></details>" if notes else "",
            f"<details><summary>Environment</summary><dl>{machine}</dl></details>" if machine else "",
        ]
        return f"<article>{''.join(content)}</article>"

    @staticmethod
    def _verdict(sentences: Sequence[str]) -> str:
        lines = "".join(f"<p>{_code(one)}</p>" for one in sentences)
        return f'<div class="verdict">{lines}</div>' if lines else ""

    def _figures(self, charts: Sequence[Chart]) -> str:
        if not charts:
            return ""
        found = []
        for chart in charts:
            key = f"chart-{next(self._numbers)}"
            self._charts[key] = chart
            found.append(
                f'<figure class="chart"><figcaption>{escape(chart.title)}</figcaption>'
                f'<div class="plot" id="{key}" role="img" aria-label="{escape(chart.alt)}"></div></figure>'
            )
        small = " small" if all(chart.small for chart in charts) else ""
        return f'<div class="charts{small}">{"".join(found)}</div>'


def _about(shown: Sequence[tuple[Result, Part]]) -> str:
    machines: dict[str, None] = {}
    for result, _ in shown:
        known = dict(facts.environment(result))
        if known:
            machines[f"{known.get('CPU')}; GPU: {known.get('GPU')}"] = None
    dates = sorted(filter(None, (facts.date(result)[:10] for result, _ in shown)))
    when = "" if not dates else f"Measured {dates[0]}" + (f" to {dates[-1]}" if dates[-1] != dates[0] else "")
    on = f"on {' / '.join(machines)}" if machines else ""
    said = " ".join(text for text in (when, on) if text)
    return f"{said}. Every figure has the command that made it and the machine beside it." if said else ""


def _code(text: str) -> str:
    """Text in which what stands between backticks is code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _commit(result: Result) -> str:
    known = facts.commit(result)
    return f"commit {known}" if known else "commit unknown"


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
