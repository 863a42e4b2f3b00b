"""What a source would bring, found out without storing anything."""

from __future__ import annotations

import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from daemon import child, polling, quotas, reading
from daemon.cli import registry
from daemon.config import Config
from daemon.messages import Read, ReadText
from daemon.polling import Source
from daemon.readers import configured
from daemon.render import note
from daemon.state import State
from ingest import (
    Candidate,
    DeadLetter,
    Extractor,
    Item,
    Poll,
    Reader,
    ReaderError,
    poll_document,
)
from ingest.formats import AUTO
from policies.quota import Quota

LOAD_BUDGET_SECONDS = 1800.0  #: for a worker to start and load its model


@dataclass(frozen=True, slots=True)
class Trial:
    """What a poll brought, and what the reader made of the entries that had no facts."""

    poll: Poll
    reader: str | None  #: None when none is configured
    read: int = 0  #: entries
    unread: int = 0  #: beyond the number that one cycle reads, or after a failure
    dropped: Counter[str] = field(default_factory=Counter)


def poll(
    state: State,
    location: str,
    allow_private: Sequence[str],
    now: datetime,
    format: str | None = None,
) -> Trial:
    """Poll a URL, a path or a stored source's name from its start, and read what needs a reader.

    A path is a correction log's or a feed document's. `format` goes before the stored one. Raises
    IngestError, UsageError.
    """
    config = state.config()
    source, extract = _source(state, location, allow_private, format), polling.extractor(config)
    found = None
    if source.kind == "log" and format is None:
        found = poll_document(Path(source.location), extract, now)
    if found is None:
        found = polling.fetch(source, config, extract, now)
    with _reader(state, config) as reader:
        return Trial(found, None) if reader is None else _read(found, config, reader, extract)


@contextmanager
def _reader(state: State, config: Config) -> Iterator[Reader | None]:
    """Yield the configured reader; a local one has a worker of its own, which ends with the block.

    The worker's last words go to a folder that ends too: a trial leaves nothing behind.
    """
    stop = threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        worker = child.Worker(state.config_file, Path(folder) / "worker.log", stop)

        def ask(request: Read) -> ReadText:
            budget = LOAD_BUDGET_SECONDS + request.timeout_seconds
            return worker.request(request, ReadText, budget, lambda stage, done, total: None)

        try:
            yield configured(config, ask, stop)
        finally:
            stop.set()
            worker.kill()


def _read(found: Poll, config: Config, reader: Reader, extract: Extractor) -> Trial:
    """Let the reader read the entries without facts, up to as many as one cycle reads."""
    waiting = [item for item in found.items if reading.is_for_reader(item, config)]
    if not waiting:
        return Trial(found, reader.name)
    own = " in a process of its own" if config.extraction.reader == "local" else ""
    note(f"{len(waiting)} entries have no facts; {reader.name} reads them{own} ...")
    items: dict[str, Item] = {item.entry.key: item for item in found.items}
    dead, done, dropped = list(found.dead), 0, Counter[str]()
    for item in waiting[: config.extraction.max_entries_per_cycle]:
        text = reading.text_of(item)
        try:
            made = reading.examine(text, config, reader, extract)
        except ReaderError as why:
            dead.append(DeadLetter(f"entry {item.entry.title[:80]}", why.code, why.message, ""))
            if not why.is_entrys_own:
                break
            continue
        items[item.entry.key] = replace(item, candidates=made.candidates)
        dropped.update(made.dropped)
        done += 1
    poll = replace(found, items=tuple(items.values()), dead=tuple(dead))
    return Trial(poll, reader.name, done, len(waiting) - done, dropped)


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


def over(state: State, location: str, trial: Trial, now: datetime) -> tuple[Over, ...]:
    """Return the quotas that this poll would be over; entries that are stored bring nothing."""
    with state.store(read_only=True) as store:
        row = registry.raw(store, location)
        source_id, tier, kind = (
            (row["id"], row["tier"], row["kind"]) if row else (None, "normal", "")
        )
        is_log = (kind or _kind(location)) == "log"
        new = sum(
            len(item.candidates)
            for item in trial.poll.items
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


def document(trial: Trial, limit: int, over: Sequence[Over] = ()) -> dict[str, object]:
    """Return a trial with at most ``limit`` of its facts as it is printed in JSON."""
    found = trial.poll
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
        "reader": None
        if trial.reader is None
        else {
            "name": trial.reader,
            "entries_read": trial.read,
            "entries_unread": trial.unread,
            "dropped": dict(trial.dropped),
        },
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
    trial: Trial, limit: int
) -> Iterator[tuple[tuple[str, ...], Sequence[tuple[object, ...]]]]:
    """Yield a trial's tables: columns and rows of the facts, then of the dead letters if any."""
    found = trial.poll
    shown = _candidates(found)[:limit]
    rows = [(c.subject, c.relation, c.object, c.quote, c.extractor) for c in shown]
    yield ("subject", "relation", "object", "quote", "found by"), rows
    if found.dead:
        dead = [(d.location, d.code, d.message) for d in found.dead]
        yield ("dead letter", "code", "what is wrong"), dead


def summary(trial: Trial, limit: int) -> str:
    """Return a trial in one sentence."""
    found = trial.poll
    count = len(_candidates(found))
    rest = " There is more to read." if found.more else ""
    if trial.read or trial.unread:
        drops = sum(trial.dropped.values())
        rest += (
            f" {trial.reader} read {trial.read} entries and left {trial.unread};"
            f" {drops} of its facts were dropped."
        )
    return (
        f"{len(found.items)} entries, {count} facts ({min(count, limit)} shown), "
        f"{len(found.dead)} dead letters. Nothing was stored.{rest}"
    )
