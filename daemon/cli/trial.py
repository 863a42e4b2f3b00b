"""What a source would bring, found out without storing anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from daemon import polling
from daemon.cli import registry
from daemon.polling import Source
from daemon.state import State
from ingest import Candidate, Poll
from ingest.formats import AUTO


def poll(
    state: State,
    location: str,
    allow_private: Sequence[str],
    now: datetime,
    format: str | None = None,
) -> Poll:
    """Poll a URL, a path or a stored source's name from its start.

    `format` goes before the stored one. Raises IngestError, UsageError.
    """
    config = state.config()
    source = _source(state, location, allow_private, format)
    return polling.fetch(source, config, polling.extractor(config), now)


def _source(
    state: State, location: str, allow_private: Sequence[str], format: str | None
) -> Source:
    """Return a source as if it had never been polled; a stored name goes before a path."""
    with state.store(read_only=True) as store:
        row = registry.raw(store, location)
    kind = "feed" if location.lower().startswith(("http://", "https://")) else "log"
    tier = "normal"
    if row is not None:
        kind, location, tier = row["kind"], row["location"], row["tier"]
        format = format or row["format"]
        allow_private = allow_private or (row["allow_private"],)
    format = format or AUTO
    registry.check_format(kind, format)
    return Source(
        id=0,
        name="test",
        kind=kind,
        location=location,
        tier=tier,
        state="paused",
        allowed=registry.allowed(allow_private),
        etag=None,
        last_modified=None,
        position=None,
        failures=0,
        format=format,
    )


def _candidates(found: Poll) -> list[Candidate]:
    return [one for item in found.items for one in item.candidates]


def document(found: Poll, limit: int) -> dict[str, object]:
    """Return a poll with at most ``limit`` of its facts as it is printed in JSON."""
    candidates = _candidates(found)
    return {
        "entries": len(found.items),
        "facts_found": len(candidates),
        "more": found.more,
        "facts": [_fact(one) for one in candidates[:limit]],
        "dead_letters": [
            {"location": d.location, "code": d.code, "message": d.message} for d in found.dead
        ],
    }


def _fact(one: Candidate) -> dict[str, object]:
    return {
        "subject": one.subject,
        "relation": one.relation,
        "object": one.object,
        "old": one.old,
        "quote": one.quote,
    }


def tables(
    found: Poll, limit: int
) -> Iterator[tuple[tuple[str, ...], Sequence[tuple[object, ...]]]]:
    """Yield a poll's tables: columns and rows of the facts, then of the dead letters if any."""
    shown = _candidates(found)[:limit]
    rows = [(c.subject, c.relation, c.object, c.quote) for c in shown]
    yield ("subject", "relation", "object", "quote"), rows
    if found.dead:
        dead = [(d.location, d.code, d.message) for d in found.dead]
        yield ("dead letter", "code", "what is wrong"), dead


def summary(found: Poll, limit: int) -> str:
    """Return a poll in one sentence."""
    count = len(_candidates(found))
    rest = " There is more to read." if found.more else ""
    return (
        f"{len(found.items)} entries, {count} facts ({min(count, limit)} shown), "
        f"{len(found.dead)} dead letters. Nothing was stored.{rest}"
    )
