"""A server on loopback that plays an OpenAI-compatible endpoint, honest or not."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def completion(text: object) -> bytes:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return json.dumps({"id": "x", "object": "chat.completion", "choices": [choice]}).encode()


def stated(*facts: tuple[str, str, str]) -> str:
    keys = ("subject", "relation", "object")
    return json.dumps({"facts": [dict(zip(keys, one, strict=True)) for one in facts]})


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path, dict(self.headers), body))
        with suppress(OSError):  # a client may leave in the middle
            self.server.act(self, body)

    def do_GET(self) -> None:
        self.server.seen.append((self.path, dict(self.headers), None))
        self.reply(200, self.server.page, Content_Type="application/atom+xml")

    def reply(self, status: int, payload: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)


Act = Callable[[Handler, dict[str, Any]], None]


def says(text: object) -> Act:
    return lambda handler, body: handler.reply(200, completion(text))


def status(code: int, **headers: str) -> Act:
    return lambda handler, body: handler.reply(code, b"{}", **headers)


def raw(payload: bytes, **headers: str) -> Act:
    return lambda handler, body: handler.reply(200, payload, **headers)


def drip(handler: Handler, body: dict[str, Any]) -> None:
    """A header, then a byte now and then, for as long as anyone listens."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    while True:
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.05)


def hang(handler: Handler, body: dict[str, Any]) -> None:
    handler.server.released.wait(20)


@contextmanager
def serving(act: Act, page: bytes = b"") -> Iterator[Any]:
    """Serve in a thread for the block; ``url`` is the base of the API, ``act`` may be changed."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.seen, server.act, server.page = [], act, page
    server.released = threading.Event()
    server.root = f"http://127.0.0.1:{server.server_port}"
    server.url = f"{server.root}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
