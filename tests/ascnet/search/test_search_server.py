"""The server behind the search page: what it answers, and above all what it refuses."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from make_videos import make_video
from PIL import Image
from search_index import make_checkpoint, make_corpus, make_recipe

from ascnet.search import server as serving
from ascnet.search.containers import looks_like_video
from ascnet.search.embed import embed
from ascnet.search.preview import Kept
from ascnet.search.searcher import Searcher
from ascnet.search.server import Server
from ascnet.weights import load_encoder
from dali_pipes import Corpus

LIMIT = 200_000


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    corpus, checkpoint = make_corpus(home / "videos", 5), make_checkpoint(home / "encoder.pt")
    videos, recipe = Corpus.open(corpus), make_recipe(checkpoint, corpus)
    embed(load_encoder(checkpoint), videos, recipe, home / "f.parquet", device="cpu", threads=1, progress=False)
    return home / "f.parquet"


@pytest.fixture(scope="module")
def server(index: Path) -> Iterator[Server]:
    searcher = Searcher(index, device="cpu", threads=1)
    searcher.load_encoder()
    server = Server(searcher, k=3, limit=LIMIT)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()
    assert not server.service.folder.exists()


def ask(
    server: Server, path: str, method: str = "GET", body: bytes | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def send(server: Server, body: bytes, **headers: str) -> tuple[int, dict[str, Any]]:
    own = {"Origin": f"http://127.0.0.1:{server.server_port}"}
    status, _, answer = ask(server, "/api/search", "POST", body, **{**own, **headers})
    return status, json.loads(answer)


def raw(server: Server, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=30) as connection:
        connection.sendall(request)
        found = b""
        while block := connection.recv(1 << 16):
            found += block
    return found


def left_over(server: Server) -> list[Path]:
    return list(server.service.folder.iterdir())


def test_the_page_and_its_parts_come_with_a_policy_that_lets_nothing_else_in(server: Server) -> None:
    for path in ("/", "/page.css", "/page.js", "/icon.svg"):
        status, headers, body = ask(server, path)
        assert status == 200 and body
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff" and "Python" not in headers["Server"]
        # The name of an XML vocabulary is fetched by nobody.
        assert not re.search(rb"https?://(?!www\.w3\.org/2000/svg)", body)


def test_neighbours_of_a_row_are_those_of_the_index(server: Server) -> None:
    status, _, body = ask(server, "/api/neighbours/2")
    found = json.loads(body)
    wanted = server.service.searcher.of_row(2, 3)
    assert status == 200 and [one["row"] for one in found["neighbours"]] == [hit.row for hit in wanted]
    assert [one["score"] for one in found["neighbours"]] == [round(hit.score, 4) for hit in wanted]
    assert found["query"]["name"] == Path(server.service.searcher.corpus[2].uri).name


def test_no_answer_holds_a_path_of_this_machine(server: Server, index: Path) -> None:
    whole = b"".join(ask(server, path)[2] for path in ("/", "/api/about", "/api/videos/0", "/api/neighbours/0"))
    whole += json.dumps(send(server, b"\x1a\x45\xdf\xa3 broken")[1]).encode()
    assert str(index.parent).encode() not in whole and b"/tmp" not in whole


def test_previews_loop_and_stills_do_not(server: Server) -> None:
    for path, frames in (("/preview/1.webp", 10), ("/still/1.webp", 1)):
        status, headers, body = ask(server, path)
        assert status == 200 and headers["Content-Type"] == "image/webp"
        with Image.open(io.BytesIO(body)) as picture:
            assert (picture.format, getattr(picture, "n_frames", 1)) == ("WEBP", frames)
            assert picture.size == (64, 48)


def test_a_file_finds_its_like_and_is_gone_afterwards(server: Server) -> None:
    video = Path(server.service.searcher.corpus[3].uri)
    status, found = send(server, video.read_bytes())
    assert status == 200 and found["neighbours"][0]["row"] == 3 and found["neighbours"][0]["score"] > 0.9999
    assert found["query"]["preview"].startswith("data:image/webp;base64,") and left_over(server) == []


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"this is no video", "not a video"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n", "not a video"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "not a video"),
        (b"\x1a\x45\xdf\xa3" + bytes(2000), "cannot be opened"),
        (b"\x00\x00\x00\x18ftypisom" + os.urandom(4000), ""),
    ],
)
def test_what_is_no_video_is_refused_with_the_reason(server: Server, body: bytes, told: str) -> None:
    status, found = send(server, body)
    assert status == 422 and told in found["error"] and "query-" not in found["error"]
    assert left_over(server) == []


def test_every_container_that_videos_of_the_tests_have_may_be_one(tmp_path: Path) -> None:
    kinds = {"mkv": "mjpeg", "mp4": "h264", "avi": "mpeg4", "mpg": "mpeg2video", "ts": "mpeg2video", "gif": "gif"}
    for suffix, codec in {**kinds, "webm": "vp8", "mov": "h264", "m4v": "mpeg4"}.items():
        make_video(tmp_path / f"one.{suffix}", codec=codec, frames=8, size=(64, 48))
        assert looks_like_video((tmp_path / f"one.{suffix}").read_bytes()[:512]), suffix
    assert not looks_like_video(b"") and not looks_like_video(b"<?xml version='1.0'?><MPD/>")


def test_a_file_above_the_limit_is_refused_before_it_is_read(server: Server) -> None:
    status, found = send(server, b"\x1a\x45\xdf\xa3" + bytes(LIMIT))
    assert status == 413 and str(LIMIT) in found["error"]
    origin = f"Host: 127.0.0.1:{server.server_port}\r\nOrigin: http://127.0.0.1:{server.server_port}\r\n".encode()
    for length in (b"999999999999999", b"0"):
        answer = raw(server, b"POST /api/search HTTP/1.1\r\n" + origin + b"Content-Length: " + length + b"\r\n\r\n")
        assert answer.split()[1] == b"413"
    for length in (b"-5", b"many", b"1e3", b"9" * 400):
        answer = raw(server, b"POST /api/search HTTP/1.1\r\n" + origin + b"Content-Length: " + length + b"\r\n\r\n")
        assert answer.split()[1] == b"411"
    chunked = b"POST /api/search HTTP/1.1\r\n" + origin + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    assert raw(server, chunked).split()[1] == b"411"


def test_a_file_that_breaks_off_leaves_nothing(server: Server) -> None:
    head = (
        f"POST /api/search HTTP/1.1\r\nHost: 127.0.0.1:{server.server_port}\r\n"
        f"Origin: http://127.0.0.1:{server.server_port}\r\nContent-Length: 5000\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=30) as connection:
        connection.sendall(head.encode() + b"half a file")
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100).split()[1] == b"400"
    assert left_over(server) == []


@pytest.mark.parametrize(
    "path",
    [
        "/../../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/page.css/../server.py", "/server.py",
        "/preview/../../etc/passwd", "/preview/..%2f..%2fetc%2fpasswd.webp", "/preview/-1.webp", "/preview/1.webp/..",
        "/preview/99.webp", "/preview/1e0.webp", "/preview/999999999999.webp", "/api/neighbours/99",
        "/api/neighbours/-1", "/api/neighbours/1?k=9", "/preview/\u0661.webp", "/api/videos/", "/api/search",
        "http://127.0.0.1/etc/passwd", "file:///etc/passwd",
    ],
)  # fmt: skip
def test_only_row_numbers_of_the_index_are_served(server: Server, path: str) -> None:
    request = f"GET {path} HTTP/1.1\r\nHost: localhost:{server.server_port}\r\n\r\n".encode()
    answer = raw(server, request)
    assert answer.split()[1] == b"404" and b"root:" not in answer and b"import" not in answer


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "", "10.0.0.7:{port}"]
)
def test_a_request_under_another_name_is_refused(server: Server, host: str) -> None:
    for path in ("/", "/api/about", "/preview/1.webp"):
        assert ask(server, path, Host=host.format(port=server.server_port))[0] == 403
    for good in ("localhost", "127.0.0.1", "[::1]", "LOCALHOST"):
        assert ask(server, "/api/about", Host=f"{good}:{server.server_port}")[0] == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://127.0.0.1:{port}", "http://localhost:{port}", None]
)
def test_files_are_taken_from_the_page_itself_only(server: Server, origin: str | None) -> None:
    headers = {} if origin is None else {"Origin": origin.format(port=server.server_port)}
    video = Path(server.service.searcher.corpus[0].uri).read_bytes()
    assert ask(server, "/api/search", "POST", video, **headers)[0] == 403


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "TRACE"])
def test_other_methods_are_refused(server: Server, method: str) -> None:
    assert ask(server, "/", method)[0] == 501


def test_many_at_a_time_all_get_their_own_answer(server: Server) -> None:
    videos = [Path(server.service.searcher.corpus[row].uri).read_bytes() for row in range(5)]

    def one(number: int) -> bool:
        row = number % 5
        if number % 3 == 0:
            return send(server, videos[row])[1]["neighbours"][0]["row"] == row
        if number % 3 == 1:
            return json.loads(ask(server, f"/api/neighbours/{row}")[2])["query"]["row"] == row
        return ask(server, f"/preview/{row}.webp")[0] == 200

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(one, range(15)))
    assert left_over(server) == []


def test_connections_that_say_nothing_cannot_take_all_places_for_good(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving.Handler, "timeout", 0.5)
    idle = [socket.create_connection(("127.0.0.1", server.server_port)) for _ in range(serving.CONNECTIONS + 3)]
    try:
        for connection in idle[: serving.CONNECTIONS]:
            connection.settimeout(20)
            assert connection.recv(100) == b""
        assert ask(server, "/api/about")[0] == 200
    finally:
        for connection in idle:
            connection.close()


def test_kept_previews_stay_within_their_bytes() -> None:
    kept, made = Kept(limit=100), []

    def make(key: int) -> bytes:
        made.append(key)
        return bytes(30)

    for key in (1, 2, 3, 1, 4, 1, 2):
        assert len(kept.get(key, lambda key=key: make(key))) == 30
        assert kept.size <= 100
    assert made == [1, 2, 3, 4, 2]


@pytest.mark.parametrize(("stop", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_it_at_once_and_leaves_nothing(
    index: Path, stop: signal.Signals, status: int, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "ascnet.cli", "search", "--serve", "--index", str(index), "--device", "cpu"]
    process = subprocess.Popen(
        [*command, "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        # Tests that run in the background of a shell inherit that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = next(line for line in process.stdout if "serving at" in line)
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
        assert found is not None and list(tmp_path.iterdir())
        # One that is connected and silent does not hold it up.
        with socket.create_connection(("127.0.0.1", int(found[1]))):
            process.send_signal(stop)
            _, error = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == status and "Traceback" not in error, error
    assert "warning" not in error and list(tmp_path.iterdir()) == []


def test_a_port_that_is_taken_is_a_mistake(index: Path) -> None:
    from ascnet.errors import UserError

    searcher = Searcher(index, device="cpu")
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UserError, match="cannot listen there"):
        Server(searcher, port=taken.getsockname()[1], limit=1)


def test_another_host_is_served_with_a_warning_and_still_not_to_other_names(
    index: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    known: list[bool] = []

    def stop(self: Server, poll_interval: float) -> None:
        names = ("192.168.1.5", "localhost", "evil.example")
        known.extend(self.knows(f"{name}:{self.server_port}") for name in names)

    monkeypatch.setattr(Server, "serve_forever", stop)
    assert serving.serve(Searcher(index, device="cpu"), host="0.0.0.0", port=0, k=3, limit=LIMIT) == 0
    assert known == [True, True, False]
    assert "warning: --host 0.0.0.0" in capsys.readouterr().err
