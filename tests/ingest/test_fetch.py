"""Fetching from a real server on loopback; what is hostile is in test_hostile_fetches.py."""

import gzip
import random
import threading
from contextlib import suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hostile_answers import bomb

from ingest import body
from ingest.errors import FetchError
from ingest.fetch import Limits, fetch, parse_retry_after, user_agent
from ingest.networks import ANY

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
DATE = "Sun, 01 Mar 2026 11:00:00 GMT"
MIB = 1024 * 1024


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, status, payload=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        with suppress(OSError):  # a client may leave in the middle
            self.wfile.write(payload)

    def do_GET(self):
        self.server.seen.append((self.path, dict(self.headers)))
        getattr(self, "get_" + self.path.strip("/").split("?")[0].split("/")[0])()

    def get_plain(self):
        self.reply(200, b"<rss/>", Content_Type="text/xml", ETag='"v1"', Last_Modified=DATE)

    def get_conditional(self):
        fresh = self.headers.get("If-None-Match") == '"a, b"' or (
            self.headers.get("If-Modified-Since") == DATE
        )
        self.reply(304 if fresh else 200, b"" if fresh else b"new", ETag='"a, b"')

    def get_hops(self):
        """Redirect by each status in the path in turn: /hops/301/308 leads to /plain."""
        _, _, status, *rest = self.path.split("/")
        self.reply(int(status), Location="/hops/" + "/".join(rest) if rest else "/plain")

    def get_gzip(self):
        self.reply(200, gzip.compress(b"hello") + gzip.compress(b"!"), Content_Encoding="gzip")

    def get_big(self):
        self.reply(200, b"x" * 5000)

    def get_status(self):
        self.reply(int(self.path.split("/")[2].split("?")[0]), b"no", Retry_After="120")

    def get_short(self):
        self.send_response(200)
        self.send_header("Content-Length", "100")
        self.end_headers()
        self.wfile.write(b"only this")
        self.close_connection = True


@pytest.fixture(scope="module")
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.daemon_threads = True
        httpd.seen = []
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield httpd
        httpd.shutdown()
        thread.join()


@pytest.fixture
def url(server):
    server.seen.clear()
    return f"http://127.0.0.1:{server.server_port}"


def get(url, **more):
    return fetch(url, allowed=ANY, now=NOW, **more)


def refusal(url, **more):
    with pytest.raises(FetchError) as caught:
        get(url, **more)
    return caught.value


def test_a_feed_comes_with_its_type_and_validators(url, server):
    answer = get(url + "/plain")
    assert (answer.status, answer.body, answer.content_type) == (200, b"<rss/>", "text/xml")
    assert (answer.etag, answer.last_modified, answer.not_modified) == ('"v1"', DATE, False)


def test_the_request_names_us_and_asks_for_gzip_only(url, server):
    get(url + "/plain")
    (_, headers), *_ = server.seen
    assert headers["User-Agent"] == user_agent()
    assert user_agent().startswith("wised/")
    assert headers["Accept-Encoding"] == "gzip"
    assert "If-None-Match" not in headers and "Cookie" not in headers


@pytest.mark.parametrize("given", [{"etag": '"a, b"'}, {"last_modified": DATE}])
def test_an_unchanged_feed_answers_304_to_either_validator(url, given):
    answer = get(url + "/conditional", **given)
    assert answer.not_modified
    assert answer.body == b""


def test_a_changed_feed_is_sent_in_full(url):
    assert get(url + "/conditional", etag='"old"').body == b"new"


@pytest.mark.parametrize(
    ("hops", "moved_to"),
    [
        ("301", "/plain"),
        ("308", "/plain"),
        ("301/308", "/plain"),
        ("302", None),
        ("307", None),
        ("301/302", "/hops/302"),
        ("302/301", None),
    ],
)
def test_a_feed_has_moved_as_far_as_its_redirects_are_for_good(url, hops, moved_to):
    answer = get(f"{url}/hops/{hops}")
    assert answer.body == b"<rss/>"
    assert answer.moved_to == (moved_to and url + moved_to)


def test_a_feed_that_did_not_move_says_so(url):
    assert get(url + "/plain").moved_to is None


def test_a_response_does_not_show_its_url_or_body_in_its_repr(url):
    shown = repr(get(url.replace("http://", "http://me:s3cret@") + "/plain"))
    assert "s3cret" not in shown and "<rss/>" not in shown


def test_gzip_of_several_members_is_decoded(url):
    assert get(url + "/gzip").body == b"hello!"


CAPS = (5 * MIB, 15 * MIB, 100)


def refused(packed, *caps):
    with pytest.raises(FetchError) as caught:
        body.read([packed], "gzip", *caps)
    return caught.value.code


def test_a_body_that_inflates_just_to_a_cap_is_accepted():
    text = random.Random(1).randbytes(MIB) * 2
    packed = gzip.compress(text)
    assert body.read([packed], "gzip", len(packed), 2 * MIB, 2) == text
    assert refused(packed, len(packed) - 1, 2 * MIB, 2) == "fetch.too_large"
    assert refused(packed, len(packed), 2 * MIB - 1, 2) == "fetch.too_large"


def test_the_ratio_counts_from_a_mebibyte_on():
    packed = bomb(MIB)
    assert len(packed) < MIB / 500
    assert body.read([packed], "gzip", *CAPS) == bytes(MIB)
    assert refused(bomb(2 * MIB), *CAPS) == "fetch.bomb"
    padding = gzip.compress(random.Random(1).randbytes(2 * MIB // 100))
    whole = body.read([padding + bomb(2 * MIB)], "gzip", *CAPS)
    assert len(whole) == 2 * MIB // 100 + 2 * MIB


def test_inflating_goes_in_small_steps_so_that_a_bomb_costs_no_more_than_its_cap(monkeypatch):
    steps, inflated = [], body._inflated
    monkeypatch.setattr(
        body, "_inflated", lambda chunks: (steps.append(len(c)) or c for c in inflated(chunks))
    )
    assert refused(bomb(64 * MIB), 5 * MIB, 15 * MIB, 10_000) == "fetch.too_large"
    assert max(steps) <= 64 * 1024
    assert sum(steps) <= 15 * MIB + 64 * 1024


def test_gzip_split_at_any_byte_decodes_the_same():
    packed = gzip.compress(b"some text" * 9) + gzip.compress(b"more")
    for cut in range(len(packed)):
        parts = [packed[:cut], packed[cut:]]
        assert body.read(parts, "gzip", *CAPS) == b"some text" * 9 + b"more"


def test_a_plain_body_over_the_raw_cap_is_refused(url):
    assert refusal(url + "/big", limits=Limits(raw_bytes=4999)).code == "fetch.too_large"
    assert len(get(url + "/big", limits=Limits(raw_bytes=5000)).body) == 5000


def test_a_body_shorter_than_announced_is_an_error(url):
    assert refusal(url + "/short").code == "fetch.broken"


def test_404_is_worth_another_attempt_and_410_is_not(url):
    missing, gone = refusal(url + "/status/404"), refusal(url + "/status/410")
    assert (missing.code, missing.retryable) == ("fetch.status_404", True)
    assert (gone.code, gone.retryable) == ("fetch.gone", False)
    assert missing.hint and gone.hint


def test_the_guard_refuses_loopback_unless_private_addresses_are_allowed(url, server):
    with pytest.raises(FetchError) as caught:
        fetch(url + "/plain", now=NOW)
    assert caught.value.code == "fetch.refused_address"
    assert server.seen == []


def test_no_connection_is_an_error(url):
    assert refusal("http://127.0.0.1:1/").code == "fetch.connect"


def test_a_proxy_from_the_environment_is_not_used(url, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    assert get(url + "/plain").status == 200


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("soon", None),
        ("", None),
        ("120", 120),
        ("-5", 60),
        ("0", 60),
        ("1000000000", 86400),
        ("9" * 5000, 86400),
        ("Sun, 01 Mar 2026 12:10:00 GMT", 600),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 60),
        ("Sun, 01 Mar 2099 11:00:00 GMT", 86400),
    ],
)
def test_retry_after_is_seconds_or_a_date_within_a_minute_and_a_day(value, seconds):
    assert parse_retry_after(value, NOW) == seconds
