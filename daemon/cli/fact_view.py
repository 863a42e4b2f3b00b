"""Everything about one fact on one screen: an approval needs its evidence in sight."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from daemon.cli import queries
from daemon.cli.queries import Event
from daemon.render import times
from daemon.store import Store, facts
from daemon.store.facts import Evidence, Fact


@dataclass(frozen=True, slots=True)
class View:
    """A fact with all that is stored about it."""

    fact: Fact
    evidence: tuple[Evidence, ...]
    history: tuple[Event, ...]
    releases: tuple[int, ...]  #: numbers of those that hold it
    rivals: tuple[Fact, ...]  #: the other facts of its slot


def view(store: Store, fact_id: int) -> View:
    """Collect what is stored about a fact; raises NotFound."""
    fact = facts.get(store, fact_id)
    return View(
        fact,
        tuple(facts.evidence(store, fact_id)),
        tuple(queries.history(store, f"fact:{fact_id}")),
        tuple(queries.releases_with(store, fact_id)),
        tuple(f for f in facts.by_slot(store, fact.slot_key) if f.id != fact_id),
    )


def brief(fact: Fact) -> dict[str, object]:
    """Return a fact as lists print it in JSON."""
    return {
        "id": fact.id,
        "subject": fact.subject,
        "relation": fact.relation,
        "object": fact.object,
        "state": fact.state,
        "reason": fact.reason,
        "tier": fact.tier,
        "rev": fact.rev,
        "asserted_at": times(fact.asserted_at),
        "received_at": times(fact.received_at),
    }


def evidence_document(one: Evidence) -> dict[str, object]:
    """Return a piece of evidence as it is printed in JSON."""
    return {
        "source": one.source,
        "tier": one.tier,
        "title": one.title,
        "link": one.link,
        "quote": one.quote,
        "published_at": one.published_at,
        "received_at": one.received_at,
    }


def event_document(one: Event) -> dict[str, object]:
    """Return an event as it is printed in JSON."""
    return {
        "seq": one.seq,
        "at": times(one.at),
        "actor": one.actor,
        "action": one.action,
        "subject": one.subject,
        "data": one.data,
    }


def document(seen: View) -> dict[str, object]:
    """Return all about a fact as it is printed in JSON."""
    fact = seen.fact
    return {
        **brief(fact),
        "prompts": fact.prompts,
        "held_out": fact.held_out,
        "extractor": fact.extractor,
        "same_as": fact.same_as,
        "batch": fact.batch_id,
        "attempts": fact.attempts,
        "releases": seen.releases,
        "evidence": [{**evidence_document(e), "raw": e.raw} for e in seen.evidence],
        "history": [event_document(e) for e in seen.history],
        "slot": [brief(f) for f in seen.rivals],
    }


def lines(seen: View) -> Iterator[tuple[str, object]]:
    """Yield all about a fact as named lines."""
    fact = seen.fact
    yield "fact", fact.id
    yield "subject", fact.subject
    yield "relation", fact.relation
    yield "object", fact.object
    yield "state", fact.state
    yield "revision", fact.rev
    yield "reason", fact.reason
    yield "tier", fact.tier
    yield "found by", fact.extractor
    yield "asserted", fact.asserted_at
    yield "received", fact.received_at
    yield "same as", fact.same_as
    yield "releases", ", ".join(map(str, seen.releases))
    yield "prompt", fact.prompts
    yield "held out", fact.held_out
    for one in seen.evidence:
        yield from evidence_lines(one)
    for event in seen.history:
        yield "history", summary(event)
    for rival in seen.rivals:
        yield "same slot", f"fact {rival.id} {rival.state}: {rival.object}"


def evidence_lines(one: Evidence) -> Iterator[tuple[str, object]]:
    """Yield a piece of evidence as named lines."""
    yield "evidence", f"{one.source} ({one.tier}), received {one.received_at}"
    yield "  title", one.title
    yield "  link", one.link
    yield "  published", one.published_at
    yield "  quote", one.quote


def summary(event: Event) -> str:
    """Return an event on one line."""
    moved = " -> ".join(str(event.data[k]) for k in ("from", "to") if event.data.get(k))
    reason = event.data.get("reason")
    parts = (event.at.isoformat(timespec="seconds"), event.actor, event.action, moved)
    return " ".join(filter(None, parts)) + (f" ({reason})" if reason else "")
