"""The search page in a real browser: what it shows, what it does with a file, and that it fits a narrow screen."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import find_browser, look
from search_index import make_checkpoint, make_corpus, make_recipe

from ascnet.search.embed import embed
from ascnet.search.searcher import Searcher
from ascnet.search.server import Server
from ascnet.weights import load_encoder
from dali_pipes import Corpus

pytest.importorskip("aiohttp", reason="aiohttp, by which the browser is spoken to, is not installed")
pytestmark = pytest.mark.skipif(find_browser() is None, reason="no Chromium on this machine")

# Until something is so; a page is not done when it is loaded.
UNTIL = """const until = async (so) => {
  for (let i = 0; i < 600; i++) { if (so()) return; await new Promise((done) => setTimeout(done, 50)); }
  throw new Error(`not within 30 s: ${so} ${document.body.innerText}`);
};"""
LISTED = "document.querySelectorAll('#videos button').length"
FOUND = "document.querySelectorAll('#neighbours button').length"
FIRST = "document.querySelector('#neighbours button')"
STATUS = "document.getElementById('status').textContent"


def script(*lines: str) -> str:
    return f"(async () => {{ {UNTIL} {' '.join(lines)} }})()"


def choose(content: bytes, name: str) -> str:
    """Puts a file into the form and sends it, as a person would."""
    data = json.dumps(base64.b64encode(content).decode())
    return (
        f"const bytes = Uint8Array.from(atob({data}), (one) => one.charCodeAt(0));"
        f"const held = new DataTransfer(); held.items.add(new File([bytes], {json.dumps(name)}));"
        "document.getElementById('file').files = held.files; document.querySelector('#upload button').click();"
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("home")
    corpus, checkpoint = make_corpus(home / "videos", 14), make_checkpoint(home / "encoder.pt")
    videos, recipe = Corpus.open(corpus), make_recipe(checkpoint, corpus)
    embed(load_encoder(checkpoint), videos, recipe, home / "f.parquet", device="cpu", threads=1, progress=False)
    searcher = Searcher(home / "f.parquet", device="cpu", threads=1)
    searcher.load_encoder()
    server = Server(searcher, k=5, limit=200_000)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_person_can_look_through_the_index_and_search_from_any_video(server: Server, tmp_path: Path) -> None:
    page: dict[str, Any] = {"listed": LISTED, "about": "document.getElementById('about').textContent"}
    seen = look(
        server.address,
        tmp_path / "profile",
        scripts=[
            script(f"await until(() => {LISTED} === 12);"),
            page["about"],
            script(
                "const image = document.querySelector('#videos img');",
                "await until(() => image.complete && image.naturalWidth > 0); return image.naturalWidth;",
            ),
            script("document.getElementById('on').click();", f"await until(() => {LISTED} === 2);"),
            "[document.getElementById('shown').textContent, document.getElementById('on').disabled]",
            script(
                "document.querySelector('#videos button').click();",
                f"await until(() => {FOUND} === 5); return location.hash;",
            ),
            "[...document.querySelectorAll('#neighbours button')].map((one) => Number(one.dataset.row))",
            "[...document.querySelectorAll('#neighbours .score')].map((one) => one.textContent)",
            script(
                "document.querySelector('#neighbours button').click();",
                "const before = location.hash; await until(() => location.hash !== '#12');",
                f"await until(() => {STATUS}.includes('neighbours of')); history.back();",
                "await until(() => location.hash === '#12'); return location.hash;",
            ),
            "document.activeElement.id",
        ],
    )
    hits = server.service.searcher.of_row(12, 5)
    assert seen.errors == []
    assert seen.values[1].startswith("14 videos") and "torch, exact" in seen.values[1] and seen.values[2] == 64
    assert seen.values[4] == ["13 to 14 of 14", True] and seen.values[5] == "#12"
    assert seen.values[6] == [hit.row for hit in hits]
    assert seen.values[7] == [f"{round(hit.score, 4):.4f}" for hit in hits]
    assert seen.values[8] == "#12" and seen.values[9] == "found-title"
    assert {one.split("/")[2] for one in seen.requests} == {f"127.0.0.1:{server.server_port}"}


def test_a_file_can_be_searched_by_and_mistakes_are_told(server: Server, tmp_path: Path) -> None:
    video = Path(server.service.searcher.corpus[3].uri).read_bytes()
    name = "<img src=x onerror=alert(1)>.mkv"
    seen = look(
        server.address,
        tmp_path / "profile",
        scripts=[
            script("await until(() => document.getElementById('limit').textContent);", choose(video, name)),
            script(f"await until(() => {FOUND} === 5); return {STATUS};"),
            f"[{FIRST}.dataset.row, document.querySelector('#query p').textContent]",
            script(
                "const image = document.querySelector('#query img');",
                "await until(() => image.complete && image.naturalWidth > 0); return image.src.slice(0, 15);",
            ),
            script(
                choose(bytes(200_001), "large.mp4"), "await until(() => document.querySelector('#status.bad'));",
                f"return {STATUS};",
            ),
        ],
    )  # fmt: skip
    assert seen.errors == []
    assert seen.values[1] == f"5 neighbours of {name}" and seen.values[2] == ["3", name]
    assert seen.values[3] == "data:image/webp"
    assert seen.values[4] == "large.mp4 has 0.2 MB; allowed are 0.2 MB"
    refused = look(
        server.address,
        tmp_path / "again",
        scripts=[
            script(
                choose(b"this is no video", "text.mp4"), "await until(() => document.querySelector('#status.bad'));",
                f"return {STATUS};",
            )
        ],
    )  # fmt: skip
    assert refused.values == ["not a video: it does not begin like any container of videos"]
    # The browser itself notes the refusal in its console.
    assert all("422" in error for error in refused.errors)


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_it_fits_and_can_be_reached_by_keyboard(server: Server, width: int, dark: bool, tmp_path: Path) -> None:
    seen = look(
        f"{server.address}#3",
        tmp_path / "profile",
        width=width,
        dark=dark,
        scripts=[
            script(f"await until(() => {LISTED} === 12 && {FOUND} === 5);"),
            "document.documentElement.scrollWidth",
            # Nothing that can be clicked is out of the keyboard's reach, or without a name.
            "[...document.querySelectorAll('button, input, a')].filter((one) => one.tabIndex < 0).length",
            "[...document.querySelectorAll('button, a')].filter((one) => !one.textContent.trim()).length",
            "[...document.querySelectorAll('img')].filter((one) => !one.alt).length",
            "document.querySelector('label[for=file]').textContent",
            "Math.min(...[...document.querySelectorAll('.name, .label, .score, p')].map("
            "(one) => parseFloat(getComputedStyle(one).fontSize)))",
            "new Set([...document.querySelectorAll('#videos li')].map((one) => one.offsetTop)).size",
        ],
    )
    assert seen.errors == []
    assert seen.values[1] <= width
    assert seen.values[2:5] == [0, 0, 0] and seen.values[5].startswith("Search by a video file")
    assert seen.values[6] >= 13
    assert seen.values[7] == (2 if width == 1280 else 6), "videos side by side, as many as fit"
