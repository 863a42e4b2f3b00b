"""The port: three pages, nothing else, and no client can hold it up."""

import http.client
import socket
import threading
import time

import pytest

from daemon.observe import server
from daemon.observe.server import Endpoint, Page

PAGES = {
    "/livez": Page(200, "alive\n"),
    "/readyz": Page(503, "the store: locked\n"),
    "/metrics": Page(200, "wised_up 1.0\n"),
}


@pytest.fixture
def port():
    endpoint = Endpoint("127.0.0.1", 0, PAGES.get)
    yield endpoint.port
    endpoint.close()


def ask(port, path, method="GET", body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer
    finally:
        connection.close()


def raw(port, sent, seconds=10):
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as client:
        client.sendall(sent)
        parts = []
        try:
            while part := client.recv(4096):
                parts.append(part)
        except ConnectionResetError:
            pass
        return b"".join(parts)


@pytest.mark.parametrize("path", PAGES)
def test_each_page_is_handed_out(port, path):
    status, body, answer = ask(port, f"{path}?x=1")
    assert (status, body) == (PAGES[path].status, PAGES[path].body)
    assert answer.getheader("Cache-Control") == "no-store"
    assert "Python" not in answer.getheader("Server")


def test_head_has_no_body(port):
    status, body, answer = ask(port, "/livez", "HEAD")
    assert (status, body, answer.getheader("Content-Length")) == (200, "", "6")


@pytest.mark.parametrize(
    "path", ["/", "/../config.toml", "/metrics/", "/livez/x", "/%2e%2e/", "/status"]
)
def test_anything_else_is_not_there(port, path):
    status, body, _ = ask(port, path)
    assert (status, body) == (404, "not found\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT"])
def test_nothing_can_be_sent(port, method):
    assert ask(port, "/livez", method, "x")[0] == 501


def test_a_refusal_does_not_repeat_what_was_sent(port):
    said = raw(port, b"GET /<script>alert(1)</script> HTTP/9.9.9\r\n\r\n")
    assert b"script" not in said
    assert said.endswith(b"bad request\n")


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n" + b"".join(b"X%d: 1\r\n" % n for n in range(500)) + b"\r\n",
        b"GET /livez HTTP/1.1\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"\x00\xff\x16\x03\x01 tls hello\r\n\r\n",
    ],
    ids=["path", "headers", "header", "garbage"],
)
def test_too_much_and_garbage_are_refused_and_the_port_lives(port, sent):
    said = raw(port, sent)
    assert b" 200 " not in said
    assert ask(port, "/livez")[0] == 200


def test_clients_that_drip_or_say_nothing_are_cut_off_and_hold_nobody_up(port, monkeypatch):
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.5)
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(server.MAX_REQUESTS)]
    dripping = silent[0]
    stop = threading.Event()

    def drip():
        try:
            while not stop.wait(0.1):
                dripping.sendall(b"G")
        except OSError:
            return

    thread = threading.Thread(target=drip)
    thread.start()
    until = time.monotonic() + 10
    while True:
        try:
            if ask(port, "/livez")[0] == 200:
                break
        except (OSError, http.client.HTTPException):
            assert time.monotonic() < until, "the port was held up"
            time.sleep(0.1)
    stop.set()
    thread.join()
    for client in silent:
        client.close()


def test_a_port_that_is_taken_is_an_error(port):
    with pytest.raises(OSError, match="in use"):
        Endpoint("127.0.0.1", port, PAGES.get)


def test_it_listens_on_ipv6_too():
    try:
        endpoint = Endpoint("::1", 0, PAGES.get)
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with socket.create_connection(("::1", endpoint.port)) as client:
        client.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
        assert b" 200 " in client.recv(4096)
    endpoint.close()
