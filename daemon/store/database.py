"""The connection, transactions, transitions and the audit log. Contains no rules of its own."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daemon.errors import Conflict, IntegrityError, NotFound, WisedError
from daemon.store.lifecycle import next_state
from daemon.store.schema import APPLICATION_ID, MIGRATIONS

if TYPE_CHECKING:
    from sqlite_utils import Database
    from sqlite_utils.db import Table

FILE = "wised.db"
GENESIS = "0" * 64
#: what durability and safety rest on; SQLite's defaults differ from build to build
SETTINGS = {
    "synchronous": 2,  # FULL: a commit outlives a power cut
    "foreign_keys": 1,
    "trusted_schema": 0,
    "busy_timeout": 30_000,  # milliseconds
}
_KEYS = {"fact": "id", "release": "number"}


def timestamp(now: datetime) -> str:
    """Return an aware time as the text that is stored: UTC, microseconds, sortable."""
    return now.astimezone(UTC).isoformat(timespec="microseconds")


class Store:
    """The database of a state folder. One store a thread; transactions wait for each other.

    With ``migrate`` it is made where there is none, and an older schema brought up to date: for the
    daemon that holds the lock and for a new state. A daemon of an older version could not go on.
    """

    def __init__(
        self,
        folder: Path,
        *,
        actor: str = "daemon",
        read_only: bool = False,
        migrate: bool = False,
    ) -> None:
        self.folder, self.actor = folder, actor
        path = folder / FILE
        mode = "ro" if read_only else "rwc" if migrate else "rw"
        uri = f"{path.resolve().as_uri()}?mode={mode}"
        try:
            self.connection = sqlite3.connect(uri, timeout=30, isolation_level=None, uri=True)
        except sqlite3.OperationalError as error:
            raise NotFound(
                f"{path}: {error}", hint="wised init DIR makes a state folder"
            ) from error
        self.connection.row_factory = sqlite3.Row
        try:
            self._settle(read_only, migrate)
        except sqlite3.OperationalError as error:  # locked, unreadable, full: not damaged
            self.close()
            hint = "try again; is the disk full?"  # even to read, SQLite may need 32 KiB of it
            raise WisedError(f"{path}: {error}", hint) from error
        except sqlite3.DatabaseError as error:
            self.close()
            raise IntegrityError(f"{path}: {error}", hint="restore a backup") from error
        except BaseException:
            self.close()
            raise

    def _settle(self, read_only: bool, migrate: bool) -> None:
        """Set and assert what durability rests on; bring the schema up to date with ``migrate``."""
        self._check_kind()
        for name, value in SETTINGS.items():
            self.connection.execute(f"PRAGMA {name} = {value}")
        if not read_only:
            self.connection.execute("PRAGMA journal_mode = WAL")
            self._check_setting("journal_mode", "wal")
        if migrate:
            self._migrate()
        self._check_version()
        for name, value in SETTINGS.items():
            self._check_setting(name, value)

    def _check_kind(self) -> None:
        """Raise IntegrityError for a database that something else has made; change nothing."""
        if self._version() == 0 and not self.rows("SELECT 1 FROM sqlite_schema LIMIT 1"):
            return  # a new one
        if self._pragma("application_id") != APPLICATION_ID:
            raise IntegrityError(
                f"{self.folder / FILE}: this is no database of wised",
                hint="name the state folder with --state DIR or WISED_STATE",
            )

    def _check_version(self) -> None:
        version = self._version()
        if version != len(MIGRATIONS):
            older = version < len(MIGRATIONS)
            raise IntegrityError(
                f"{self.folder / FILE}: schema {version}, this wised knows {len(MIGRATIONS)}",
                hint="wised run brings it up to date"
                if older
                else "use the wised that wrote it, or a newer one",
            )

    def _check_setting(self, name: str, wanted: object) -> None:
        """Ask for a setting again: a build may lack one, a file system allow no WAL."""
        found = self._pragma(name)
        if found != wanted:
            raise IntegrityError(
                f"{self.folder / FILE}: {name} is {found} and has to be {wanted}",
                hint="keep the state folder on a local disk, where SQLite"
                f" {sqlite3.sqlite_version} can do that",
            )

    def _pragma(self, name: str) -> object:
        row = self.connection.execute(f"PRAGMA {name}").fetchone()
        return None if row is None else row[0]

    def _version(self) -> int:
        version = self._pragma("user_version")
        assert isinstance(version, int)
        return version

    def _migrate(self) -> None:
        """Run the migrations that have not run, each with its record and check in a transaction."""
        if self._version() >= len(MIGRATIONS):
            return
        # NOTE: a table that others refer to can't be made anew with this on, and within a
        # transaction it can't be switched off; the check before the commit takes its place.
        self.connection.execute("PRAGMA foreign_keys = OFF")
        try:
            while self._version() < len(MIGRATIONS):
                with self.write():
                    self._migrate_once()
        finally:
            self.connection.execute("PRAGMA foreign_keys = ON")

    def _migrate_once(self) -> None:
        """Run the next migration, unless another process has come first."""
        number = self._version()
        if number >= len(MIGRATIONS):
            return
        for statement in _statements(MIGRATIONS[number]):
            self.connection.execute(statement)
        if broken := self.rows("PRAGMA foreign_key_check"):
            raise IntegrityError(
                f"{self.folder / FILE}: {len(broken)} rows refer to rows that are missing",
                hint="restore a backup",
            )
        self.connection.execute(f"PRAGMA user_version = {number + 1}")
        self.connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    def __enter__(self) -> Store:
        """Return the store; leaving the block closes it."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the connection."""
        self.close()

    @contextmanager
    def write(self) -> Iterator[None]:
        """Run the block as one transaction that takes the write lock at once.

        A deferred BEGIN would fail with "database is locked" when two writers upgrade.
        """
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.connection.execute("COMMIT")
        except BaseException:
            if self.connection.in_transaction:  # SQLite may have rolled back by itself
                self.connection.execute("ROLLBACK")
            raise

    @cached_property
    def db(self) -> Database:
        """The connection as sqlite-utils has it.

        Importing that takes a fifth of a second, so what must be quick (status, rollback, an
        event) does with plain statements.
        """
        from sqlite_utils import Database

        return Database(self.connection)

    def table(self, name: str) -> Table:
        """Return a table to insert into or update by its key."""
        from sqlite_utils.db import Table

        found = self.db[name]
        assert isinstance(found, Table)
        return found

    def insert(self, name: str, row: dict[str, Any]) -> int:
        """Insert a row into a table with an integer key; return the key."""
        key = self.table(name).insert(row).last_pk
        assert isinstance(key, int)
        return key

    def rows(self, sql: str, *values: object) -> list[sqlite3.Row]:
        """Return the rows of a constant query."""
        return self.connection.execute(sql, values).fetchall()

    def one(self, sql: str, *values: object) -> sqlite3.Row | None:
        """Return the first row of a constant query."""
        row: sqlite3.Row | None = self.connection.execute(sql, values).fetchone()
        return row

    def transition(
        self, kind: str, key: int, event: str, now: datetime, reason: str = "", **also: Any
    ) -> str:
        """Move a fact or release along its life cycle inside `write`; return the new state.

        ``also`` sets further columns in the same statement. Raises NotFound, and Conflict when
        the life cycle has no such step or another process moved it first.
        """
        column = _KEYS[kind]
        row = self.one(f"SELECT state, rev FROM {kind} WHERE {column} = ?", key)
        if row is None:
            raise NotFound(f"no {kind} {key}")
        state = next_state(kind, row["state"], event)
        changes = {"state": state, "reason": reason, **also}
        sets = ", ".join(f"{name} = ?" for name in changes)
        done = self.connection.execute(
            f"UPDATE {kind} SET {sets}, rev = rev + 1 WHERE {column} = ? AND rev = ?",
            (*changes.values(), key, row["rev"]),
        )
        if done.rowcount != 1:
            raise Conflict(f"{kind} {key} was changed by another process")
        data = {"from": row["state"], "to": state, "reason": reason}
        self.event(f"{kind}.{event}", f"{kind}:{key}", data, now)
        return state

    def event(self, action: str, subject: str, data: dict[str, Any], now: datetime) -> None:
        """Append one row to the audit log, chained to the row before by its hash."""
        last = self.one("SELECT hash FROM event ORDER BY seq DESC LIMIT 1")
        row = {
            "at": timestamp(now),
            "actor": self.actor,
            "action": action,
            "subject": subject,
            "data": json.dumps(data, sort_keys=True, ensure_ascii=False),
            "previous_hash": last["hash"] if last else GENESIS,
        }
        self.connection.execute(
            "INSERT INTO event (at, actor, action, subject, data, previous_hash, hash)"
            " VALUES (:at, :actor, :action, :subject, :data, :previous_hash, :hash)",
            {**row, "hash": _chain(row)},
        )

    def verify_events(self) -> int:
        """Return how many events there are; raises IntegrityError at the first broken link."""
        before, count = GENESIS, 0
        for row in self.connection.execute("SELECT * FROM event ORDER BY seq"):
            plain = {k: row[k] for k in ("at", "actor", "action", "subject", "data")}
            plain["previous_hash"] = before
            count += 1
            if row["seq"] != count or row["hash"] != _chain(plain):
                raise IntegrityError(f"the audit log is broken at event {row['seq']}")
            before = row["hash"]
        return count


def _chain(row: dict[str, str]) -> str:
    text = json.dumps(row, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _statements(script: str) -> Iterator[str]:
    """Split a script, keeping triggers whole; `executescript` would commit in between."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
