"""The state folder: where each thing lies, and the lock that makes the daemon the only one."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.errors import Conflict, NotFound, NotRunning
from daemon.store import FILE, Store, keys

if TYPE_CHECKING:
    from daemon.config import Config


@dataclass(frozen=True, slots=True)
class State:
    """A state folder made by ``wised init``."""

    folder: Path

    @property
    def config_file(self) -> Path:
        """The configuration of this state."""
        return self.folder / "config.toml"

    @property
    def releases(self) -> Path:
        """One folder a release."""
        return self.folder / "releases"

    @property
    def current(self) -> Path:
        """Symbolic link to the promoted release, derived from the database; none for release 0."""
        return self.folder / "current"

    @property
    def logs(self) -> Path:
        """Status logs and the worker's standard error."""
        return self.folder / "logs"

    @property
    def status_file(self) -> Path:
        """What ``wised status --json`` prints, written by the running daemon."""
        return self.folder / "status.json"

    @property
    def lock_file(self) -> Path:
        """Held by the running daemon."""
        return self.folder / "lock"

    @property
    def running_file(self) -> Path:
        """The configuration that the daemon took over last; its worker reads this one."""
        return self.folder / "running.json"

    def config(self) -> Config:
        """Read the configuration; raises UsageError that lists every problem."""
        from daemon import config  # its models take a while to build; status needs none

        self.check()
        return config.load(self.config_file)

    def write_running(self, config: Config) -> None:
        """Write down the configuration in force: `config.toml` may change at any time."""
        self.draft_running(config).replace(self.running_file)

    def draft_running(self, config: Config) -> Path:
        """Write down a configuration beside the one in force; the caller puts it in its place.

        Whatever needs room on the disk is done by then.
        """
        draft = self.running_file.with_suffix(".tmp")
        draft.write_text(config.model_dump_json(indent=1) + "\n", "utf-8")
        return draft

    def store(
        self, actor: str = "daemon", *, read_only: bool = False, migrate: bool = False
    ) -> Store:
        """Open the database; ``migrate`` brings an older one up to date, under the lock."""
        self.check()
        return Store(self.folder, actor=actor, read_only=read_only, migrate=migrate)

    def check(self) -> None:
        """Raise NotFound unless this is a state folder."""
        if not (self.folder / FILE).exists():
            raise NotFound(
                f"{self.folder}: no wised state here",
                hint="wised init DIR makes one; name it with --state DIR or WISED_STATE",
            )

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only daemon of this state for the block; raises NotRunning with the holder.

        The kernel lets go of the lock when the process ends, however it ends.
        """
        handle = os.open(self.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # NOTE: `daemon()` holds a shared lock for an instant, so one refusal proves nothing.
        if not any(_try_lock(handle, wait) for wait in (0, 0.05, 0.1, 0.2)):
            holder = os.read(handle, 200).decode("utf-8", "replace").strip()
            os.close(handle)
            raise NotRunning(
                f"another wised runs on {self.folder}: {holder}", hint="stop it, or wait for it"
            )
        try:
            since = datetime.now(UTC).isoformat(timespec="seconds")
            os.ftruncate(handle, 0)
            holder = f"pid {os.getpid()} on {socket.gethostname()} since {since}\n"
            os.pwrite(handle, holder.encode(), 0)
            yield
        finally:
            os.ftruncate(handle, 0)
            os.close(handle)

    def signal(self, *numbers: signal.Signals) -> int:
        """Send signals to the running daemon, one after the other; return its process id.

        Raises NotRunning when there is none, Conflict when it runs on another machine.
        """
        holder = self.daemon()
        if holder is None:
            raise NotRunning(f"no wised runs on {self.folder}", hint="wised run starts one")
        found = re.match(r"pid (\d+) on (\S+)", holder)
        if found is None:
            raise NotRunning(f"{self.lock_file}: a wised is starting or ending: {holder!r}")
        if found[2] != socket.gethostname():
            raise Conflict(f"that wised runs elsewhere: {holder}", hint=f"log in to {found[2]}")
        pid = int(found[1])
        try:
            for number in numbers:
                os.kill(pid, number)
        except ProcessLookupError as error:
            raise NotRunning(f"pid {pid} has just ended") from error
        return pid

    def daemon(self) -> str | None:
        """Return who holds the lock, or None when no daemon runs."""
        if not self.lock_file.exists():
            return None
        handle = os.open(self.lock_file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return os.read(handle, 200).decode("utf-8", "replace").strip()
        finally:
            os.close(handle)
        return None


def _try_lock(handle: int, wait: float) -> bool:
    time.sleep(wait)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def init(folder: Path, now: datetime, config_text: str | None = None) -> State:
    """Make a state folder: configuration, database, release 0. An existing one is left alone."""
    from daemon import config

    state = State(folder)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    # tmp: where the unit and the image point TMPDIR, and a mounted folder has to have it.
    for path in (state.releases, state.logs, folder / "tmp"):
        path.mkdir(exist_ok=True, mode=0o700)
    if not state.config_file.exists():
        text = config_text or config.default_file().read_text("utf-8")
        state.config_file.write_text(text, "utf-8")
    held = config.load(state.config_file)
    alone = state.daemon() is None  # one of an older version could not go on
    with Store(folder, actor="init", migrate=alone) as store, store.write():
        if store.one("SELECT number FROM release") is None:
            at = now.astimezone(UTC).isoformat(timespec="microseconds")
            row = {"number": 0, "state": "promoted", "created_at": at, "promoted_at": at}
            store.table("release").insert(row)
            store.event("release.bare", "release:0", {"to": "promoted"}, now)
            keys.record(store, held.subjects)
    return state
