"""What a person decides on facts. Contains no rendering."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime

from daemon import emergency, polling
from daemon.cli.common import Result
from daemon.cli.registry import operator_source
from daemon.config import Config
from daemon.errors import Conflict, UsageError
from daemon.state import State
from daemon.store import Store, facts, timestamp
from daemon.store.facts import HELD, Fact
from daemon.store.lifecycle import next_state
from daemon.triage import approve, must_be_looked_at
from ingest import Candidate, RowError

#: where each decision leads
TARGETS = {"reject": "rejected", "quarantine": "quarantined", "retract": "retracted"}
#: states that an approved fact passes through
PAST_APPROVAL = ("approved", "batched", "edited", "promoted")


def approve_all(
    store: Store,
    fact_ids: Sequence[int],
    reason: str,
    now: datetime,
    expect: Mapping[int, int] | None = None,
) -> list[Result]:
    """Approve facts; what can't be approved stops it before anything is changed.

    ``expect`` has the revisions that were judged, by fact. Raises NotFound, Conflict, and
    UsageError for two facts of one slot: only one can hold.
    """
    wanted = _distinct(store, fact_ids)
    slots: dict[str, int] = {}
    for fact in wanted:
        if slots.setdefault(fact.slot_key, fact.id) != fact.id:
            raise UsageError(
                f"facts {slots[fact.slot_key]} and {fact.id} fill the same slot",
                hint="approve the one that holds",
            )
        must_be_looked_at(fact)
        if fact.state not in (*PAST_APPROVAL, "verified"):
            next_state("fact", fact.state, "approve")
        check_unchanged(fact, expect)
    return [_approved(store, fact, reason, now, (expect or {}).get(fact.id)) for fact in wanted]


def _approved(
    store: Store, fact: Fact, reason: str, now: datetime, rev: int | None = None
) -> Result:
    if fact.state in PAST_APPROVAL:
        return _result(fact, f"already_{fact.state}")
    return _result(fact, approve(store, fact.id, reason, now, rev))


def check_unchanged(fact: Fact, expect: Mapping[int, int] | None) -> None:
    """Raise Conflict when a fact is not of the revision that was judged."""
    if expect is not None and expect.get(fact.id, fact.rev) != fact.rev:
        raise Conflict(
            f"fact {fact.id} was changed since it was shown (revision {fact.rev},"
            f" not {expect[fact.id]})",
            hint=f"wised fact show {fact.id}",
        )


def approve_pending(store: Store, reason: str, now: datetime) -> list[Result]:
    """Approve all pending facts; of one slot the newest, to which the others give way."""
    pending = facts.in_states(store, ("pending",))
    newest_first = sorted(pending, key=lambda f: (f.asserted_at, f.id), reverse=True)
    done = []
    for fact in newest_first:
        if facts.get(store, fact.id).state == "pending":
            done.append(_approved(store, fact, reason, now))
    return done


def decide(
    store: Store,
    fact_ids: Sequence[int],
    event: str,
    reason: str,
    now: datetime,
    expect: Mapping[int, int] | None = None,
) -> list[Result]:
    """Reject, quarantine or retract facts, all or none. Raises NotFound and Conflict."""
    with store.write():
        wanted = _distinct(store, fact_ids)
        for fact in wanted:
            check_unchanged(fact, expect)
        return [_moved(store, fact, event, reason, now) for fact in wanted]


def requeue(store: Store, fact_ids: Sequence[int], reason: str, now: datetime) -> list[Result]:
    """Bring dropped facts back, all or none; each as a new one. Raises NotFound and Conflict.

    Triage holds a fact against older ones only, by id, so under its old id one that comes back
    would not be held against what came in meanwhile.
    """
    with store.write():
        results = []
        for fact in _distinct(store, fact_ids):
            if fact.state == "duplicate":
                results.append(_result(fact, "already_duplicate"))
                continue
            if fact.state != "dropped":
                raise Conflict(
                    f"fact {fact.id} is {fact.state}; only a dropped one is received again",
                    hint=f"wised fact approve {fact.id}",
                )
            number = facts.insert_again(store, fact, now)
            why = f"{reason}: received again as fact {number}"
            store.transition("fact", fact.id, "requeue", now, why, same_as=number)
            results.append(_result(fact, f"received again as fact {number}"))
        return results


def withdraw(
    state: State, store: Store, fact_ids: Sequence[int], reason: str, now: datetime
) -> list[Result]:
    """Let a release without these retracted facts answer at once; empty when none was answered.

    Raises Refused for a side memory that can't drop a fact.
    """
    gone = _distinct(store, fact_ids)
    number = emergency.release_without(state, store, state.config(), gone, now, reason)
    return [] if number is None else [Result(f"release {number}", "promoted")]


def _distinct(store: Store, fact_ids: Sequence[int]) -> list[Fact]:
    return [facts.get(store, one) for one in dict.fromkeys(fact_ids)]


def _moved(store: Store, fact: Fact, event: str, reason: str, now: datetime) -> Result:
    if fact.state == TARGETS[event]:
        return _result(fact, f"already_{fact.state}")
    return _result(fact, store.transition("fact", fact.id, event, now, reason))


def _result(fact: Fact, result: str) -> Result:
    return Result(f"fact {fact.id}", result)


def add(
    store: Store,
    config: Config,
    row: dict[str, str],
    reason: str,
    now: datetime,
) -> Result:
    """Store a fact given by hand, for the same triage as any other.

    ``row`` has the keys of a correction log: subject, relation, object. One that is held already
    is left as it is. Raises UsageError.
    """
    try:
        candidate = polling.extractor(config).from_row(row)
    except RowError as error:
        raise UsageError(error.message, hint=error.hint or "wised config show") from error
    for fact in facts.by_key(store, facts.key_of(store, candidate)):
        if fact.state in (*HELD, "received"):
            return _result(fact, f"already_{fact.state}")
    with store.write():
        entry = _entry(store, candidate, {**row, "reason": reason}, now)
        fact_id = facts.insert(store, candidate, entry, "trusted", None, now, reason=reason)
    return Result(f"fact {fact_id}", "received")


def _entry(store: Store, candidate: Candidate, row: dict[str, str], now: datetime) -> int:
    """Store what the operator typed as evidence, by whom and when."""
    body = {**row, "actor": store.actor, "at": timestamp(now)}
    raw = json.dumps(body, sort_keys=True, ensure_ascii=False)
    key = hashlib.sha256(raw.encode("utf-8", "surrogatepass")).hexdigest()
    values = {
        "source_id": operator_source(store, now),
        "key": key,
        "content_hash": key,
        "title": row["reason"],
        "published_at": timestamp(now),
        "received_at": timestamp(now),
        "raw": raw,
    }
    return int(store.db.table("entry").insert(values).last_pk)  # type: ignore[arg-type]
