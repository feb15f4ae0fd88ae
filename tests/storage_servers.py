"""Real servers on loopback for tests of remote storage: HTTP with ranges and a log, one that speaks S3, one GCS."""

from __future__ import annotations

import html
import json
import re
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlencode
from urllib.request import Request, urlopen


@dataclass
class HttpServer:
    """A folder served over HTTP.

    Attributes:
        folder: What is served.
        url: Address of it, with a slash at the end.
        log: Method, path and bytes of the body of every answer, in order.
        failures: That many answers are 503 before the next one is right.
        silent: Whether requests are taken and never answered.
        ranges: Whether ranges are honoured.
        dated: Whether answers say when a file changed.
        cut: That many answers break off in the middle of the body.
    """

    folder: Path
    url: str = ""
    log: list[tuple[str, str, int]] = field(default_factory=list)
    failures: int = 0
    silent: bool = False
    ranges: bool = True
    dated: bool = True
    cut: int = 0
    closing: threading.Event = field(default_factory=threading.Event)

    def sent(self) -> int:
        """Bytes of all bodies so far."""
        return sum(size for _, _, size in self.log)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: HttpServer

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        state = self.state
        if state.silent:
            state.closing.wait(30)
            self.close_connection = True
            return
        if state.failures > 0:
            state.failures -= 1
            return self._send(503, b"", {}, body)
        path = state.folder / unquote(self.path).lstrip("/")
        if path.is_dir():
            links = [quote(p.name) + ("/" if p.is_dir() else "") for p in sorted(path.iterdir())]
            page = "".join(f'<a href="{html.escape(link)}">{html.escape(link)}</a>\n' for link in links)
            return self._send(200, page.encode(), {"Content-Type": "text/html"}, body)
        if not path.is_file():
            return self._send(404, b"", {}, body)
        headers = {"ETag": f'"{path.stat().st_size}-{path.stat().st_mtime_ns}"'}
        if state.dated:
            headers["Last-Modified"] = formatdate(path.stat().st_mtime, usegmt=True)
        size = path.stat().st_size
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if wanted is None or not state.ranges:
            return self._send(200, path.read_bytes(), headers, body)
        start, end = int(wanted[1]), min(int(wanted[2]) + 1, size)
        with path.open("rb") as file:
            file.seek(start)
            data = file.read(end - start)
        return self._send(206, data, headers | {"Content-Range": f"bytes {start}-{end - 1}/{size}"}, body)

    def _send(self, status: int, data: bytes, headers: Mapping[str, str], body: bool) -> None:
        self.state.log.append((self.command, unquote(self.path), len(data) if body else 0))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body and self.state.cut > 0 and len(data) > 1:
            self.state.cut -= 1
            data = data[: len(data) // 2]
            self.close_connection = True
        if body:
            self.wfile.write(data)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Says nothing of clients that have gone: tests look at what is printed."""


@contextmanager
def _serving(handler: Callable[..., BaseHTTPRequestHandler], closing: threading.Event) -> Iterator[str]:
    """A server on loopback; its address."""
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def http_server(folder: Path) -> Iterator[HttpServer]:
    """Serve a folder."""
    state = HttpServer(folder)
    handler = type("Handler", (_Handler,), {"state": state})
    with _serving(handler, state.closing) as address:
        state.url = f"{address}/"
        yield state


@contextmanager
def s3_server() -> Iterator[str]:
    """A server that speaks S3; its address."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@dataclass
class GcsServer:
    """A server that speaks Google Cloud Storage's JSON API.

    Attributes:
        url: Address of it.
        log: Path and bytes of the body of every answer, in order.
        failures: That many answers are 503 before the next one is right.
        cut: That many answers with an object's bytes break off after a few of them.
        silent: Whether requests are taken and never answered.
        token: What a request must show to be answered; "" for a public bucket.
        forbidden: Whether nobody may read anything.
    """

    url: str = ""
    log: list[tuple[str, int]] = field(default_factory=list)
    failures: int = 0
    cut: int = 0
    silent: bool = False
    token: str = ""
    forbidden: bool = False
    closing: threading.Event = field(default_factory=threading.Event)

    def sent(self) -> int:
        """Bytes of all bodies so far."""
        return sum(size for _, size in self.log)

    def make_bucket(self, name: str) -> None:
        self._post("/storage/v1/b", json.dumps({"name": name}).encode(), "application/json")

    def put(self, bucket: str, name: str, data: bytes) -> None:
        """Upload an object."""
        query = urlencode({"uploadType": "media", "name": name})
        self._post(f"/upload/storage/v1/b/{bucket}/o?{query}", data, "application/octet-stream")

    def _post(self, path: str, data: bytes, kind: str) -> None:
        urlopen(Request(self.url + path, data, {"Content-Type": kind}, method="POST"), timeout=10).close()


@contextmanager
def gcs_server(folder: Path) -> Iterator[GcsServer]:
    """Serve buckets out of memory.

    Args:
        folder: Where the server may keep its settings.
    """
    from gcp_storage_emulator.server import RequestHandler  # type: ignore[import-untyped]
    from gcp_storage_emulator.storage import Storage  # type: ignore[import-untyped]

    state, storage = GcsServer(), Storage(use_memory_fs=True, data_dir=str(folder))

    class Handler(RequestHandler):
        """The emulator's answers, and what a store does besides: to fail, and to refuse."""

        def do_GET(self) -> None:
            if state.silent:
                state.closing.wait(30)
                return None
            if state.failures > 0:
                state.failures -= 1
                return self._refuse(503, "Backend Error")
            if state.forbidden:
                return self._refuse(403, "reader@test does not have storage.objects.get access.")
            if state.token and self.headers.get("Authorization") != f"Bearer {state.token}":
                return self._refuse(401, "Anonymous caller does not have storage.objects.list access.")
            if state.cut > 0 and "alt=media" in self.path:
                state.cut -= 1
                return self._send(206, b"short", 1000)
            super().do_GET()

        def do_POST(self) -> None:
            if self.path != "/token":
                super().do_POST()
                return
            # Where a service account shows what its key signed, for a token.
            self.rfile.read(int(self.headers["Content-Length"]))
            if state.forbidden:
                self._send(400, b'{"error": "invalid_grant"}', 26)
                return
            answer = {"access_token": state.token, "expires_in": 3600, "token_type": "Bearer"}
            data = json.dumps(answer).encode()
            self._send(200, data, len(data))

        def send_header(self, keyword: str, value: str) -> None:
            if keyword == "Content-Length":
                state.log.append((self.path, int(value)))
            super().send_header(keyword, value)

        def _refuse(self, status: int, words: str) -> None:
            data = json.dumps({"error": {"code": status, "message": words}}).encode()
            self._send(status, data, len(data))

        def _send(self, status: int, data: bytes, length: int) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(data)

    def handler(*arguments: Any) -> Handler:
        return Handler(storage, *arguments)

    with _serving(handler, state.closing) as address:
        state.url = address
        yield state


def make_tar(path: Path, members: Mapping[str, bytes | Path], mode: str = "w") -> Path:
    """Write a tar file with these members in this order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in members.items():
            data = content if isinstance(content, bytes) else content.read_bytes()
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), int(time.time())
            tar.addfile(info, BytesIO(data))
    return path
