"""Words to systemd: the datagrams of sd_notify(3)."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from daemon.render import safe_text

MAX_STATUS_CHARS = 200


@dataclass(frozen=True, slots=True)
class Notifier:
    """Tells the service manager that started the daemon, if one did."""

    address: str = ""  #: of its socket; ``@`` begins an abstract one; empty: nobody listens
    watchdog_seconds: float | None = None  #: without a ping for so long it ends the daemon

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Notifier:
        """Read what systemd told this process."""
        address = environment.get("NOTIFY_SOCKET", "")
        try:
            seconds = int(environment.get("WATCHDOG_USEC", "")) / 1e6
        except ValueError:
            seconds = 0.0
        if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
            seconds = 0.0
        return cls(address if address[:1] in ("/", "@") else "", seconds or None)

    def tell(self, *lines: str) -> None:
        """Send assignments such as ``READY=1``; a manager that is gone changes nothing."""
        if not self.address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
            out.settimeout(1.0)
            try:
                out.sendto("\n".join(lines).encode(), self.address.replace("@", "\0", 1))
            except OSError:
                return

    def ready(self) -> None:
        """Say that the daemon can do its work."""
        self.tell("READY=1")

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """Say that the configuration is read again for the block; refused or not, it ends ready."""
        self.tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            yield
        finally:
            self.ready()

    def stopping(self) -> None:
        """Say that the daemon is on its way out."""
        self.tell("STOPPING=1")

    def status(self, text: str) -> None:
        """Say in one line how the service stands."""
        self.tell(f"STATUS={safe_text(text)[:MAX_STATUS_CHARS]}")

    def extend(self, seconds: float) -> None:
        """Ask for so much more time to start or to stop in."""
        self.tell(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def ping(self) -> None:
        """Say that all is well, for another `watchdog_seconds`."""
        self.tell("WATCHDOG=1")
