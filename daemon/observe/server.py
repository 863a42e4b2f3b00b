"""Health and metrics over HTTP: three paths, one port, nothing else. Contains no figures.

The observer renders the pages; a request only hands one out, so it costs no look at the store and
is answered amid a long build.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ThreadingMixIn
from typing import Any

REQUEST_SECONDS = 5.0  #: within which a client sends its request and takes the answer
MAX_REQUESTS = 8  #: at once; more are turned away


@dataclass(frozen=True, slots=True)
class Page:
    """One answer."""

    status: int
    body: str
    type: str = "text/plain; charset=utf-8"


#: path to page, asked for each request
Pages = Callable[[str], Page | None]


class _Server(ThreadingMixIn, HTTPServer):
    daemon_threads = True
    request_queue_size = 16
    allow_reuse_address = True

    def __init__(self, host: str, port: int, pages: Pages) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.pages, self._slots = pages, threading.Semaphore(MAX_REQUESTS)
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        """Bind without asking a name server what this machine is called."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "wised", self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own, or close at once when too many are at it."""
        if not self._slots.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._slots.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer one request, then let the next one in."""
        # The socket's own timeout is for each read: a client could drip for ever.
        cut = threading.Timer(REQUEST_SECONDS, _cut, (request,))
        cut.daemon = True
        cut.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            cut.cancel()
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that goes away is no event."""


def _cut(request: socket.socket) -> None:
    try:
        request.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = REQUEST_SECONDS
    server_version, sys_version = "wised", ""

    def do_GET(self) -> None:
        """Hand out a page."""
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        """Hand out what stands above a page."""
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        page = self.server.pages(self.path.partition("?")[0]) or Page(404, "not found\n")
        body = page.body.encode()
        self.send_response(page.status)
        self.send_header("Content-Type", page.type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse without repeating what the client sent."""
        self.close_connection = True
        body = f"{HTTPStatus(code).phrase.lower()}\n".encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Log no requests: a scrape every few seconds is no news."""


class Endpoint:
    """The port, open from the start until `close`; raises OSError when it can't be had."""

    def __init__(self, host: str, port: int, pages: Pages) -> None:
        self._server = _Server(host, port, pages)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.2,), name="endpoint", daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """Return the port, also where any free one was asked for."""
        return self._server.server_port

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
