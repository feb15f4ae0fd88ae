"""`ascnet search --serve`: a web page for one's own machine, by the standard library's HTTP server.

Whoever may open a connection to the port may ask. So it listens to this machine only unless told otherwise, answers
only to names that cannot belong to another site (DNS rebinding), and takes files only from its own page. No address
that it answers holds a path: videos are row numbers.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import re
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ascnet.errors import UserError
from ascnet.search.searcher import Searcher
from ascnet.search.service import Service
from dali_pipes import DataError, VideoError

# Connections at a time, seconds without a byte before one is closed, seconds for a file to arrive.
CONNECTIONS, SILENCE, ARRIVAL = 32, 20.0, 120.0
# Files looked at at a time, and seconds that another one waits.
UPLOADS, WAITING = 2, 30.0

_STATIC = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Refused(Exception):
    """A request that is answered with a status and a reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Server(ThreadingHTTPServer):
    """Serves one index.

    Args:
        searcher: The index, its encoder loaded.
        host: Address to listen at.
        port: 0: any that is free; `server_port` says which.
        k: Neighbours of a query.
        limit: Largest file taken, bytes.

    Raises:
        UserError: It cannot listen there.
    """

    # Threads are waited for at the end: torch must not be at work when the interpreter goes.
    daemon_threads = False
    request_queue_size = 64

    def __init__(self, searcher: Searcher, *, host: str = "127.0.0.1", port: int = 0, k: int = 10, limit: int) -> None:
        self.host, self.limit = host, limit
        self.files = {path: (_read(name), kind) for path, (name, kind) in _STATIC.items()}
        self.uploads = threading.BoundedSemaphore(UPLOADS)
        self._slots = threading.BoundedSemaphore(CONNECTIONS)
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        try:
            self.address_family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            super().__init__((host, port), Handler)
        except (OSError, OverflowError, UnicodeError) as error:
            raise UserError(f"--host {host} --port {port}: cannot listen there: {error}") from None
        self.service = Service(searcher, k)

    def server_bind(self) -> None:
        """As of the base class, without asking the name service who this machine is."""
        # The grandfather's: HTTPServer looks its own name up, which may take a minute without a network.
        import socketserver

        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.host, int(self.server_address[1])

    @property
    def address(self) -> str:
        """What to open in a browser."""
        shown = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{shown}:{self.server_port}/"

    def knows(self, host: str) -> bool:
        """Whether a request's Host header names this server, and no site that was made to lead here."""
        name, _, port = host.rpartition(":") if re.search(r":\d+$", host) else (host, "", "80")
        if port != str(self.server_port):
            return False
        name = name.strip("[]").lower()
        if name in ("localhost", self.host.lower()):
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        # An address is no name that somebody else could make lead here.
        return address.is_loopback or not is_loopback(self.host)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._slots.acquire(blocking=False):
            with contextlib.suppress(OSError):
                request.sendall(b"HTTP/1.0 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
            self.shutdown_request(request)
            return
        with self._lock:
            self._open.add(request)
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread was started that would do it
            self._ended(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._ended(request)

    def _ended(self, request: socket.socket) -> None:
        with self._lock:
            self._open.discard(request)
        self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is nobody's error."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def server_close(self) -> None:
        """Ends all connections, waits for their threads, and removes temporary files."""
        with self._lock:
            for request in self._open:
                with contextlib.suppress(OSError):
                    request.shutdown(socket.SHUT_RD)
        super().server_close()
        if hasattr(self, "service"):
            self.service.close()


class Handler(BaseHTTPRequestHandler):
    """Answers one request; a connection carries no second one."""

    server: Server
    timeout = SILENCE
    server_version, sys_version = "ascnet", ""

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_HEAD(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def _answer(self, act: Callable[[], tuple[bytes, str]]) -> None:
        try:
            if not self.server.knows(self.headers.get("Host", "")):
                raise Refused(403, f"this server is {self.server.address}; it answers to no other name")
            body, kind = act()
            self._send(200, body, kind)
        except Refused as refused:
            self._send(refused.status, _json({"error": refused.reason}), "application/json")
            self._drain()
        except VideoError as error:
            self._send(422, _json({"error": error.reason}), "application/json")
        except (UserError, DataError) as error:
            self._send(422, _json({"error": str(error)}), "application/json")
        except (ConnectionError, TimeoutError):
            raise  # the client is gone
        except Exception as error:
            # Whatever it was, the page says that there is no answer, and the terminal why.
            self._send(500, _json({"error": "an error inside the server; its terminal says more"}), "application/json")
            print(f"ascnet search: {self.command} {self.path}: {type(error).__name__}: {error}", file=sys.stderr)

    def _get(self) -> tuple[bytes, str]:
        path, service = self.path, self.server.service
        if path in self.server.files:
            return self.server.files[path]
        if path == "/api/about":
            return _json(service.about() | {"limit": self.server.limit}), "application/json"
        if found := re.fullmatch(r"/api/videos/(\d{1,12})", path):
            return _json(service.listing(int(found[1]))), "application/json"
        if found := re.fullmatch(r"/api/neighbours/(\d{1,12})", path):
            if not service.searcher.has(int(found[1])):
                raise Refused(404, f"row {int(found[1])} is not in the index")
            return _json(service.of_row(int(found[1]))), "application/json"
        if found := re.fullmatch(r"/(preview|still)/(\d{1,12})\.webp", path):
            picture = service.preview(int(found[2]), still=found[1] == "still")
            if picture is not None:
                return picture, "image/webp"
        raise Refused(404, "there is nothing here")

    def _post(self) -> tuple[bytes, str]:
        if self.path != "/api/search":
            raise Refused(404, "there is nothing here")
        if self.headers.get("Origin") != f"http://{self.headers['Host']}":
            raise Refused(403, "files are taken from this server's own page only")
        length = self.headers.get("Content-Length", "")
        if self.headers.get("Transfer-Encoding") or not re.fullmatch(r"\d{1,15}", length):
            raise Refused(411, "say how long the file is (Content-Length)")
        if not 0 < int(length) <= self.server.limit:
            raise Refused(413, f"the file has {length} bytes; allowed are 1 to {self.server.limit}")
        if not self.server.uploads.acquire(timeout=WAITING):
            raise Refused(503, "too many queries at a time; try again")
        try:
            # Without a suffix, so that nothing but its content says what it is.
            with tempfile.NamedTemporaryFile(dir=self.server.service.folder, prefix="query-") as file:
                self._receive(int(length), file)
                file.flush()
                return _json(self.server.service.of_file(Path(file.name))), "application/json"
        finally:
            self.server.uploads.release()

    def _receive(self, length: int, file: Any) -> None:
        until = time.monotonic() + ARRIVAL
        while length:
            try:
                block = self.rfile.read1(min(length, 1 << 20))
            except TimeoutError:
                raise Refused(408, "the file did not arrive in time") from None
            if not block:
                raise Refused(400, "the file broke off")
            file.write(block)
            length -= len(block)
            if length and time.monotonic() > until:
                raise Refused(408, "the file did not arrive in time")

    def _drain(self) -> None:
        """Take what is still being sent for a moment, or the browser never reads why it was refused."""
        with contextlib.suppress(OSError):
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(0.5)
            until = time.monotonic() + 2.0
            while time.monotonic() < until and self.connection.recv(1 << 16):
                pass

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "private, max-age=600" if kind == "image/webp" else "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a terminal full of requests hides what matters."""


def serve(searcher: Searcher, *, host: str, port: int, k: int, limit: int) -> int:
    """Serve until Ctrl-C or SIGTERM, which the command line turns into exceptions.

    Raises:
        UserError: It cannot listen there.
    """
    if limit < 1:
        raise UserError(f"--upload-limit {limit // 10**6}: must be at least 1 MB")
    server = Server(searcher, host=host, port=port, k=k, limit=limit)
    # Not in this thread, which is where the exception of a signal comes up: in the middle of whatever it does.
    ended = threading.Event()

    def listen() -> None:
        try:
            server.serve_forever(poll_interval=0.2)
        finally:
            ended.set()

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        if not is_loopback(host):
            print(
                f"ascnet search: warning: --host {host}: whoever reaches this machine may search, send files, and see "
                "previews of the corpus; there is no password",
                file=sys.stderr,
            )
        print(f"{searcher.file.path}: {searcher.told}\nserving at {server.address} (Ctrl-C stops)", flush=True)
        while not ended.wait(timeout=1.0):
            pass
    finally:
        if not ended.is_set():
            server.shutdown()
        server.server_close()
    return 0


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server at this address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _read(name: str) -> bytes:
    return (Path(__file__).parent / name).read_bytes()


def _json(content: Any) -> bytes:
    return json.dumps(content).encode()
