"""A daemon's polling over real sockets: one hostile feed beside a good one. No expectations."""

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from feed_documents import rss

from daemon import polling, state, status
from daemon.store import facts, timestamp

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
GOOD = rss("<guid>g</guid><title>Mali: capital is now Bamako</title>")


@dataclass
class Site:
    """Bodies by path; a body may be replaced between polls."""

    url: str
    pages: dict[str, bytes] = field(default_factory=dict)
    content_type: str = "application/xml"
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)  #: path, headers


@contextmanager
def served():
    """Serve a site on loopback, each answer with an ETag of its own body, 304 to a known one."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            site.seen.append((self.path, dict(self.headers)))
            body = site.pages[self.path.partition("?")[0]]
            etag = f'"{hash(body)}"'
            fresh = self.headers.get("If-None-Match") == etag
            self.send_response(304 if fresh else 200)
            self.send_header("ETag", etag)
            if not fresh:
                self.send_header("Content-Type", site.content_type)
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if not fresh:
                self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        site = Site(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield site
        server.shutdown()
        thread.join()


class World:
    """A state folder whose daemon polls ``/feed`` and, beside it, a good feed."""

    def __init__(self, folder, site):
        self.site = site
        self.state = state.init(folder / "state", START)
        self.config = self.state.config()
        self.store = self.state.store()
        self._extract = polling.extractor(self.config)
        self.add("hostile", f"{site.url}/feed")
        self.add("good", f"{site.url}/good")
        site.pages["/good"] = GOOD

    def add(self, name, location):
        row = {"name": name, "kind": "feed", "location": location, "tier": "normal"}
        at = timestamp(START)
        row |= {"allow_private": 1, "next_poll_at": at, "created_at": at}
        self.store.insert("source", row)

    def poll(self, body=None, hours=0.0, path="/feed"):
        """Poll what is due, in any order, with `body` at `path`; return each source's result."""
        if body is not None:
            self.site.pages[path] = body
        now = START + timedelta(hours=hours)
        sources = polling.due(self.store, now)
        found = [polling.poll(self.store, s, self.config, self._extract, now) for s in sources]
        return {one.source: one for one in found}

    def health(self, name="hostile"):
        """Return how `wised status` shows a source."""
        shown = status.read(self.state, self.store, START)
        return next(source for source in shown.sources if source.name == name)

    def facts(self, name="hostile"):
        """Return the facts that a source brought, oldest first."""
        rows = self.store.rows(
            "SELECT DISTINCT fact_id FROM evidence JOIN entry ON entry.id = entry_id"
            " JOIN source ON source.id = source_id WHERE name = ? ORDER BY fact_id",
            name,
        )
        return [facts.get(self.store, row["fact_id"]) for row in rows]

    def entries(self, name="hostile"):
        return self.store.rows(
            "SELECT entry.* FROM entry JOIN source ON source.id = source_id WHERE name = ?", name
        )
