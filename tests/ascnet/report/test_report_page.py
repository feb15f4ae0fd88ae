"""The page of a run: made from a small run with awkward names, and looked at in a real browser."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from browser import find_browser, look
from colour_videos import COLOURS, make_colour_video
from training_data import TINY

from ascnet.cli import main
from ascnet.errors import UserError
from ascnet.report.show import Options, write_page
from ascnet.report.source import open_run
from dali_pipes import Corpus

EVIL = "<img src=x onerror=alert(1)>"
NAMES = {"blue": EVIL, "green": "\"green\" & 'quoted' {{script}}", "red": "red"}
RECIPE = (
    "data.frames=4", "data.size=16", "data.batch_size=6", "data.threads=1", "epochs=3", "optim.name=adamw",
    "optim.lr=0.01", "test.clips=1", "precision=fp32", "device=cpu",
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Convolutions of these sizes take longer on several threads than on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes, a broken video among them, with names that would be markup if they were let."""
    root = tmp_path_factory.mktemp("report")
    for place, (split, count) in enumerate((("train", 4), ("test", 2))):
        for name, colour in COLOURS.items():
            for number in range(count):
                path = root / "v" / split / NAMES[name] / f"{EVIL}{split}{name}{number}.mkv"
                make_colour_video(path, colour, 10 * place + number)
    (root / "v" / "train" / "red" / "broken.mkv").write_bytes(b"no video")
    Corpus.build(root / "v", output=root / "corpus.parquet", progress=False, workers=1)
    return root / "corpus.parquet"


@pytest.fixture(scope="module")
def run(corpus: Path) -> Path:
    """A pretraining of some steps with retrieval and a linear classifier inside its folder."""
    out = corpus.parent / "run"
    words = [*TINY, f"corpus={corpus}", "data.threads=1", "data.clips_per_video=2", "steps=24", "epochs=100"]
    assert main(["pretrain", *words, "precision=fp32", "--out", str(out)]) == 0
    options = ["--clips", "2", "--device", "cpu", "--no-figure", "--threads", "1"]
    assert main(["retrieve", "--checkpoint", str(out), "--corpus", str(corpus), *options]) == 0
    linear = ["--checkpoint", str(out), f"corpus={corpus}", *RECIPE, "--out", str(out / "linear")]
    assert main(["linear", *linear]) == 0
    return out


@pytest.fixture(scope="module")
def page(run: Path) -> Path:
    out = run.parent / "page.html"
    options = ["--queries", "4", "--neighbours", "3", "--maps", "2", "--device", "cpu"]
    assert main(["report", str(run), "--html", str(out), *options]) == 0
    return out


class Tags(HTMLParser):
    """Elements of a page, and addresses in them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_the_page_has_every_part_and_nothing_from_elsewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    tags = Tags(text).tags
    sections = [attrs["id"] for tag, attrs in tags if tag == "section"]
    assert sections == ["scores", "curves", "retrieval", "maps", "map", "confusion", "data"]
    for _, attrs in tags:
        for name in ("src", "href", "data-thumb"):
            assert (attrs.get(name) or "#").startswith(("#", "data:")), attrs
    assert not {"link", "iframe", "object", "base"} & {tag for tag, attrs in tags if attrs.get("rel") != "icon"}
    assert "url(" not in text and "@import" not in text
    assert sum(tag == "img" for tag, _ in tags) == 4 * (1 + 3) + 2 * 2
    assert {"right", "wrong"} & {attrs.get("class") for tag, attrs in tags if tag == "li"}
    assert "broken.mkv" in text and "Class activation maps" in text and "Retrieved positives" in text


def test_names_are_shown_and_never_run(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    tags = Tags(text).tags
    assert not [attrs for _, attrs in tags if any(name.startswith("on") for name in attrs)]
    assert not [attrs for tag, attrs in tags if tag == "img" and attrs.get("src") == "x"]
    assert sum(tag == "script" for tag, _ in tags) == 1
    assert EVIL in {attrs.get("data-label") for _, attrs in tags} and "{{script}}" in text


def test_a_real_browser_shows_it_without_complaint_on_a_desk_and_on_a_telephone(page: Path, tmp_path: Path) -> None:
    if find_browser() is None:
        pytest.skip("no Chromium is installed")
    pytest.importorskip("aiohttp", reason="aiohttp, which speaks to the browser, is not installed")
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    # What lies beyond the edge although nothing around it scrolls.
    beyond = (
        "[...document.querySelectorAll('main *, header *, footer *')].filter(e => e.getBoundingClientRect().right > "
        "innerWidth + 1 && !e.closest('.scroll, .found, .bars')).map(e => e.outerHTML.slice(0, 90))"
    )
    images = "[...document.images].filter(i => !i.complete || !i.naturalWidth).length"
    texts = "[...document.querySelectorAll('main p, td, figcaption')]"
    small = f"Math.min(...{texts}.map(e => parseFloat(getComputedStyle(e).fontSize)))"
    keyboard = """(() => {
      const svg = document.querySelector('#plane svg'); svg.focus();
      svg.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight', bubbles: true}));
      const tip = document.getElementById('tip');
      const count = (where, what) => where.querySelectorAll(what).length;
      return [!tip.hidden, tip.textContent, count(tip, 'img'), count(document, '.at')];
    })()"""
    pause = """(() => {
      const button = document.getElementById('pause'), before = document.querySelectorAll('img.clip').length;
      button.click(); const stopped = document.querySelectorAll('canvas.clip').length; button.click();
      return [before, stopped, document.querySelectorAll('img.clip').length];
    })()"""
    pick = """(() => {
      document.querySelector('.keys button').click();
      return [document.querySelectorAll('#plane .dim').length, document.querySelectorAll('#plane .point').length];
    })()"""
    for width in (1280, 390):
        scripts = [wide, beyond, images, small, "document.title", keyboard, pause, pick]
        seen = look(page, tmp_path / str(width), width=width, dark=width == 390, scripts=scripts)
        assert seen.errors == [] and seen.requests == [page.resolve().as_uri()]
        assert seen.values[:3] == [0, [], 0], width
        assert seen.values[3] >= 12 and seen.values[4] == "run · pretraining"
        shown, text, pictures, marked = seen.values[5]
        assert shown and pictures == 1 and marked == 1 and any(name in text for name in NAMES.values())
        assert seen.values[6] == [20, 20, 20]
        dim, points = seen.values[7]
        assert (dim, points) == (12, 18)
        assert seen.screenshot.startswith(b"\x89PNG")


def test_clips_stand_still_for_who_asks_for_less_motion(page: Path, tmp_path: Path) -> None:
    if find_browser() is None:
        pytest.skip("no Chromium is installed")
    pytest.importorskip("aiohttp", reason="aiohttp, which speaks to the browser, is not installed")
    count = "[document.querySelectorAll('img.clip').length, document.querySelectorAll('canvas.clip').length]"
    for still, expected in ((True, [0, 20]), (False, [20, 0])):
        assert look(page, tmp_path / str(still), still=still, scripts=[count]).values == [expected]


def test_a_smaller_page_has_poorer_pictures_and_one_too_small_is_refused(run: Path, tmp_path: Path) -> None:
    sizes = []
    for most in (2_000_000, 150_000):
        out = write_page(run, tmp_path / "page.html", Options(queries=3, maps=2, most=most, progress=False))
        sizes.append(out.stat().st_size)
        assert sizes[-1] <= most
    assert sizes[1] < sizes[0]
    with pytest.raises(UserError, match=r"--max-mb 0\.001: the page has"):
        write_page(run, tmp_path / "none.html", Options(queries=1, maps=1, most=1000, progress=False))
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_a_run_of_recognition_has_a_page_of_its_own(run: Path, tmp_path: Path) -> None:
    out = write_page(run / "linear", tmp_path / "page.html", Options(queries=2, maps=1, progress=False, clips=1))
    text = out.read_text(encoding="utf-8")
    assert "linear classification" in text and "Validation top-1" in text and 'id="confusion"' in text


def test_without_videos_and_checkpoint_the_page_has_the_curves_and_says_what_is_missing(
    run: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.yaml", "metrics.jsonl"):
        shutil.copy(run / name, bare / name)
    (bare / "config.yaml").write_text(
        re.sub(r"corpus: .*", "corpus: gone.parquet", (bare / "config.yaml").read_text(encoding="utf-8"))
    )
    with (bare / "metrics.jsonl").open("a") as file:
        file.write('{"step": 25, "lo')  # of a run that was killed
    text = write_page(bare, tmp_path / "page.html", Options(progress=False)).read_text(encoding="utf-8")
    assert 'id="curves"' in text and 'id="retrieval"' not in text
    assert "gone.parquet is not there" in text and "There is no checkpoint" in text
    assert len(open_run(bare).steps) == 24


def test_folders_that_are_no_run_and_senseless_options_are_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "page.html")
    for words, told in (
        ([str(tmp_path / "none"), "--html", out], "no such folder"),
        ([str(run.parent), "--html", out], "there are runs in it: run"),
        ([str(tmp_path), "--html", out], "holds neither config.yaml nor metrics.jsonl"),
        ([str(run), str(run), "--html", out], "--html shows one run, and 2 are given"),
        ([str(run), "--html", out, "-o", out], "give one of them"),
        ([str(run), "--html", str(tmp_path)], "is a folder"),
        ([str(run), "--html", out, "--max-mb", "0"], "must be more than 0"),
        ([str(run), "--html", out, "--queries", "0"], "queries=0 must be at least 1"),
        ([str(run), "--html", out, "--corpus", str(tmp_path / "no.parquet")], "no such corpus file"),
        ([str(run), "--html", out, "--recognition", str(tmp_path)], "no recognition.json in it"),
    ):
        capsys.readouterr()
        assert main(["report", *words]) == 2
        err = capsys.readouterr().err
        assert told in err and err.count("\n") == 1, (words, err)
    assert not Path(out).exists()
