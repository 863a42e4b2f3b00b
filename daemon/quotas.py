"""Quotas on what sources bring: what is counted, and what is dropped. The rules are policies'."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from daemon.store import Store, timestamp
from daemon.store.facts import Fact
from policies.quota import Drop, Queue, Quota, Quotas, drops, over_day, room
from policies.trust import Tier

if TYPE_CHECKING:
    from daemon.config import Config

DAY = timedelta(hours=24)
#: the undecided facts, by an index that holds only them; the states are as it has them. Without
#: being told, SQLite looks at the states one by one and sorts.
_UNDECIDED = (
    "fact INDEXED BY fact_undecided"
    " WHERE state IN ('received', 'pending', 'conflicting', 'quarantined')"
)


@dataclass(frozen=True, slots=True)
class Dropped:
    """Facts of one source that were dropped over one quota."""

    source: str  #: name
    quota: str  #: name of its key in the configuration
    facts: int


def of_config(config: Config) -> Quotas:
    """Return the configured quotas."""
    section = config.ingest
    return Quotas(
        section.max_undecided_facts,
        section.max_undecided_facts_per_source,
        section.max_new_facts_per_source_per_day,
    )


def queues(store: Store) -> list[Queue]:
    """Return each source's undecided facts; those brought in by hand are nobody's."""
    rows = store.rows(
        "SELECT id, tier, n FROM source JOIN (SELECT vouched_by, count(*) AS n"
        f" FROM {_UNDECIDED} GROUP BY vouched_by) ON vouched_by = id ORDER BY id"
    )
    return [Queue(row["id"], Tier(row["tier"]), row["n"]) for row in rows]


def brought(store: Store, source_id: int, now: datetime) -> int:
    """Return how many facts a source brought in 24 hours, without those too many for its day.

    Facts that are dated ahead of a clock that was set back count by when they came by the clock.
    """
    # NOTE: CROSS JOIN keeps SQLite from going through all events for the few such facts.
    row = store.one(
        "SELECT (SELECT count(*) FROM fact"
        "    WHERE brought_by = ?1 AND received_at > ?2 AND received_at <= ?3)"
        " + (SELECT count(*) FROM fact CROSS JOIN event"
        "    ON event.subject = 'fact:' || fact.id AND action = 'fact.receive'"
        "    WHERE brought_by = ?1 AND received_at > ?3 AND at > ?2 AND at <= ?3)"
        " - (SELECT coalesce(sum(facts), 0) FROM dropped"
        "    WHERE source_id = ?1 AND at > ?2 AND at <= ?3 AND quota = ?4) AS n",
        source_id,
        timestamp(now - DAY),
        timestamp(now),
        Quota.DAY.value,
    )
    assert row is not None, "an aggregate has a row"
    return int(row["n"])


def log_room(
    store: Store, source_id: int, config: Config, now: datetime
) -> tuple[int, Quota | None]:
    """Return how many rows of a log may be read now, and the quota that leaves none, if one does.

    None and no room: triage has enough of its facts to look at.
    """
    row = store.one(
        f"SELECT count(*) AS n FROM {_UNDECIDED} AND state = 'received' AND vouched_by = ?",
        source_id,
    )
    assert row is not None, "an aggregate has a row"
    per_poll = config.ingest.max_rows_per_poll
    return room(brought(store, source_id, now), row["n"], of_config(config), per_poll)


def enforce(
    store: Store, source_id: int, new: Sequence[int], config: Config, now: datetime
) -> tuple[Dropped, ...]:
    """Drop what is too many after a poll, inside its transaction; return what was dropped.

    ``new`` are the facts that the poll brought, in the order stored.
    """
    quotas = of_config(config)
    before = brought(store, source_id, now) - len(new)
    # What came before them that day may be approved by now: these are what the day lacks room for.
    late = new[len(new) - over_day(before, len(new), quotas) :]
    done = [_drop(store, Drop(source_id, len(late), Quota.DAY), late, quotas, now)] if late else []
    for drop in drops(queues(store), quotas):
        done.append(_drop(store, drop, _oldest(store, drop), quotas, now))
    return tuple(done)


def _oldest(store: Store, drop: Drop) -> list[int]:
    rows = store.rows(
        f"SELECT id FROM {_UNDECIDED} AND vouched_by = ? ORDER BY id LIMIT ?",
        drop.source,
        drop.facts,
    )
    return [row["id"] for row in rows]


def _drop(store: Store, drop: Drop, ids: Sequence[int], quotas: Quotas, now: datetime) -> Dropped:
    """Drop facts and count them: a row for the sums, and an event for who reads the audit log."""
    limit, name = quotas.of(drop.quota), drop.quota.value
    reason = f"over {name} = {limit}"
    for fact_id in ids:
        store.transition("fact", fact_id, "drop", now, reason)
    row = {"source_id": drop.source, "quota": name, "facts": drop.facts, "at": timestamp(now)}
    store.insert("dropped", row)
    source = store.one("SELECT name FROM source WHERE id = ?", drop.source)
    assert source is not None, "facts count against sources that are there"
    data = {"name": source["name"], "quota": name, "facts": drop.facts, "reason": reason}
    store.event("source.drop", f"source:{drop.source}", data, now)
    return Dropped(source["name"], name, drop.facts)


def since(store: Store, moment: datetime) -> tuple[Dropped, ...]:
    """Return what was dropped after a moment, summed by source and quota."""
    rows = store.rows(
        "SELECT name, quota, sum(facts) AS n FROM dropped JOIN source ON source.id = source_id"
        " WHERE at > ? GROUP BY name, quota ORDER BY name, quota",
        timestamp(moment),
    )
    return tuple(Dropped(row["name"], row["quota"], row["n"]) for row in rows)


def vouch(store: Store, held_id: int, new: Fact) -> None:
    """Let a held fact count against the source that said it again, if that is trusted more.

    So what a source says is not dropped along with the flood of another that said it first.
    """
    row = store.one(
        "SELECT source.tier FROM fact JOIN source ON source.id = vouched_by WHERE fact.id = ?",
        held_id,
    )
    if row is None:  # by hand already
        return
    said = store.one("SELECT tier FROM source WHERE id = ?", new.vouched_by)
    if said is None or Tier(said["tier"]).rank > Tier(row["tier"]).rank:
        store.table("fact").update(held_id, {"vouched_by": new.vouched_by})


def preview(
    store: Store, source_id: int | None, tier: str, new: int, config: Config, now: datetime
) -> tuple[Drop, ...]:
    """Return what would be dropped if a source brought so many new facts now; writes nothing.

    ``source_id`` is None for a source that is not there yet.
    """
    quotas, key = of_config(config), source_id or 0
    late = over_day(brought(store, key, now), new, quotas)
    waiting = {one.source: one for one in queues(store)}
    there = waiting[key].undecided if key in waiting else 0
    waiting[key] = Queue(key, Tier(tier), there + new - late)
    day = [Drop(key, late, Quota.DAY)] if late else []
    return (*day, *drops(waiting.values(), quotas))
