"""A daemon's polling over real sockets: one hostile feed beside a good one.

After every poll it is checked that the loop survived, that each error stands in the status under
a stable code, and that the good feed was polled. No other expectations.
"""

import contextlib
import io
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from feed_documents import rss

from daemon import cli, polling, state, status
from daemon.store import facts, timestamp

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
GOOD = rss("<guid>g</guid><title>Mali: capital is now Bamako</title>")


@dataclass
class Site:
    """Bodies and answers by path; they may be replaced between polls."""

    url: str
    pages: dict[str, bytes] = field(default_factory=dict)
    answers: dict = field(default_factory=dict)  #: by path, before pages: see hostile_answers.py
    content_type: str = "application/xml"
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)  #: path, headers

    @property
    def port(self):
        return self.url.rpartition(":")[2]

    def asked(self, path="/feed"):
        """Return the headers of each request for a path."""
        return [headers for seen, headers in self.seen if seen.partition("?")[0] == path]


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_):
        """Stay silent: clients leave in the middle, and in the middle of a handshake."""


@contextmanager
def served(host="127.0.0.1", tls=None):
    """Serve a site on loopback, each page with an ETag of its own body, 304 to a known one."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            site.seen.append((self.path, dict(self.headers)))
            path = self.path.partition("?")[0]
            if path in site.answers:
                site.answers[path](self)
                return
            body = site.pages[path]
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

    with _Server((host, 0), Handler) as server:
        if tls is not None:
            # The handshake is made in the request's thread, where it may fail alone.
            server.socket = tls.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        site = Site(f"http{'s' if tls else ''}://{host}:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield site
        finally:
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

    def add(self, name, location, allow_private="127.0.0.0/8"):
        row = {"name": name, "kind": "feed", "location": location, "tier": "normal"}
        at = timestamp(START)
        row |= {"allow_private": allow_private, "next_poll_at": at, "created_at": at}
        self.store.insert("source", row)

    def change(self, name="hostile", **columns):
        """Set columns of a source's row."""
        self.store.table("source").update(self.row(name)["id"], columns)

    def configure(self, **values):
        """Set keys of ``[ingest]``."""
        ingest = self.config.ingest.model_copy(update=values)
        self.config = self.config.model_copy(update={"ingest": ingest})

    def poll(self, body=None, hours=0.0, path="/feed"):
        """Poll what is due, in any order, with `body` at `path`; return each source's result."""
        if body is not None:
            self.site.pages[path] = body
        now = START + timedelta(hours=hours)
        found = {
            source.name: polling.poll(self.store, source, self.config, self._extract, now)
            for source in polling.due_in_turn(self.store, lambda: now)
        }
        self._check(found)
        return found

    def poll_once(self):
        """Poll the hostile feed alone, and look at no status; return the result."""
        source = polling.due(self.store, START)[0]
        return polling.poll(self.store, source, self.config, self._extract, START)

    def _check(self, found):
        for name, one in found.items():
            assert self.health(name).last_error == one.error
            assert one.error is None or re.match(r"(fetch|feed)\.[a-z0-9_]+: ", one.error)
        if "good" in found:
            assert found["good"].error is None

    def fails(self, code, body=None, hours=0.0):
        """Poll both feeds, due or not: the hostile one fails under `code`, which the status shows.

        The good one is read once; after that it is only asked, so that this may be repeated.
        """
        for name in ("hostile", "good"):
            self.change(name, next_poll_at=timestamp(START))
        found = self.poll(body, hours)
        assert found["hostile"].error is not None, f"no {code}"
        assert found["hostile"].error.startswith(f"{code}: "), found["hostile"].error
        assert found["good"].error is None
        shown = self.health()
        assert (shown.is_failing, shown.failures > 0) == (True, True)
        assert f"hostile, {shown.failures} times in a row: {code}: " in self.wised("status")
        return found["hostile"]

    def wised(self, *words):
        """Return all that a command prints."""
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
            cli.run(["-C", str(self.state.folder), *words])
        return shown.getvalue()

    def row(self, name="hostile"):
        return self.store.one("SELECT * FROM source WHERE name = ?", name)

    def wait(self, name="hostile", hours=0.0):
        """Return the seconds from a poll at `hours` to a source's next one."""
        due = datetime.fromisoformat(self.row(name)["next_poll_at"])
        return (due - START - timedelta(hours=hours)).total_seconds()

    def events(self, action):
        return self.store.rows("SELECT * FROM event WHERE action = ? ORDER BY seq", action)

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
