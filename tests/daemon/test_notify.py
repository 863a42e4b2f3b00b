"""Datagrams to a socket like systemd's, with a path and abstract."""

import os
import socket
import time
import uuid

import pytest

from daemon.observe.notify import MAX_STATUS_CHARS, Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    """A socket that takes notifications, and its address as systemd writes it."""
    name = f"{tmp_path}/notify" if request.param == "path" else f"@wised-{uuid.uuid4()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as taken:
        taken.bind(name.replace("@", "\0", 1))
        taken.settimeout(5)
        yield taken, name


def words(taken):
    return taken.recv(4096).decode().split("\n")


def test_each_word_is_one_datagram(manager):
    taken, address = manager
    notifier = Notifier.of({"NOTIFY_SOCKET": address})
    notifier.ready()
    notifier.ping()
    notifier.stopping()
    notifier.extend(1.5)
    assert [words(taken) for _ in range(4)] == [
        ["READY=1"],
        ["WATCHDOG=1"],
        ["STOPPING=1"],
        ["EXTEND_TIMEOUT_USEC=1500000"],
    ]


def test_reloading_says_since_when_and_ends_ready_however_it_ends(manager):
    taken, address = manager
    notifier = Notifier.of({"NOTIFY_SOCKET": address})
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    with pytest.raises(ValueError), notifier.reloading():
        raise ValueError
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    first, since = words(taken)
    assert first == "RELOADING=1"
    assert before <= int(since.removeprefix("MONOTONIC_USEC=")) <= after
    assert words(taken) == ["READY=1"]


def test_the_status_is_one_harmless_line(manager):
    taken, address = manager
    notifier = Notifier.of({"NOTIFY_SOCKET": address})
    notifier.status("failing\nREADY=1\x1b[2J" + "x" * 1000)
    (line,) = words(taken)
    assert line.startswith("STATUS=failing\\x0aREADY=1\\x1b[2J")
    assert len(line) == len("STATUS=") + MAX_STATUS_CHARS


@pytest.mark.parametrize("address", ["", "relative", "/nowhere/at/all", "@nobody-listens-here"])
def test_without_a_manager_nothing_happens(address):
    Notifier.of({"NOTIFY_SOCKET": address}).ready()
    Notifier.of({}).ready()


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "120000000"}, 120.0),
        ({"WATCHDOG_USEC": "120000000", "WATCHDOG_PID": str(os.getpid())}, 120.0),
        ({"WATCHDOG_USEC": "120000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
    ],
)
def test_the_watchdog_is_what_the_environment_says(environment, seconds):
    assert Notifier.of(environment).watchdog_seconds == seconds
