"""Servers that send too much, too slowly or to the wrong place: F7 to F15 and F20."""

import gzip
import random
import ssl
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from feed_documents import rss
from hostile_answers import MIB, bomb, raw, redirect, reply
from hostile_world import World, served

from ingest import address
from ingest.errors import FetchError
from ingest.fetch import Limits, fetch
from ingest.networks import Allowed

ROOT = Path(__file__).resolve().parents[2]
GZIP = ("Content-Encoding", "gzip")
STORY = rss("<guid>1</guid><title>Chad: capital is now X</title>")


def test_f07_a_gzip_bomb_of_200_mb_is_refused(world):
    world.site.answers["/feed"] = reply(200, bomb(200 * MIB), GZIP)
    world.fails("fetch.bomb")


def test_f07_a_gzip_bomb_of_200_mb_takes_less_than_100_mb(world):
    world.site.answers["/feed"] = reply(200, bomb(200 * MIB), GZIP)
    code = """
import sys
from ingest.errors import FetchError
from ingest.fetch import fetch
from ingest.networks import ANY

try:
    fetch(sys.argv[1], allowed=ANY)
except FetchError as error:
    (peak,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
    print(error.code, peak.split()[1])
"""
    command = [sys.executable, "-c", code, f"{world.site.url}/feed"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    told, peak = done.stdout.split()
    assert told == "fetch.bomb"
    assert int(peak) * 1024 < 100_000_000


def test_f07_a_large_body_of_ordinary_proportion_is_refused_at_the_cap(world):
    item = "<item><guid>{0}</guid><title>Land {0}: capital is now City {1}</title></item>"
    items = [item.format(n, n * 7919 % 100_003) for n in range(250_000)]
    body = rss(*items)
    packed = gzip.compress(body, 6)
    assert len(body) > 15 * MIB
    assert len(packed) < 5 * MIB and len(body) < 50 * len(packed)
    world.site.answers["/feed"] = reply(200, packed, GZIP)
    world.fails("fetch.too_large")


def test_f07_a_short_feed_may_repeat_itself(world):
    body = STORY + b"\n" * 900_000
    assert len(body) > 200 * len(gzip.compress(body))
    world.site.answers["/feed"] = reply(200, gzip.compress(body), GZIP)
    assert world.poll()["hostile"].facts == 1


PACKED = gzip.compress(STORY)
UNDECODABLE = {
    "twice, and says so": (gzip.compress(PACKED), "gzip, gzip", "fetch.bad_encoding"),
    "twice, and says once": (gzip.compress(PACKED), "gzip", "feed.not_a_feed"),
    "not at all": (STORY, "gzip", "fetch.bad_encoding"),
    "cut short": (PACKED[:-9], "gzip", "fetch.bad_encoding"),
    "damaged": (PACKED[:-8] + b"\0" * 8, "gzip", "fetch.bad_encoding"),
    "something after it": (PACKED + b"<rss/>", "gzip", "fetch.bad_encoding"),
    "another encoding": (STORY, "br", "fetch.bad_encoding"),
    "no encoding there is": (STORY, "\x7f" * 500, "fetch.bad_encoding"),
}


def test_f08_a_body_that_does_not_decode_is_an_error(world):
    for body, encoding, code in UNDECODABLE.values():
        world.site.answers["/feed"] = reply(200, body, ("Content-Encoding", encoding))
        world.fails(code)


@pytest.mark.parametrize("encoding", ["identity", "GZIP", "x-gzip"])
def test_f08_other_names_of_what_we_asked_for_are_understood(world, encoding):
    body = STORY if encoding == "identity" else PACKED
    world.site.answers["/feed"] = reply(200, body, ("Content-Encoding", encoding))
    assert world.poll()["hostile"].facts == 1


HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def assert_left_in_time(world, code, seconds=0.6):
    """Assert that a fetch ends with its deadline, not long after it."""
    world.configure(timeout_seconds=seconds)
    begun = time.monotonic()
    world.fails(code)
    assert time.monotonic() - begun < seconds + 3


@pytest.mark.parametrize(
    "head", [HEAD + b"Content-Length: 5000\r\n\r\n", b""], ids=["the body", "all of it"]
)
def test_f09_a_dribbling_server_is_left_at_the_deadline(world, head):
    world.site.answers["/feed"] = raw(head, b"H", pause=0.1, times=100)
    assert_left_in_time(world, "fetch.timeout")


def test_f09_redirects_share_one_deadline(world):
    slow = raw(b"HTTP/1.1 302 Found\r\nLocation: /feed\r\n", b"\r\n", pause=0.3)

    def answer(handler):
        time.sleep(0.3)
        slow(handler)

    world.site.answers["/feed"] = answer
    assert_left_in_time(world, "fetch.timeout", seconds=1)


def test_f10_headers_that_never_end_are_left_at_the_deadline(world):
    world.site.answers["/feed"] = raw(HEAD, b"X-A: b\r\n", pause=0.05, times=200)
    assert_left_in_time(world, "fetch.timeout")


ENDLESS_HEADS = {
    "one header of 10 MB": raw(HEAD + b"X-A: ", b"x" * 10 * MIB),
    "headers of 10 MB": raw(HEAD, b"X-A: b\r\n" * 1024, times=1280),
    "interim answers": raw(b"HTTP/1.1 100 Continue\r\n\r\n" * 64, times=10_000),
    "a status line of 10 MB": raw(b"HTTP/1.1 200 " + b"x" * 10 * MIB),
}


@pytest.mark.parametrize("answer", ENDLESS_HEADS.values(), ids=ENDLESS_HEADS.keys())
def test_f10_headers_beyond_64_kib_are_refused(world, answer):
    world.site.answers["/feed"] = answer
    world.fails("fetch.headers_too_large")


def test_f10_headers_of_60_kib_are_read(world):
    world.site.answers["/feed"] = reply(200, STORY, *[("X-A", "x" * 1000)] * 60)
    assert world.poll()["hostile"].facts == 1


def test_f11_an_endless_body_is_refused_at_the_cap(world):
    chunk = b"10000\r\n" + random.Random(1).randbytes(65_536) + b"\r\n"
    world.site.answers["/feed"] = raw(CHUNKED, chunk, times=10_000)
    world.fails("fetch.too_large")


def test_f11_an_endless_slow_body_is_left_at_the_deadline(world):
    world.site.answers["/feed"] = raw(CHUNKED, b"1\r\nx\r\n", pause=0.05, times=200)
    assert_left_in_time(world, "fetch.timeout")


def test_f11_a_chunk_size_that_is_none_is_an_error(world):
    for size in (b"-1", b"zz", b"1" * 40):
        world.site.answers["/feed"] = raw(CHUNKED + size + b"\r\nx\r\n")
        world.fails("fetch.broken")


def hops(site, count):
    """Let ``/feed`` lead to a story over so many redirects."""
    site.answers["/feed"] = redirect(f"/hop/{count - 1}")
    for left in range(1, count):
        site.answers[f"/hop/{left}"] = redirect(f"/hop/{left - 1}")
    site.answers["/hop/0"] = reply(200, STORY)


def test_f12_five_redirects_are_followed_and_six_are_not(world):
    hops(world.site, 6)
    world.fails("fetch.redirect_loop")
    hops(world.site, 5)
    assert world.poll(hours=25)["hostile"].facts == 1


def test_f12_a_redirect_to_itself_ends(world):
    world.site.answers["/feed"] = redirect("/feed")
    world.fails("fetch.redirect_loop")
    assert len(world.site.asked()) == 6


def test_f12_a_redirect_to_anything_but_http_is_refused(world):
    schemes = ("file:///etc/passwd", "ftp://127.0.0.1/", "gopher://127.0.0.1/", "data:,x")
    for location in (*schemes, "http://[::1"):
        world.site.answers["/feed"] = redirect(location)
        world.fails("fetch.redirect_refused")


@pytest.fixture
def guarded(tmp_path):
    """A world whose hostile feed may be fetched from 127.0.0.2 alone, and a witness beside it."""
    with served("127.0.0.2") as site, served() as witness:
        made = World(tmp_path, site)
        made.change(allow_private="127.0.0.2/32")
        yield made, witness
        assert witness.seen == []
        made.store.close()


SPELLINGS = ["127.0.0.1", "[::ffff:127.0.0.1]", "0x7f.1", "127.1", "2130706433", "localhost"]


def test_f13_a_redirect_to_an_address_that_is_not_allowed_is_refused(guarded):
    world, witness = guarded
    for host in (*SPELLINGS, "good@127.0.0.1", "127.0.0.2@0x7f000001"):
        world.site.answers["/feed"] = redirect(f"http://{host}:{witness.port}/feed")
        world.fails("fetch.refused_address")


def test_f13_a_source_at_an_address_that_is_not_allowed_is_refused(guarded):
    world, witness = guarded
    for host in SPELLINGS:
        world.change(location=f"http://{host}:{witness.port}/feed")
        world.fails("fetch.refused_address")


@pytest.mark.parametrize("allow_private", ["", "any", "127.0.0.0/8,10.0.0.0/8", "168.0.0.0/7"])
def test_f13_a_clouds_credentials_are_out_of_reach(world, allow_private):
    for host in ("169.254.169.254", "[::ffff:a9fe:a9fe]", "100.100.100.200"):
        world.change(allow_private=f"127.0.0.0/8,{allow_private}")
        world.site.answers["/feed"] = redirect(f"http://{host}/latest/meta-data")
        error = world.fails("fetch.refused_address").error
        assert "which this source may not be fetched from" in error


def test_f13_a_user_that_a_redirect_brings_along_is_dropped(world):
    host = world.site.url.removeprefix("http://")
    world.site.answers["/feed"] = redirect(f"http://good:word@{host}/next")
    world.site.answers["/next"] = reply(200, STORY)
    assert world.poll()["hostile"].facts == 1
    assert ["Authorization" in headers for headers in world.site.asked("/next")] == [False]


def resolving(monkeypatch, *answers):
    """Let a name resolve to each list of addresses in turn; return the names looked up."""
    asked, left = [], list(answers)

    def lookup(host, port, answer):
        literal = host.replace(".", "").isdigit()
        asked.append(host)
        answer.put([host] if literal else left.pop(0) if len(left) > 1 else left[0])

    monkeypatch.setattr(address, "_lookup", lookup)
    return asked


def test_f14_a_name_is_looked_up_once_a_connection_and_that_address_is_dialled(
    guarded, monkeypatch
):
    world, _ = guarded
    asked = resolving(monkeypatch, ["127.0.0.2"], ["127.0.0.1"])
    world.change(location=f"http://rebinding.example:{world.site.port}/feed")
    assert world.poll(STORY)["hostile"].facts == 1
    assert asked.count("rebinding.example") == 1


def test_f14_a_name_that_moves_between_two_redirects_is_refused(guarded, monkeypatch):
    world, witness = guarded
    resolving(monkeypatch, ["127.0.0.2"], ["127.0.0.1"])
    world.change(location=f"http://rebinding.example:{world.site.port}/feed")
    world.site.answers["/feed"] = redirect(f"http://rebinding.example:{witness.port}/feed")
    world.fails("fetch.refused_address")


@pytest.mark.parametrize("addresses", [["127.0.0.2", "127.0.0.1"], ["127.0.0.1", "127.0.0.2"]])
def test_f14_one_address_that_is_not_allowed_refuses_the_name(guarded, monkeypatch, addresses):
    world, _ = guarded
    resolving(monkeypatch, addresses)
    world.change(location=f"http://mixed.example:{world.site.port}/feed")
    world.fails("fetch.refused_address")
    assert world.site.asked() == []


WRAPPED = {
    "mapped": "::ffff:7f00:1",
    "compatible": "::127.0.0.1",
    "NAT64": "64:ff9b::7f00:1",
    "NAT64 for local use": "64:ff9b:1::7f00:1",
    "6to4": "2002:7f00:1::",
    "Teredo": "2001:0:7f00:1::80ff:fffe",
    "multicast": "ff02::1",
}


def test_f15_loopback_wrapped_in_ipv6_is_refused(guarded):
    world, witness = guarded
    for host in WRAPPED.values():
        world.change(location=f"http://[{host}]:{witness.port}/feed")
        world.fails("fetch.refused_address")


def test_f15_what_cannot_be_unwrapped_is_refused_even_where_any_address_is_allowed(world):
    for kind in ("NAT64 for local use", "Teredo", "multicast"):
        world.change(location=f"http://[{WRAPPED[kind]}]/feed", allow_private="any")
        world.fails("fetch.refused_address")


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


def server_side(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


@pytest.fixture
def secured(world, authority, tmp_path):
    """Serve the hostile feed over TLS with a certificate; our own authority is trusted."""
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    world.configure(ca_file=str(file))
    opened = []

    def serve(certificate):
        opened.append(served(tls=server_side(certificate)))
        site = opened[-1].__enter__()
        site.pages["/feed"] = STORY
        world.change(location=f"{site.url}/feed")
        return site

    yield serve
    for one in opened:
        one.__exit__(None, None, None)


def test_f20_a_certificate_of_a_trusted_authority_is_taken(world, authority, secured):
    """What the others fail by is the certificate and nothing else."""
    secured(authority.issue_cert("127.0.0.1"))
    assert world.poll()["hostile"].facts == 1


def test_f20_a_certificate_that_nobody_vouches_for_is_refused(world, authority, secured):
    site = secured(trustme.CA().issue_cert("127.0.0.1"))
    error = world.fails("fetch.certificate").error
    assert "issuer certificate" in error or "self-signed" in error
    secured(authority.issue_cert("127.0.0.1"))
    world.configure(ca_file=None)
    assert "fetch.certificate" in world.poll(hours=25)["hostile"].error
    assert site.seen == []


def test_f20_an_expired_certificate_is_refused(world, authority, secured):
    yesterday = datetime.now(UTC) - timedelta(days=1)
    site = secured(authority.issue_cert("127.0.0.1", not_after=yesterday))
    assert "expired" in world.fails("fetch.certificate").error
    assert site.seen == []


def test_f20_a_certificate_for_another_host_is_refused(world, authority, secured):
    site = secured(authority.issue_cert("127.0.0.2", "other.example"))
    assert "IP address mismatch" in world.fails("fetch.certificate").error
    assert site.seen == []


def test_f20_a_name_is_held_against_the_certificate_and_not_its_address(
    world, authority, secured, monkeypatch
):
    site = secured(authority.issue_cert("right.example", "127.0.0.1"))
    resolving(monkeypatch, ["127.0.0.1"])
    for name, hours in (("right.example", 0), ("wrong.example", 25)):
        world.change(location=f"https://{name}:{site.port}/feed")
        found = world.poll(hours=hours)["hostile"]
        assert (found.error or "").startswith("fetch.certificate: ") == (name != "right.example")


def test_f20_a_server_that_speaks_no_tls_is_an_error(world):
    world.change(location=world.site.url.replace("http:", "https:") + "/feed")
    world.fails("fetch.tls")


def test_f20_a_handshake_that_never_ends_is_left_at_the_deadline(world):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        world.change(location=f"https://127.0.0.1:{silent.getsockname()[1]}/feed")
        assert_left_in_time(world, "fetch.timeout")


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_f20_an_authority_that_cannot_be_read_is_an_error_of_each_feed(tmp_path, content):
    file = tmp_path / "ca.pem"
    if content:
        file.write_text(content)
    with pytest.raises(FetchError) as caught:
        fetch("https://127.0.0.1:9/", ca_file=str(file), limits=Limits(), allowed=Allowed(any=True))
    assert caught.value.code == "fetch.ca_file"
    assert "ca_file" in caught.value.hint
