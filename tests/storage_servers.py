"""Real servers on loopback for tests of remote storage: HTTP with ranges and a log, and one that speaks S3."""

from __future__ import annotations

import html
import re
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from urllib.parse import quote, unquote


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


@contextmanager
def http_server(folder: Path) -> Iterator[HttpServer]:
    """Serve a folder."""
    state = HttpServer(folder)
    handler = type("Handler", (_Handler,), {"state": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_port}/"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


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
