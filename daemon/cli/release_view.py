"""All about one release, and what sets two apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from daemon import releases
from daemon.cli import queries
from daemon.cli.fact_view import brief as fact_brief
from daemon.cli.fact_view import event_document, summary
from daemon.cli.queries import Event
from daemon.cli.status_view import measure_line
from daemon.errors import Conflict
from daemon.releases import Release
from daemon.render import times
from daemon.status_document import measures
from daemon.store import Store, facts
from daemon.store.facts import Fact


@dataclass(frozen=True, slots=True)
class View:
    """A release with what it holds and what happened to it."""

    release: Release
    facts: tuple[Fact, ...]
    history: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """What sets two releases apart."""

    old: int
    new: int
    added: tuple[Fact, ...]  #: slots that only the new one answers
    removed: tuple[Fact, ...]  #: slots that only the old one answers
    replaced: tuple[tuple[Fact, Fact], ...]  #: slots that both answer, differently: old, new
    kept: int  #: facts in both


def view(store: Store, number: int) -> View:
    """Collect what is stored about a release; raises NotFound."""
    release = releases.get(store, number)
    return View(
        release,
        tuple(facts.of_release(store, number)),
        tuple(queries.history(store, f"release:{number}")),
    )


def brief(release: Release, held: int) -> dict[str, object]:
    """Return a release as lists print it in JSON."""
    return {
        "number": release.number,
        "state": release.state,
        "kind": release.kind,
        "facts": held,
        "pinned": release.pinned,
        "created_at": times(release.created_at),
        "promoted_at": times(release.promoted_at),
        "reason": release.reason,
    }


def row(release: Release, held: int) -> tuple[object, ...]:
    """Return a release as a line of the list."""
    return (
        release.number,
        release.state,
        release.kind,
        held,
        release.pinned,
        release.created_at,
        release.promoted_at,
        release.reason,
    )


def document(seen: View) -> dict[str, object]:
    """Return all about a release as it is printed in JSON; ``holds`` are its facts."""
    release = seen.release
    return {
        **brief(release, len(seen.facts)),
        "folder": release.folder,
        "parent": release.parent,
        "batch": release.batch_id,
        "manifest_sha256": release.manifest_sha256,
        "measures": measures(release),
        "holds": [fact_brief(f) for f in seen.facts],
        "history": [event_document(e) for e in seen.history],
    }


def lines(seen: View) -> Iterator[tuple[str, object]]:
    """Yield all about a release as named lines."""
    release = seen.release
    yield "release", release.number
    yield "state", release.state
    yield "kind", release.kind
    yield "reason", release.reason
    yield "pinned", release.pinned
    yield "folder", release.folder
    yield "parent", release.parent
    yield "created", release.created_at
    yield "promoted", release.promoted_at
    yield "manifest sha256", release.manifest_sha256
    for name, measured in release.measures.items():
        yield name, measure_line(measured)
    yield "facts", len(seen.facts)
    for fact in seen.facts:
        yield "  fact", f"{fact.id} {fact.subject} | {fact.relation} | {fact.object}"
    for event in seen.history:
        yield "history", summary(event)


def difference(store: Store, old: int, new: int) -> Difference:
    """Compare what two releases hold; raises NotFound."""
    for number in (old, new):
        releases.get(store, number)
    gone: dict[str, list[Fact]] = {}  # where names became one a slot has several facts
    for fact in facts.only_in(store, old, new):
        gone.setdefault(fact.slot_key, []).append(fact)
    came = facts.only_in(store, new, old)
    pairs = [(gone[f.slot_key].pop() if gone.get(f.slot_key) else None, f) for f in came]
    return Difference(
        old,
        new,
        added=tuple(f for held, f in pairs if held is None),
        removed=tuple(f for of_slot in gone.values() for f in of_slot),
        replaced=tuple((held, f) for held, f in pairs if held is not None),
        kept=queries.fact_counts(store).get(new, 0) - len(came),
    )


def difference_document(found: Difference) -> dict[str, object]:
    """Return a difference as it is printed in JSON."""
    return {
        "old": found.old,
        "new": found.new,
        "added": [fact_brief(f) for f in found.added],
        "removed": [fact_brief(f) for f in found.removed],
        "replaced": [{"old": fact_brief(a), "new": fact_brief(b)} for a, b in found.replaced],
        "kept": found.kept,
    }


def difference_rows(found: Difference) -> Iterator[tuple[object, ...]]:
    """Yield a difference as rows: sign, fact, subject, relation, object, object before."""
    for fact in found.removed:
        yield "-", fact.id, fact.subject, fact.relation, fact.object, ""
    for fact in found.added:
        yield "+", fact.id, fact.subject, fact.relation, fact.object, ""
    for old, fact in found.replaced:
        yield "~", fact.id, fact.subject, fact.relation, fact.object, old.object


def set_pinned(store: Store, number: int, pinned: bool, now: datetime, reason: str) -> str:
    """Keep a release from being pruned, or no longer; return what it is now.

    Raises NotFound, and Conflict for a release whose files are gone.
    """
    word = "pinned" if pinned else "unpinned"
    with store.write():
        release = releases.get(store, number)
        if release.pinned == pinned:
            return f"already_{word}"
        if release.state == "pruned":
            raise Conflict(f"release {number} was pruned: its files are gone")
        store.connection.execute(
            "UPDATE release SET pinned = ?, rev = rev + 1 WHERE number = ?", (int(pinned), number)
        )
        action = "release.pin" if pinned else "release.unpin"
        store.event(action, f"release:{number}", {"to": word, "reason": reason}, now)
    return word
