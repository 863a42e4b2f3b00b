"""An Atom feed of Factbook changes, served over HTTP on loopback with validators."""

from __future__ import annotations

import hashlib
import threading
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from demo.world import Update

ATOM = "http://www.w3.org/2005/Atom"
#: how the feed words each relation
LABELS = {
    "chief_of_state": "chief of state",
    "head_of_government": "head of government",
    "ambassador_to_us": "ambassador to the US",
    "us_ambassador": "US ambassador",
}


def title(update: Update) -> str:
    """Return an entry's title: who holds the office now, and who did."""
    label = LABELS[update.relation]
    return f"{update.subject}: {label} is now {update.new} (was {update.old})"


def document(updates: Sequence[Update]) -> bytes:
    """Return the Atom document of ``updates``."""
    feed = ET.Element(f"{{{ATOM}}}feed")
    ET.SubElement(feed, f"{{{ATOM}}}title").text = "World Factbook: who holds office"
    ET.SubElement(feed, f"{{{ATOM}}}id").text = "tag:factbook.example,2021:offices"
    ET.SubElement(feed, f"{{{ATOM}}}updated").text = f"{max(u.date for u in updates)}T00:00:00Z"
    for update in updates:
        entry = ET.SubElement(feed, f"{{{ATOM}}}entry")
        name = hashlib.sha256(f"{update}".encode()).hexdigest()[:16]
        ET.SubElement(entry, f"{{{ATOM}}}id").text = f"tag:factbook.example,2021:{name}"
        ET.SubElement(entry, f"{{{ATOM}}}title").text = title(update)
        ET.SubElement(entry, f"{{{ATOM}}}updated").text = f"{update.date}T00:00:00Z"
    body: bytes = ET.tostring(feed, encoding="utf-8", xml_declaration=True)
    return body


class Feed:
    """A document on loopback, at an address of its own, with validators."""

    def __init__(self, url: str, body: bytes) -> None:
        self.url = url
        self.publish(body)

    def publish(self, body: bytes) -> None:
        """Serve ``body`` from now on."""
        self.body, self.modified = body, formatdate(usegmt=True)
        self.etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'


@contextmanager
def served(body: bytes) -> Iterator[Feed]:
    """Serve ``body``, or what is published after it, for the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            fresh = self.headers.get("If-None-Match") == feed.etag
            self.send_response(304 if fresh else 200)
            self.send_header("ETag", feed.etag)
            self.send_header("Last-Modified", feed.modified)
            if not fresh:
                self.send_header("Content-Type", "application/atom+xml")
                self.send_header("Content-Length", str(len(feed.body)))
            self.end_headers()
            if not fresh:
                self.wfile.write(feed.body)

        def log_message(self, format: str, *args: object) -> None:
            """Stay silent: the demo's output is the daemon's."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    feed = Feed(f"http://127.0.0.1:{server.server_port}/offices.atom", body)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield feed
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
