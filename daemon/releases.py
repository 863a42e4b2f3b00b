"""Which release answers: promotion, rollback, holds, pruning and the check at start.

The row is the truth; the folder was complete before the row; the ``current`` link is derived.
Nothing here loads a model.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from daemon.errors import (
    Conflict,
    IntegrityError,
    NotFound,
    NotReadable,
    OnHold,
    Overtaken,
    Refused,
    WisedError,
)
from daemon.faults import fault
from daemon.measured import Measured
from daemon.publish import ASIDE, TEMPORARY, names, point
from daemon.state import State
from daemon.store import Store, facts, timestamp
from wise import manifest
from wise.errors import BadArtifact

#: states from which a release can be made to answer
READY = ("verified", "previous", "retained")
#: states that a release doesn't come back from, so that its files go
GONE = ("pruned", "refused")
#: states of facts that somebody has spoken against
NOT_TO_BE_SAID = ("retracted", "rejected", "quarantined")
#: that a folder which no row speaks of is kept for a person to look at
ASIDE_DAYS = 7
#: why a candidate was refused that a stop cut short; no fault of its own
INTERRUPTED = "interrupted"
#: the same after a crash or a failed step, of which it may be the cause
CRASHED = "interrupted by a crash"
CUT_SHORT = (INTERRUPTED, CRASHED)
#: what is raised for a file that isn't there; any other error of the system is no damage
MISSING = (FileNotFoundError, NotADirectoryError)


@dataclass(frozen=True, slots=True)
class Release:
    """A release as stored."""

    number: int
    state: str
    folder: str | None  #: name below ``releases/``; None for the bare model
    parent: int | None
    batch_id: int | None
    manifest_sha256: str | None
    measures: dict[str, Measured]  #: by probe kind
    reason: str
    pinned: bool
    created_at: datetime
    promoted_at: datetime | None
    kind: str = "update"  #: or ``compaction``, ``emergency``
    rewritten: tuple[int, ...] = ()  #: positions of the parent's shards that were compacted
    last_fact: int | None = None  #: newest fact known when it was planned
    settings: str | None = None  #: sha256 of the settings it was made with
    approved: bool = False  #: by a person, so that no hold keeps it back


def _release(row: sqlite3.Row) -> Release:
    promoted = row["promoted_at"]
    return Release(
        row["number"],
        row["state"],
        row["folder"],
        row["parent"],
        row["batch_id"],
        row["manifest_sha256"],
        {k: Measured(**m) for k, m in json.loads(row["measures"]).items()},
        row["reason"],
        bool(row["pinned"]),
        datetime.fromisoformat(row["created_at"]),
        datetime.fromisoformat(promoted) if promoted else None,
        row["kind"],
        tuple(json.loads(row["rewritten"])),
        row["last_fact"],
        row["settings"],
        bool(row["approved"]),
    )


def get(store: Store, number: int) -> Release:
    """Return a release; raises NotFound."""
    row = store.one("SELECT * FROM release WHERE number = ?", number)
    if row is None:
        raise NotFound(f"no release {number}", hint="wised release list shows them")
    return _release(row)


def all_releases(store: Store) -> list[Release]:
    """Return every release, oldest first."""
    return [_release(row) for row in store.rows("SELECT * FROM release ORDER BY number")]


def promoted(store: Store) -> Release:
    """Return the release that answers now; release 0 when no facts were promoted."""
    row = store.one("SELECT * FROM release WHERE state = 'promoted'")
    assert row is not None, "init promotes release 0"
    return _release(row)


def folder_of(state: State, release: Release) -> Path | None:
    """Return where a release lies; None for the bare model."""
    return state.releases / release.folder if release.folder else None


def check_files(state: State, release: Release) -> None:
    """Raise IntegrityError unless the release's files are those that were published.

    Raises NotReadable when the system refused to read them: missing rights, or no file handle
    left, say nothing of the files.
    """
    folder = folder_of(state, release)
    if folder is None:
        return
    try:
        with contextlib.suppress(*MISSING):
            os.stat(folder)  # `verify` takes a folder that it may not look at for none
        manifest.verify(folder)
        digest = manifest.file_sha256(folder / manifest.NAME)
    except (BadArtifact, OSError) as error:
        why = error if isinstance(error, OSError) else error.__cause__
        if isinstance(why, OSError) and not isinstance(why, MISSING):
            raise _not_readable(release, why) from error
        hint = error.hint if isinstance(error, BadArtifact) else ""
        raise IntegrityError(f"release {release.number}: {error}", hint) from error
    if digest != release.manifest_sha256:
        raise IntegrityError(f"release {release.number}: its manifest is not the published one")


def _not_readable(release: Release, why: OSError) -> NotReadable:
    return NotReadable(
        f"release {release.number} can't be read: {why}",
        hint="wised doctor looks at the rights of the state folder; run as the daemon's user."
        " If the disk is broken: wised rollback",
    )


def promote(
    state: State,
    store: Store,
    number: int,
    now: datetime,
    reason: str,
    *,
    after: int | None = None,
    unless_held: bool = False,
    then_hold: str | None = None,
) -> None:
    """Let release ``number`` answer from now on, whatever answers now.

    ``after`` is the release that must answer until then; with ``unless_held`` a hold keeps it back
    as it does the daemon; ``then_hold`` sets a hold on promotion in the same transaction.

    Raises Conflict when it is in no state to, Overtaken when another release than ``after``
    answers, OnHold, Refused when it holds a fact not to be said, IntegrityError when its files
    were changed. One transaction moves the pointer and all facts; a WisedError says that the link
    could not follow.
    """
    _check_not_overtaken(store, after)  # that explains its state better
    release = get(store, number)
    if release.state not in READY:
        raise Conflict(f"release {number} is {release.state}; it can't be promoted")
    check_files(state, release)
    with store.write():
        _check_not_overtaken(store, after)
        if unless_held and is_held_back(store, get(store, number)):
            raise OnHold("promotion is on hold")
        _move_pointer(store, number, now, reason)
        if then_hold is not None:
            hold(store, "promote", then_hold, now)
    fault("promote.moved")
    try:
        relink(state, store)
    except OSError as error:
        raise WisedError(
            f"release {number} answers by the records, but {state.current} can't be made to name"
            f" it: {error.strerror}",
            hint=f"mend that; wised release promote {number} sets the link, and so does wised run",
        ) from error
    fault("promote.linked")


def _check_not_overtaken(store: Store, after: int | None) -> None:
    if after is not None and (current := promoted(store).number) != after:
        raise Overtaken(f"release {current} answers by now, not {after}")


def is_held_back(store: Store, release: Release) -> bool:
    """Tell whether a hold keeps the daemon from promoting a release.

    Approval lets a candidate pass for the first time; it is none to go back to that release.
    """
    return "promote" in holds(store) and not (release.approved and release.state == "verified")


def approve(store: Store, number: int, now: datetime, reason: str) -> str:
    """Let the daemon promote a verified release whatever is on hold; return what it is now.

    Raises NotFound, and Conflict for a release that doesn't wait for its promotion.
    """
    with store.write():
        release = get(store, number)
        if release.state == "promoted":
            return "already_promoted"
        if release.state != "verified":
            raise Conflict(
                f"release {number} is {release.state}; only a verified one can be approved",
                hint="wised release promote lets an earlier one answer again",
            )
        if release.approved:
            return "already_approved"
        store.connection.execute(
            "UPDATE release SET approved = 1, rev = rev + 1 WHERE number = ?", (number,)
        )
        data = {"to": "approved", "reason": reason}
        store.event("release.approve", f"release:{number}", data, now)
    return "approved"


def _move_pointer(store: Store, number: int, now: datetime, reason: str) -> None:
    old = promoted(store)
    for row in store.rows("SELECT number FROM release WHERE state = 'previous'"):
        if row["number"] != number:
            store.transition("release", row["number"], "retain", now)
    if gone := _held_in_states(store, number, NOT_TO_BE_SAID):
        raise Refused(
            f"release {number} answers with fact {gone[0]['id']}, which is {gone[0]['state']}",
            hint="choose a release that was made without it; release 0 is the bare model",
        )
    target = get(store, number)
    # The unique index allows one promoted release at a time: the old one steps down first.
    if target.state == "previous":
        store.transition("release", number, "retain", now)
    store.transition("release", old.number, "replace", now, f"release {number} took over")
    store.transition("release", number, "promote", now, reason, promoted_at=timestamp(now))
    _move_facts(store, old.number, number, now)


def _move_facts(store: Store, old: int, new: int, now: datetime) -> None:
    """Bring the states of facts in line with the release that answers now.

    Only those that the two releases don't share are looked at: a release holds many more.
    """
    # Approved: one that a person wants to be written anew, and that answers by this already.
    come = _held_in_states(store, new, ("verified", "approved", "superseded"))
    for fact in facts.only_in(store, old, new):
        if fact.state != "promoted":
            continue
        by = _fact_of_slot(store, new, fact.slot_key)
        newer = by is not None and by > fact.id
        why = f"fact {by} took its place" if newer else f"release {new} does not hold it"
        store.transition("fact", fact.id, "supersede" if newer else "roll_back", now, why)
    for row in come:
        if row["state"] == "superseded":
            store.transition("fact", row["id"], "restore", now, f"back with release {new}")
        else:
            store.transition("fact", row["id"], "promote", now, f"release {new}")


def _held_in_states(store: Store, number: int, states: Sequence[str]) -> list[sqlite3.Row]:
    """Return id and state of the facts of a release that are in ``states``, in its order.

    NOTE: CROSS JOIN has SQLite begin with the few facts in these states, not with all that the
    release holds; without statistics it would choose the latter.
    """
    return store.rows(
        "SELECT fact.id, fact.state FROM fact CROSS JOIN release_fact ON fact_id = fact.id"
        " WHERE fact.state IN (SELECT value FROM json_each(?)) AND release = ? ORDER BY position",
        json.dumps(list(states)),
        number,
    )


def _fact_of_slot(store: Store, number: int, slot_key: str) -> int | None:
    """Return the fact with which a release answers a slot, None when it doesn't."""
    row = store.one(
        "SELECT fact.id FROM fact CROSS JOIN release_fact ON fact_id = fact.id"
        " WHERE slot_key = ? AND release = ? ORDER BY position DESC LIMIT 1",
        slot_key,
        number,
    )
    return None if row is None else int(row["id"])


def hold_facts(
    store: Store, number: int, held: Sequence[facts.Fact], shard_of: Sequence[int]
) -> None:
    """Record which facts a release holds, inside a transaction; ``shard_of`` may be empty."""
    places: Sequence[int | None] = shard_of or [None] * len(held)
    rows = [
        {"release": number, "position": i, "fact_id": fact.id, "shard": shard}
        for i, (fact, shard) in enumerate(zip(held, places, strict=True))
    ]
    store.table("release_fact").insert_all(rows)


def rollback(state: State, store: Store, to: int | None, now: datetime, reason: str) -> int:
    """Promote an older release and hold automatic promotion.

    The default is the release that the promoted one grew from, so a second rollback goes further
    back and never forward again. Needs neither the daemon nor a model. Returns the release's
    number; facts that it does not hold become ``verified`` and are not queued again by themselves.
    """
    if to is None:
        to = promoted(store).parent
        if to is None:
            raise NotFound("the bare model answers: there is no release before it")
    if get(store, to).state == "promoted":
        relink(state, store)
        with store.write():
            if "promote" not in holds(store):
                hold(store, "promote", f"kept at release {to}: {reason}", now)
        return to
    why = f"rolled back to release {to}: {reason}"
    promote(state, store, to, now, reason, then_hold=why)
    return to


def hold(store: Store, kind: str, reason: str, now: datetime) -> None:
    """Keep the daemon from doing one kind of work, inside a transaction."""
    store.connection.execute(
        "INSERT OR REPLACE INTO hold (kind, reason, since) VALUES (?, ?, ?)",
        (kind, reason, timestamp(now)),
    )
    store.event("hold.set", f"hold:{kind}", {"reason": reason}, now)


def unhold(store: Store, kind: str, now: datetime, reason: str = "") -> bool:
    """Lift a hold inside a transaction; False when there was none."""
    gone = store.connection.execute("DELETE FROM hold WHERE kind = ?", (kind,)).rowcount > 0
    if gone:
        store.event("hold.lift", f"hold:{kind}", {"reason": reason}, now)
    return gone


def holds(store: Store) -> dict[str, str]:
    """Return the reason of each hold that is set."""
    return {r["kind"]: r["reason"] for r in store.rows("SELECT * FROM hold ORDER BY kind")}


def relink(state: State, store: Store) -> bool:
    """Point the ``current`` link at the promoted release; tell whether it named something else.

    Row and link are looked at again with the write lock: of two promotions at once neither can
    set the link to what the other has replaced.
    """
    if names(state.current, folder_of(state, promoted(store))):
        return False
    with store.write():
        folder = folder_of(state, promoted(store))
        if names(state.current, folder):
            return False
        point(state.current, folder)
    return True


def prune(state: State, store: Store, keep: int, now: datetime, reason: str = "") -> list[int]:
    """Delete the files of releases that retention gives up; their rows stay.

    Which they are is asked anew for each: a person may pin one while another's files go.
    """
    why = "; ".join(filter(None, (f"kept are the newest {keep}", reason)))
    gone: list[int] = []
    while True:
        with store.write():
            number = _next_to_prune(store, keep)
            if number is None:
                return gone
            store.transition("release", number, "prune", now, why)
        fault("prune.marked")
        delete_files(state, get(store, number))
        fault("prune.deleted")
        gone.append(number)


def _next_to_prune(store: Store, keep: int) -> int | None:
    from policies.retention import ReleaseView, prunable  # a rollback need not import the rules

    every = [
        r
        for r in all_releases(store)
        if r.state in ("promoted", "previous", "retained") and r.folder
    ]
    given_up = set(prunable([ReleaseView(r.number, r.state, r.pinned) for r in every], keep))
    return next((r.number for r in every if r.number in given_up and r.state == "retained"), None)


def delete_files(state: State, release: Release) -> None:
    """Delete the files of a release that is gone; what a crash leaves of them goes at a start."""
    assert release.state in GONE, "its files may be wanted"
    folder = folder_of(state, release)
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def reconcile(state: State, store: Store, now: datetime) -> list[str]:
    """Bring files and rows in line after any end of the last daemon; return what was done.

    Unfinished candidates are dropped and their facts approved again; temporary folders go, and
    those of releases that are gone; folders that no row speaks of are set aside for a while; a
    promoted release whose files are damaged gives way to the newest good one that it grew from.
    Raises NotReadable when the system doesn't let its files be read.
    """
    done = _drop_unfinished(store, now)
    fault("reconcile.dropped")
    done += _tidy_folders(state, store, now)
    done += _drop_aside(state, store, now)
    fault("reconcile.tidied")
    current = promoted(store)
    try:
        check_files(state, current)
    except IntegrityError as error:
        done.append(_fall_back(state, store, current, error, now))
    fault("reconcile.checked")
    return done + mend_link(state, store)


def mend_link(state: State, store: Store) -> list[str]:
    """Bring ``current`` in line with the row, which a promotion may not have got to.

    Returns what was done; when nothing is to do that costs one readlink.
    """
    if not relink(state, store):
        return []
    return [f"let the link {state.current.name} name release {promoted(store).number}"]


def _drop_unfinished(store: Store, now: datetime) -> list[str]:
    done = []
    with store.write():
        for release in all_releases(store):
            if release.state in ("building", "candidate"):
                store.transition("release", release.number, "refuse", now, CRASHED)
                done.append(f"dropped the unfinished release {release.number}")
        waiting = facts.in_states(store, facts.IN_CYCLE)
        facts.move(store, waiting, "return", now, "the cycle was interrupted")
        store.connection.execute(
            "UPDATE batch SET state = 'failed', error = ? WHERE state = 'building'", (INTERRUPTED,)
        )
    return done


def _tidy_folders(state: State, store: Store, now: datetime) -> list[str]:
    every = [r for r in all_releases(store) if r.folder]
    gone = {r.folder for r in every if r.state in GONE}
    known = {r.folder for r in every} - gone
    done = []
    for path in sorted(state.releases.iterdir()):
        if path.name.startswith(TEMPORARY) or path.name in gone:
            shutil.rmtree(path, ignore_errors=True)
        elif path.name not in known and not path.name.startswith(ASIDE):
            aside = _free_name(state.releases, f"{ASIDE}{path.name}")
            path.rename(aside)
            os.utime(aside, (now.timestamp(), now.timestamp()))  # it is kept from now on
            done.append(f"set aside {path.name}, which no release speaks of")
    return done


def _drop_aside(state: State, store: Store, now: datetime) -> list[str]:
    """Delete what was set aside long ago; of candidates that were dropped all but the newest.

    A full disk may let one build after the other fail when its folder is complete.
    """
    dropped = {f"{r.number:06d}" for r in all_releases(store) if r.state == "refused"}
    aside = sorted(p for p in state.releases.iterdir() if p.name.startswith(ASIDE))
    copies = [p for p in aside if p.name.removeprefix(ASIDE).partition("-")[0] in dropped]
    until = (now - timedelta(days=ASIDE_DAYS)).timestamp()
    done = []
    for path in aside:
        if path in copies[:-1] or path.stat().st_mtime < until:
            shutil.rmtree(path, ignore_errors=True)
            done.append(f"deleted {path.name}")
    return done


def _free_name(folder: Path, name: str) -> Path:
    path, count = folder / name, 1
    while path.exists():
        path, count = folder / f"{name}.{count}", count + 1
    return path


def _fall_back(
    state: State, store: Store, broken: Release, error: IntegrityError, now: datetime
) -> str:
    """Promote the newest good ancestor of a damaged release in its place and hold promotion.

    No other: a release that it didn't grow from was left on purpose, by a rollback.
    """
    for release in _ancestors(store, broken):
        if release.state not in ("previous", "retained"):
            continue
        try:
            why = f"release {broken.number} is damaged"
            promote(state, store, release.number, now, why, then_hold=str(error))
        except (IntegrityError, Refused):
            continue
        return f"{error}; went back to release {release.number}"
    raise error


def _ancestors(store: Store, release: Release) -> Iterator[Release]:
    """Yield what a release grew from, the nearest first; the bare model is the last."""
    while release.parent is not None:
        release = get(store, release.parent)
        yield release


def newest_first(releases: Sequence[Release]) -> list[Release]:
    """Return releases, newest first."""
    return sorted(releases, key=lambda r: -r.number)
