"""What a source would bring, found out without storing anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from daemon import polling, quotas
from daemon.cli import registry
from daemon.polling import Source
from daemon.state import State
from ingest import Candidate, Poll, poll_document
from ingest.formats import AUTO
from policies import Quota


def poll(
    state: State,
    location: str,
    allow_private: Sequence[str],
    now: datetime,
    format: str | None = None,
) -> Poll:
    """Poll a URL, a path or a stored source's name from its start.

    A path is a correction log's or a feed document's. `format` goes before the stored one. Raises
    IngestError, UsageError.
    """
    config = state.config()
    source, extract = _source(state, location, allow_private, format), polling.extractor(config)
    if source.kind == "log" and format is None:
        document = poll_document(Path(source.location), extract, now)
        if document is not None:
            return document
    return polling.fetch(source, config, extract, now)


def _kind(location: str) -> str:
    return "feed" if location.lower().startswith(("http://", "https://")) else "log"


def _source(
    state: State, location: str, allow_private: Sequence[str], format: str | None
) -> Source:
    """Return a source as if it had never been polled; a stored name goes before a path."""
    with state.store(read_only=True) as store:
        row = registry.raw(store, location)
    kind = _kind(location)
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


@dataclass(frozen=True, slots=True)
class Over:
    """A quota that the poll would be over if it were a real one now."""

    quota: str  #: name of its key in the configuration
    facts: int  #: too many by
    waits: bool  #: they would be left in the log for later; otherwise dropped
    source: str  #: whose facts

    def __str__(self) -> str:
        """Return it as a sentence."""
        facts = "1 fact" if self.facts == 1 else f"{self.facts} facts"
        what = "would wait in the log" if self.waits else "would be dropped, and counted"
        return f"Over {self.quota}: {facts} of {self.source} {what}."


def over(state: State, location: str, found: Poll, now: datetime) -> tuple[Over, ...]:
    """Return the quotas that this poll would be over; entries that are stored bring nothing."""
    with state.store(read_only=True) as store:
        row = registry.raw(store, location)
        source_id, tier, kind = (
            (row["id"], row["tier"], row["kind"]) if row else (None, "normal", "")
        )
        is_log = (kind or _kind(location)) == "log"
        new = sum(
            len(item.candidates)
            for item in found.items
            if source_id is None or not polling.is_stored(store, source_id, item.entry)
        )
        seen = quotas.preview(store, source_id, tier, new, state.config(), now)
        names = {r["id"]: r["name"] for r in store.rows("SELECT id, name FROM source")}
    return tuple(
        Over(
            drop.quota.value,
            drop.facts,
            is_log and drop.quota is Quota.DAY,
            names.get(drop.source, "this source"),
        )
        for drop in seen
    )


def _candidates(found: Poll) -> list[Candidate]:
    return [one for item in found.items for one in item.candidates]


def document(found: Poll, limit: int, over: Sequence[Over] = ()) -> dict[str, object]:
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
        "over_quota": [
            {"source": o.source, "quota": o.quota, "facts": o.facts, "waits": o.waits} for o in over
        ],
    }


def _fact(one: Candidate) -> dict[str, object]:
    return {
        "subject": one.subject,
        "relation": one.relation,
        "object": one.object,
        "old": one.old,
        "quote": one.quote,
        "extractor": one.extractor,
    }


def tables(
    found: Poll, limit: int
) -> Iterator[tuple[tuple[str, ...], Sequence[tuple[object, ...]]]]:
    """Yield a poll's tables: columns and rows of the facts, then of the dead letters if any."""
    shown = _candidates(found)[:limit]
    rows = [(c.subject, c.relation, c.object, c.extractor, c.quote) for c in shown]
    yield ("subject", "relation", "object", "found by", "quote"), rows
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
