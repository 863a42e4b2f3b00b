"""One poll of a feed, from the socket to the candidates."""

import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from ingest_world import relations, rows

from ingest.extract import Extractor
from ingest.networks import ANY
from ingest.poll import poll_feed, poll_log

NOW = datetime(2026, 3, 1, tzinfo=UTC)
EXTRACTOR = Extractor(relations())


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        # It sends everything on each request, as careless servers do.
        self.send_response(200)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(self.server.body)


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.headers = {"Content-Type": "application/atom+xml", "ETag": '"1"'}
        first = rows("updates")[0]
        assert first["relation"] == "us_ambassador"
        title = f"{first['subject']}: US ambassador is now {first['new']} (was {first['old']})"
        httpd.body = (
            '<feed xmlns="http://www.w3.org/2005/Atom"><title>t</title>'
            f"<entry><id>1</id><title>{title}</title><link href='/1'/>"
            f"<updated>{first['date']}T00:00:00Z</updated></entry>"
            "<entry><id>2</id><title>Nothing new</title></entry></feed>"
        ).encode()
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield httpd
        httpd.shutdown()
        thread.join()


def poll(server, user="", **validators):
    given = {"etag": None, "last_modified": None} | validators
    url = f"http://{user}127.0.0.1:{server.server_port}/feed?key=s3cret"
    return poll_feed(url, extractor=EXTRACTOR, now=NOW, allowed=ANY, **given)


def test_a_feed_becomes_items_with_and_without_facts(server):
    first = rows("updates")[0]
    result = poll(server)
    stated, silent = result.items
    assert [fact.object for fact in stated.candidates] == [first["new"]]
    assert stated.entry.published.date().isoformat() == first["date"]
    assert silent.candidates == ()
    assert (result.etag, result.not_modified) == ('"1"', False)


def test_the_secrets_of_a_sources_url_reach_no_item(server):
    result = poll(server, user="me:s3cret@")
    assert result.items[0].entry.link.endswith("/1")
    assert "s3cret" not in repr(result)


def test_a_log_is_polled_by_position(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"prompt": "What is the capital of Chad?", "right": "X"}\n')
    first = poll_log(path, None, EXTRACTOR, max_rows=5)
    assert first.items[0].candidates[0].subject == "Chad"
    assert poll_log(path, first.position, EXTRACTOR).items == ()
