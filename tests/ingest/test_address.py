"""The connect-time guard."""

import httpcore2
import pytest

from ingest import address
from ingest.address import Deadline, GuardedBackend, is_public, resolve
from ingest.errors import FetchError


@pytest.mark.parametrize("text", ["93.184.216.34", "2606:4700::1111", "64:ff9b::5db8:d822"])
def test_public_addresses_are_public(text):
    assert is_public(text)


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1",
        "0.0.0.0",
        "10.1.2.3",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1%eth0",
        "fd00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
    ],
)
def test_private_addresses_are_not_public_however_they_are_written(text):
    assert not is_public(text)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "0x7f.1", "2130706433", "localhost"])
def test_the_guard_refuses_loopback_in_every_spelling(host):
    backend = GuardedBackend(Deadline(5), allow_private=False)
    with pytest.raises(FetchError) as caught:
        backend.connect_tcp(host, 80, timeout=1)
    assert caught.value.code == "fetch.refused_address"


def test_one_private_address_among_public_ones_refuses_the_host(monkeypatch):
    monkeypatch.setattr(address, "resolve", lambda *_: ["93.184.216.34", "127.0.0.1"])
    with pytest.raises(FetchError) as caught:
        GuardedBackend(Deadline(5), allow_private=False).connect_tcp("mixed.example", 80)
    assert caught.value.code == "fetch.refused_address"


def test_a_name_is_resolved_once_so_that_the_checked_address_is_dialled(monkeypatch):
    answers = iter([["93.184.216.34"], ["127.0.0.1"]])
    dialled = []

    class Dialler(httpcore2.NetworkBackend):
        def connect_tcp(self, host, *rest, **more):
            dialled.append(host)
            return httpcore2.NetworkStream()

    monkeypatch.setattr(address, "resolve", lambda *_: next(answers))
    monkeypatch.setattr(address.httpcore2, "SyncBackend", Dialler)
    GuardedBackend(Deadline(5), allow_private=False).connect_tcp("rebinding.example", 80)
    assert dialled == ["93.184.216.34"]


def test_a_resolver_that_never_answers_ends_in_a_timeout(monkeypatch):
    monkeypatch.setattr(address, "_lookup", lambda *_: None)
    with pytest.raises(httpcore2.ConnectTimeout):
        resolve("slow.example", 80, timeout=0.05)


def test_an_overlong_label_does_not_resolve_rather_than_crash():
    with pytest.raises(httpcore2.ConnectError):
        resolve("a" * 70 + ".example", 80, timeout=5)


def test_the_deadline_clips_timeouts_and_then_ends():
    time = [0.0]
    deadline = Deadline(10, clock=lambda: time[0])
    assert deadline.clip(None) == 10
    assert deadline.clip(3) == 3
    time[0] = 8
    assert deadline.clip(3) == 2
    time[0] = 10
    with pytest.raises(httpcore2.ReadTimeout):
        deadline.clip(3)
