"""The page of results: what is on it, that a real browser draws it, and that no file can break it."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from browser import find_browser, look
from PIL import Image
from report_results import EVIL, RESULTS, fill, header, loader, sweep

from bench.__main__ import main
from bench.commands import COMMANDS
from bench.measure.figures import figure
from bench.measure.output import write_json
from bench.page.older import OLDER, figures_of
from bench.page.read import ORDER, Result, Unreadable, read_folder
from bench.page.sections import part_of, ratios_of

pytest.importorskip("vl_convert", reason="vl_convert, which makes the charts, is not installed")


class Tags(HTMLParser):
    """Elements of a page, and addresses in them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with results, and in it `out` with page and pictures."""
    folder = fill(tmp_path_factory.mktemp("report") / "results")
    out = folder.parent / "out"
    words = ["report", str(folder), "--output", str(out / "report.html"), "--png", str(out), "--title", f"A & {EVIL}"]
    assert main(words) == 0
    return out


@pytest.fixture(scope="module")
def text(made: Path) -> str:
    return (made / "report.html").read_text(encoding="utf-8")


def without_scripts(text: str) -> str:
    return re.sub(r"<(script|style)\b.*?</\1>", "", text, flags=re.DOTALL)


def test_the_page_shows_every_result_with_command_machine_and_figures(text: str) -> None:
    shown = without_scripts(text)
    tags = Tags(shown).tags
    assert sum(tag == "article" for tag, _ in tags) == 17
    for needed in (
        "python -m bench decode some.parquet --frames 16 --clips 24",
        "--speeds 1,2",
        "--require best=1",
        "commit 0123456789, with changes",
        "Some GPU, 79.1 GiB",
        "driver 570.1",
        "feedfacefeedface",
        "2026-11-23 16:00 UTC",
        "missing: needs a GPU",
        "failed: no answer within 120 s",
        "WRONG: 3 wrong frames",
        "Decoding binds at 60 samples/s.",
        "threads 4 gives 1.19 times the default.",
        "WRONG: it trains on other clips",
        "WRONG: other rows for 1 of 16 queries",
        "40.8 [40.0, 41.6]",
        "2.00x",
    ):
        assert needed in shown, needed


def test_files_that_are_no_result_are_listed_with_the_reason(text: str) -> None:
    notes = without_scripts(text).partition('class="notes"')[2].partition("</aside>")[0]
    for name, reason in (
        ("cut.json", "is not JSON"),
        ("list.json", "not an object"),
        ("trace.json", "it has no <code>benchmark</code>"),
        ("odd.json", "has not the shape of a result of <code>decode</code>"),
    ):
        assert re.search(rf"<b>{name}</b> [^\n]*?{re.escape(reason)}", notes), notes


def test_nothing_comes_from_elsewhere_and_names_are_never_run(text: str) -> None:
    tags = Tags(text).tags
    for _, attrs in tags:
        for name in ("src", "href"):
            assert (attrs.get(name) or "#").startswith(("#", "data:")), attrs
        assert not [name for name in attrs if name.startswith("on")]
    assert not {"img", "link", "iframe", "object", "base"} & {tag for tag, a in tags if a.get("rel") != "icon"}
    assert sum(tag == "script" for tag, _ in tags) == 3
    assert "&lt;img src=x onerror=alert(1)&gt;" in without_scripts(text)
    assert text.count("vegaEmbed=") == 1 and len(text) < 1_500_000


def test_every_chart_says_in_words_what_it_shows(text: str) -> None:
    plots = [attrs for _, attrs in Tags(text).tags if attrs.get("class") == "plot"]
    charts = json.loads(re.search(r'id="charts">(.*?)</script>', text)[1])["charts"]  # type: ignore[index]
    assert {attrs["id"] for attrs in plots} == set(charts) and len(plots) >= 20
    assert all(re.search(r"\d", attrs["aria-label"] or "") for attrs in plots)


def test_a_real_browser_draws_all_charts_without_complaint_on_a_desk_and_on_a_telephone(
    made: Path, tmp_path: Path
) -> None:
    if find_browser() is None:
        pytest.skip("no Chromium is installed")
    pytest.importorskip("aiohttp", reason="aiohttp, which speaks to the browser, is not installed")
    page = made / "report.html"
    ready = "chartsDrawn().then(() => document.documentElement.dataset.drawn)"
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    beyond = (
        "[...document.querySelectorAll('main *, header *, footer *')].filter(e => e.getBoundingClientRect().right > "
        "innerWidth + 1 && !e.closest('.scroll, .plot')).map(e => e.outerHTML.slice(0, 90))"
    )
    # Charts without a bar, a point or words in its place, and marks outside the chart.
    empty = (
        "[...document.querySelectorAll('.plot')].filter(e => !e.querySelector('svg :is(.mark-rect, .mark-symbol) path')"
        " && !e.querySelector('svg .mark-text text')).map(e => e.id)"
    )
    cut = (
        "[...document.querySelectorAll('.plot')].filter(e => e.querySelector('svg').getBoundingClientRect().right > "
        "e.getBoundingClientRect().right + 1).map(e => e.id)"
    )
    bars = "document.querySelectorAll('.plot svg .mark-rect path').length"
    colour = "getComputedStyle(document.querySelector('.plot svg .role-axis-label text')).fill"
    colours = set()
    for width, dark in ((1280, False), (390, True)):
        scripts = [ready, wide, beyond, empty, cut, bars, colour]
        seen = look(page, tmp_path / str(width), width=width, dark=dark, scripts=scripts)
        assert seen.errors == [] and seen.requests == [page.resolve().as_uri()]
        assert seen.values[:5] == ["dark" if dark else "light", 0, [], [], []], width
        assert seen.values[5] > 80
        colours.add(seen.values[6])
        assert seen.screenshot.startswith(b"\x89PNG")
    assert len(colours) == 2, "the charts have the colours of the page"


def test_pictures_have_stable_names_a_width_for_a_readme_and_something_on_them(made: Path) -> None:
    names = {path.stem for path in made.glob("*.png")}
    assert {"loader", "decode", "stages", "step", "bank", "sweep", "cache", "something_new"} <= names
    for path in made.glob("*.png"):
        with Image.open(io.BytesIO(path.read_bytes())) as picture:
            # Twice as many pixels as are shown; what is wider would be too small to read at 800.
            assert 1000 <= picture.width <= 1800 and picture.height >= 100, path.name
            colours = picture.convert("RGB").getcolors(1 << 24)
            assert colours and (0, 0x72, 0xB2) in {colour for _, colour in colours}, path.name
    assert not [path for path in made.iterdir() if path.suffix == ".tmp"]


def test_ratios_of_old_and_new_results_lead_the_page(made: Path) -> None:
    results, _ = read_folder(made.parent / "results")
    everything = [one for result in results for one in ratios_of(result)]
    found = {(one.corpus, one.window, one.peer): one.value for one in everything if one.value is not None}
    told = json.loads((RESULTS / "loader-kinetics400-2cores.json").read_text())["figures"]
    ratio = told["ours / torchcodec-best (independent)"]["median"]
    assert found["kinetics400", "independent", "torchcodec-best"]["median"] == pytest.approx(ratio)
    assert found["vp9", "independent", "dali-reader"]["median"] == pytest.approx(1.44, abs=0.01)
    assert found["some", "shared", "pyav"]["median"] == pytest.approx(2.0, abs=0.05)
    by_peer = {one.peer: one for result in results for one in ratios_of(result) if one.corpus == EVIL.replace("/", "")}
    assert by_peer["wrong-peer"].reason == "WRONG: 7 wrong frames" and by_peer["gone"].reason.startswith("missing")
    summary = without_scripts((made / "report.html").read_text(encoding="utf-8")).partition('id="of-0"')[0]
    words = r"Of (\d+) comparisons in pairs of clips per second, ours is quicker in (\d+), slower in (\d+)"
    told_of = re.search(words, summary)
    values = [one.value for one in everything if one.benchmark == "loader" and one.value is not None]
    assert told_of is not None
    counted = [sum(value["low"] > 1 for value in values), sum(value["high"] < 1 for value in values)]
    assert [int(number) for number in told_of.groups()] == [len(values), *counted]
    assert "Decoding binds at 60 samples/s." in summary


def test_a_knee_and_a_setting_that_was_left_out_are_on_the_page(tmp_path: Path) -> None:
    part = part_of(Result("loader-x", "loader", loader(best=2.0)))
    assert not isinstance(part, Unreadable)
    (curve,) = (chart for chart in part.charts if "workers" in chart.title)
    marks = [row for row in curve.spec["data"]["values"] if row["mark"]]
    assert [(row["series"], row["x"]) for row in marks] == [("ours", 2.0)]
    searched = part_of(Result("sweep-x", "sweep", sweep()))
    assert not isinstance(searched, Unreadable)
    states = {row.cells[0]: row.cells[-1] for row in searched.tables[0].rows}
    assert states["threads 1, prefetch 2"] == "left out: took too much memory"
    assert next(row["name"] for row in searched.charts[0].spec["data"]["values"]) == "threads 4, prefetch 2 (best)"


def test_every_older_result_of_the_repository_has_figures_or_a_drawing() -> None:
    results, unreadable = read_folder(RESULTS)
    assert unreadable == []
    for result in results:
        part = part_of(result)
        assert not isinstance(part, Unreadable), part
        assert part.tables and (part.charts or result.benchmark in OLDER)
        for one in figures_of(result).values() if result.benchmark in OLDER else ():
            assert {"median", "low", "high", "unit", "better"} <= set(one)


def test_the_order_of_the_page_knows_only_commands_that_there_are() -> None:
    assert set(ORDER) - {"profile"} <= set(COMMANDS)


BROKEN: list[dict[str, object]] = [
    {"figures": [1]},
    {"figures": {"a": 3}},
    {"figures": {"a": {"median": "many"}}},
    {"figures": {"a": {"median": None}}},
    {"windows": {"shared": {"summary": {"ours": 1}, "checks": []}}},
    {"environment": 3, "arguments": [], "corpus": "x", "created": 7, "figures": {}},
    {"banks": [{}]},
    {"verdict": {}, "ladder": 3},
    {"settings": [{"number": "x"}], "unit": None},
    {"cache": None, "with": 3},
]


def test_no_content_of_a_file_breaks_the_page(tmp_path: Path) -> None:
    write_json(tmp_path / "good.json", {**header("good"), "figures": {"a": figure(1.0, "s", "lower")}})
    for benchmark in ("loader", "decode", "stages", "step", "bank", "sweep", "cache", "size", "other"):
        for number, broken in enumerate(BROKEN):
            (tmp_path / f"{benchmark}-{number}.json").write_text(json.dumps({**header(benchmark), **broken}))
    assert main(["report", str(tmp_path), "--output", str(tmp_path / "page.html")]) == 0
    text = without_scripts((tmp_path / "page.html").read_text(encoding="utf-8"))
    names = {path.name for path in tmp_path.glob("*.json")}
    assert {name for name in names if name not in text} == set() and len(names) == 91


def test_mistakes_are_one_line_and_leave_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, empty = tmp_path / "page.html", tmp_path / "empty"
    empty.mkdir()
    shutil.copy(RESULTS / "fuzz-2000.json", tmp_path)
    (tmp_path / "file").write_text("")
    for words, told in (
        ([str(tmp_path / "none"), "--output", str(out)], "no such folder"),
        ([str(empty), "--output", str(out)], "holds no result of a benchmark"),
        ([str(tmp_path), "--output", str(empty)], "is a folder"),
        ([str(tmp_path), "--output", str(tmp_path / "file" / "page.html")], "cannot be written"),
    ):
        capsys.readouterr()
        assert main(["report", *words]) == 2
        err = capsys.readouterr().err
        assert told in err and err.count("\n") == 1, (words, err)
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    assert main(["report", str(tmp_path), "--output", str(out)]) == 2
    assert "pip install vl-convert-python" in capsys.readouterr().err
    assert not out.exists()
