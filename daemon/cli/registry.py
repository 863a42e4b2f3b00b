"""The sources as rows: finding, adding, pausing, removing. Contains no rendering and no polling."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from daemon import schedule
from daemon.errors import Conflict, NotFound, Refused, UsageError
from daemon.store import Store, timestamp
from ingest import FetchError
from ingest.formats import AUTO, FORMATS
from ingest.networks import Allowed
from ingest.urls import checked, redact

#: the source that facts added by hand come from; it is never polled
OPERATOR = "operator"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
#: state before, by the change asked for
_FROM = {"pause": ("active",), "resume": ("paused", "gone"), "remove": ("active", "paused", "gone")}
_TO = {"pause": "paused", "resume": "active", "remove": "removed"}


LETTERS_SHOWN = 5  #: of a source


@dataclass(frozen=True, slots=True)
class Described:
    """A source with what its polls came to."""

    id: int
    name: str
    kind: str  #: ``feed`` or ``log``
    location: str  #: as shown: without passwords and query values
    format: str | None  #: of a log's rows; None for a feed
    tier: str
    state: str
    allow_private: tuple[str, ...]  #: networks, or ``any``
    failures: int  #: in a row
    last_error: str | None
    last_ok_at: datetime | None  #: None before the first good poll
    next_poll_at: datetime
    last_full_at: datetime | None  #: a feed's last whole document
    proposed_url: str | None  #: where a feed says it has moved for good, as shown
    entries: int
    facts: int  #: that an entry of the source supports
    dead_letters: int
    dropped: int  #: facts dropped over a quota, ever


@dataclass(frozen=True, slots=True)
class NewSource:
    """A source as the operator asks for it."""

    name: str
    kind: str
    location: str
    tier: str
    allow_private: Allowed
    format: str = AUTO  #: of a log's rows


_DESCRIBE = (
    "SELECT source.*,"
    " (SELECT count(*) FROM entry WHERE source_id = source.id) AS entries,"
    " (SELECT count(DISTINCT fact_id) FROM evidence JOIN entry ON entry.id = entry_id"
    "  WHERE source_id = source.id) AS facts,"
    " (SELECT count(*) FROM dead_letter WHERE source_id = source.id) + letters_dropped"
    "  AS dead_letters,"
    " (SELECT coalesce(sum(facts), 0) FROM dropped WHERE source_id = source.id) AS dropped"
    " FROM source"
)


def _described(row: sqlite3.Row) -> Described:
    move = schedule.move(row["moved_to"], row["moved_polls"])
    return Described(
        id=row["id"],
        name=row["name"],
        kind=row["kind"],
        location=redact(row["location"]) if row["kind"] == "feed" else row["location"],
        format=row["format"] if row["kind"] == "log" else None,
        tier=row["tier"],
        state=row["state"],
        allow_private=Allowed.parse((row["allow_private"],)).words,
        failures=row["failures"],
        last_error=row["last_error"],
        last_ok_at=_moment(row["last_ok_at"]),
        next_poll_at=datetime.fromisoformat(row["next_poll_at"]),
        last_full_at=_moment(row["last_full_at"]),
        proposed_url=redact(move.url) if move is not None and move.is_proposed else None,
        entries=row["entries"],
        facts=row["facts"],
        dead_letters=row["dead_letters"],
        dropped=row["dropped"],
    )


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def described(store: Store) -> list[Described]:
    """Return all sources that were not removed, by name."""
    rows = store.rows(_DESCRIBE + " WHERE state != 'removed' ORDER BY name")
    return [_described(row) for row in rows]


def describe(store: Store, name: str) -> Described:
    """Return one source, a removed one too; raises NotFound."""
    row = store.one(_DESCRIBE + " WHERE name = ?", name)
    if row is None:
        raise NotFound(f"no source {name!r}", hint="wised source list shows them")
    return _described(row)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A row or an entry that could not be read."""

    received_at: datetime
    location: str  #: in its source: a file and an offset, an entry's title
    code: str
    message: str


def dead_letters(store: Store, source_id: int, limit: int = LETTERS_SHOWN) -> list[DeadLetter]:
    """Return a source's newest dead letters, the newest first."""
    rows = store.rows(
        "SELECT received_at, location, code, message FROM dead_letter"
        " WHERE source_id = ? ORDER BY id DESC LIMIT ?",
        source_id,
        limit,
    )
    return [DeadLetter(datetime.fromisoformat(at), *rest) for at, *rest in rows]


def raw(store: Store, name: str) -> sqlite3.Row | None:
    """Return a source's row, or None: the location in it may hold a password."""
    return store.one("SELECT * FROM source WHERE name = ?", name)


def requested(
    kind: str,
    location: str,
    name: str | None,
    tier: str,
    allow_private: Sequence[str] = (),
    format: str = AUTO,
) -> NewSource:
    """Check what the operator gave; raises UsageError, Refused for the operator's own name."""
    if kind == "log":
        location = os.path.abspath(location)
    else:
        check_url(location)
    name = name or _name_of(kind, location)
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} can't name a source",
            hint="name it with --name: letters, digits, '.', '_' and '-', at most 64",
        )
    check_not_ours(name)
    check_format(kind, format)
    return NewSource(name, kind, location, tier, allowed(allow_private), format)


def check_format(kind: str, format: str) -> None:
    """Raise UsageError for a format that is not known, or given for a feed."""
    if format != AUTO and format not in FORMATS:
        known = ", ".join((AUTO, *FORMATS))
        raise UsageError(f"no format {format!r}", hint=f"--format is one of {known}")
    if format != AUTO and kind == "feed":
        raise UsageError("a feed tells its own format", hint="--format is for correction logs")


def allowed(networks: Sequence[str]) -> Allowed:
    """Return the private addresses that the operator lists; raises UsageError."""
    try:
        return Allowed.parse(networks)
    except ValueError as error:
        raise UsageError(
            f"--allow-private: {error}", hint="give networks such as 10.0.0.0/8, or any"
        ) from error


def check_url(location: str) -> None:
    """Raise UsageError for a URL that can't be fetched."""
    try:
        checked(location)
    except FetchError as error:
        raise UsageError(error.message, hint=error.hint or "give an http or https URL") from error


def _name_of(kind: str, location: str) -> str:
    return Path(location).stem if kind == "log" else urlsplit(location).hostname or ""


def check_not_ours(name: str) -> None:
    """Raise Refused for the operator's own source."""
    if name == OPERATOR:
        raise Refused(
            f"the source {OPERATOR!r} holds what wised fact add brings and is never polled",
            hint="choose another name",
        )


def add(store: Store, new: NewSource, now: datetime, reason: str = "") -> str:
    """Store a source, due at once; return its state, ``already_<state>`` when it is there.

    A removed source of that name is revived and read from the start: entries that are stored
    are skipped. Raises Conflict when the name stands for another source.
    """
    with store.write():
        old = raw(store, new.name)
        if old is not None and old["state"] != "removed":
            if _same(old, new):
                return f"already_{old['state']}"
            raise Conflict(
                f"there is another source {new.name!r}",
                hint="choose another --name, or remove that one first",
            )
        if old is None:
            row = {**_fresh(new, now), "name": new.name, "created_at": timestamp(now)}
            store.db.table("source").insert(row)
        else:
            store.db.table("source").update(old["id"], _fresh(new, now))
        before = old["state"] if old else None
        _record(store, "add", new.name, before, "active", reason, now)
    return "active"


def _fresh(new: NewSource, now: datetime) -> dict[str, object]:
    """Return the columns of a source that was never polled and is due at once."""
    return {
        "kind": new.kind,
        "location": new.location,
        "format": new.format,
        "tier": new.tier,
        "allow_private": str(new.allow_private),
        "state": "active",
        "next_poll_at": timestamp(now),
        **unread(),
    }


def unread() -> dict[str, object]:
    """Return the columns of a source of whose polls nothing is known."""
    position = ("log_offset", "log_fingerprint", "log_tail", "log_inode")
    told = ("etag", "last_modified", "last_full_at", "last_error", "moved_to", *position)
    return {"failures": 0, "moved_polls": 0, **dict.fromkeys(told)}


def _same(row: sqlite3.Row, new: NewSource) -> bool:
    stored = (row["kind"], row["location"], row["format"], row["tier"], row["allow_private"])
    return stored == (new.kind, new.location, new.format, new.tier, str(new.allow_private))


def change(store: Store, name: str, event: str, reason: str, now: datetime) -> str:
    """Pause, resume or remove a source; return its state, ``already_<state>`` when it is so.

    A removed source keeps its row, so that facts keep their evidence. Raises NotFound, Conflict,
    and Refused for the operator's own source.
    """
    check_not_ours(name)
    target = _TO[event]
    with store.write():
        old = describe(store, name)
        if old.state == target:
            return f"already_{target}"
        if old.state not in _FROM[event]:
            raise Conflict(f"cannot {event} a source that is {old.state}", hint="wised source add")
        values: dict[str, object] = {"state": target}
        if event == "resume":
            values |= {"next_poll_at": timestamp(now), "failures": 0, "last_error": None}
        store.db.table("source").update(old.id, values)
        _record(store, event, name, old.state, target, reason, now)
    return target


def _record(
    store: Store,
    event: str,
    name: str,
    before: str | None,
    after: str,
    reason: str,
    now: datetime,
) -> None:
    source = describe(store, name)
    data = {"name": name, "location": source.location, "tier": source.tier}
    if source.format is not None:
        data["format"] = source.format
    if source.allow_private:
        data["allow_private"] = ",".join(source.allow_private)
    data |= {"from": before or "", "to": after, "reason": reason}
    store.event(f"source.{event}", f"source:{source.id}", data, now)


def operator_source(store: Store, now: datetime) -> int:
    """Return the id of the source of facts added by hand, made when missing, in a transaction."""
    row = raw(store, OPERATOR)
    if row is not None:
        return int(row["id"])
    values = {
        "name": OPERATOR,
        "kind": "log",
        "location": OPERATOR,
        "tier": "trusted",
        "state": "paused",
        "next_poll_at": timestamp(now),
        "created_at": timestamp(now),
    }
    store.db.table("source").insert(values)
    _record(store, "add", OPERATOR, None, "paused", "facts added by hand", now)
    return describe(store, OPERATOR).id
