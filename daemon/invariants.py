"""What holds whenever no daemon is at work: rows, releases, folders and the audit log agree.

`wised db check` shows what does not; crash tests and the soak hold every restart against it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from daemon import releases
from daemon.errors import IntegrityError, WisedError
from daemon.publish import TEMPORARY
from daemon.state import State
from daemon.store import Store, facts
from ingest import Names


def violations(state: State, store: Store) -> list[str]:
    """Return each broken invariant as a sentence; after `releases.reconcile` there is none."""
    return [
        *_answering(state, store),
        *bad_files(state, store),
        *_held(store),
        *_unfinished(state, store),
        *_recorded(store),
    ]


def settled(state: State, store: Store) -> list[str] | None:
    """Return the violations; None while a daemon is at work, when they need not hold."""
    if state.daemon() is not None:
        return None
    found = violations(state, store)
    return None if state.daemon() is not None else found  # one may have begun meanwhile


def _answering(state: State, store: Store) -> Iterator[str]:
    """One release answers, and the link names it."""
    rows = store.rows("SELECT number FROM release WHERE state = 'promoted'")
    if len(rows) != 1:
        yield f"{len(rows)} releases are promoted, not one"
        return
    folder = releases.folder_of(state, releases.promoted(store))
    found = os.readlink(state.current) if state.current.is_symlink() else None
    wanted = os.path.relpath(folder, state.folder) if folder else None
    if found != wanted:
        yield f"current points to {found}, and release {rows[0]['number']} lies in {wanted}"


def bad_files(
    state: State, store: Store, told: tuple[type[WisedError], ...] = (IntegrityError,)
) -> Iterator[str]:
    """Yield each release that could answer and has not the files that were published.

    Errors of other kinds than ``told`` are raised: NotReadable, by default.
    """
    for release in releases.all_releases(store):
        if release.state in ("promoted", *releases.READY):
            try:
                releases.check_files(state, release)
            except told as error:
                yield str(error)


def _held(store: Store) -> Iterator[str]:
    """Promoted are the facts of the promoted release and no others, one a slot."""
    held = facts.of_release(store, releases.promoted(store).number)
    for fact in held:
        # Retracted ones leave with the next release, and what they said is known till then.
        if fact.state not in ("promoted", "retracted"):
            yield f"fact {fact.id} is {fact.state}, and the promoted release holds it"
    ids = {fact.id for fact in held}
    for fact in facts.in_states(store, ("promoted",)):
        if fact.id not in ids:
            yield f"fact {fact.id} is promoted, and the promoted release does not hold it"
    # Without the names in force: where two became one, a slot rightly has several facts, which
    # `wised status` tells.
    plain = Names()
    if len({plain.slot_key(fact.subject, fact.relation) for fact in held}) != len(held):
        yield "the promoted release holds two facts of one slot"
    for row in store.rows(
        "SELECT id FROM fact WHERE state = 'verified' AND NOT EXISTS"
        " (SELECT 1 FROM release_fact JOIN release ON number = release WHERE fact_id = fact.id"
        "  AND folder IS NOT NULL)"
    ):
        yield f"fact {row['id']} is verified, and no release was ever published with it"


def _unfinished(state: State, store: Store) -> Iterator[str]:
    """Nothing stands half way."""
    for fact in facts.in_states(store, facts.IN_CYCLE):
        yield f"fact {fact.id} is {fact.state}, and no cycle runs"
    for kind, key, states in (
        ("release", "number", ("building", "candidate")),
        ("batch", "id", ("building",)),
    ):
        for row in store.rows(f"SELECT {key} AS k, state FROM {kind}"):
            if row["state"] in states:
                yield f"{kind} {row['k']} is {row['state']}, and no cycle runs"
    for path in state.releases.iterdir():
        if path.name.startswith(TEMPORARY):
            yield f"{path.name} is left over in the releases"


def _recorded(store: Store) -> Iterator[str]:
    """Its last word on each fact and release is its state, and the audit log is whole."""
    try:
        store.verify_events()
    except IntegrityError as error:
        yield str(error)
    for kind, key in (("fact", "id"), ("release", "number")):
        for row in store.rows(
            f"SELECT {key} AS k, state, (SELECT json_extract(data, '$.to') FROM event"
            f" WHERE subject = '{kind}:' || {key} AND json_extract(data, '$.to') IS NOT NULL"
            f" ORDER BY seq DESC LIMIT 1) AS said FROM {kind}"
        ):
            if row["state"] != row["said"]:
                yield f"{kind} {row['k']} is {row['state']}, and the audit log says {row['said']}"
