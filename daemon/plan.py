"""What the next candidate consists of, and what a worker needs to build it.

A release is a function of what is planned here and of the settings: `request` gives the worker the
same for a release of the past (`recorded`) as it did when the release was made.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from daemon import attempts, questions, releases
from daemon.config import Config
from daemon.errors import Conflict
from daemon.messages import Build, FactText, Questions
from daemon.questions import Slot
from daemon.releases import Release
from daemon.store import Store, facts, shards, timestamp
from daemon.store.facts import Fact
from ingest import ASKED, Names, fill, name_key
from policies.compaction import due
from policies.retry import LONGEST, wait_after


@dataclass(frozen=True, slots=True)
class Plan:
    """What a candidate consists of."""

    number: int  #: of the release to be
    parent: int
    new: tuple[Fact, ...]
    kept: tuple[Fact, ...]  #: of the parent's facts, in its order
    withdrawn: tuple[Fact, ...]  #: of the parent's facts: superseded by new ones, or retracted
    last_fact: int  #: newest fact known when this was planned; later subjects are asked nothing
    batch: int | None = None  #: of the new facts; None when there are none
    rewritten: tuple[int, ...] = ()  #: positions of the parent's shards that are compacted

    @property
    def held(self) -> tuple[Fact, ...]:
        """The candidate's facts, in its order."""
        return (*self.kept, *self.new)


def next_plan(store: Store, config: Config, now: datetime) -> Plan | None:
    """Plan the next candidate, inside a transaction; None when there is nothing to do."""
    return (
        _again(store, config, now) or _compaction(store, config, now) or _update(store, config, now)
    )


def _again(store: Store, config: Config, now: datetime) -> Plan | None:
    """Take a batch that waits for another attempt, when that is due."""
    _one_a_slot(store, now)  # a fact that came in meanwhile may have overtaken one of the batch
    due = attempts.next_due(store, config, now)
    if due is None:
        return None
    batch, new = due
    attempts.begin_again(store, batch)
    return _planned(store, config, new, batch, now)


def _update(store: Store, config: Config, now: datetime) -> Plan | None:
    """Take the approved facts, oldest first and one a slot, into a new batch.

    Of two approved facts of one slot the later asserted one counts. Facts of a batch that waits
    are built with that one.
    """
    waiting = attempts.is_waiting(store)
    free = [fact for fact in _one_a_slot(store, now) if fact.batch_id not in waiting]
    new = free[: config.wise.batch_max_facts]
    if new and not _only_again(store, config, new, now):
        return _planned(store, config, new, attempts.begin(store, now), now)
    parent = releases.promoted(store).number
    forgets = any(fact.state != "promoted" for fact in facts.of_release(store, parent))
    if not forgets or not _may_forget(store, config, parent, now):
        return None
    return _planned(store, config, (), None, now)


def _planned(
    store: Store, config: Config, new: Sequence[Fact], batch: int | None, now: datetime
) -> Plan:
    """Record a candidate that grows from the promoted release; without ``new`` it only forgets."""
    parent = releases.promoted(store).number
    live, slots = facts.of_release(store, parent), {fact.slot_key for fact in new}
    withdrawn = tuple(f for f in live if f.state != "promoted" or f.slot_key in slots)
    kept = tuple(f for f in live if f not in withdrawn)
    for fact in new:
        store.transition("fact", fact.id, "batch", now, batch_id=batch)
    number, last = begin(store, config, parent, now, batch_id=batch)
    data = {"to": "building", "parent": parent, "batch": batch, "facts": len(new)}
    store.event("release.plan", f"release:{number}", data, now)
    return Plan(number, parent, tuple(new), kept, withdrawn, last, batch)


def _one_a_slot(store: Store, now: datetime) -> list[Fact]:
    """Return the approved facts, oldest first; of one slot only the latest, the others give way.

    A person who approved an older one after the newer has decided between them.
    """
    latest: dict[str, Fact] = {}
    for fact in facts.in_states(store, ("approved",)):
        held = latest.get(fact.slot_key)
        if held is None:
            latest[fact.slot_key] = fact
            continue
        older, newer = sorted((held, fact), key=lambda f: (f.asserted_at, f.id))
        gone, stays, why = older, newer, f"fact {newer.id} is newer"
        if facts.was_chosen_over(store, older.id, newer.id):
            gone, stays, why = newer, older, f"fact {older.id} was approved by hand after it"
        store.transition("fact", gone.id, "supersede", now, why)
        latest[fact.slot_key] = stays
    return sorted(latest.values(), key=lambda f: f.id)


def _only_again(store: Store, config: Config, found: Sequence[Fact], now: datetime) -> bool:
    """Tell whether all of ``found`` were tried before, the last time only a while ago.

    They join any batch of new facts, but do not make one by themselves again at once.
    """
    if not all(fact.attempts for fact in found):
        return False
    row = store.one(
        "SELECT created_at AS at FROM batch WHERE id IN (SELECT value FROM json_each(?))"
        " ORDER BY id DESC LIMIT 1",
        json.dumps([fact.batch_id for fact in found]),
    )
    if row is None:
        return False
    return _is_recent(row["at"], timedelta(minutes=config.daemon.retry_minutes), now)


def _is_recent(at: str, wait: timedelta, now: datetime) -> bool:
    """Tell whether less than ``wait`` has passed; a clock set back since then counts for none."""
    return timedelta(0) <= now - datetime.fromisoformat(at) < wait


def _may_forget(store: Store, config: Config, parent: int, now: datetime) -> bool:
    """Tell whether a release may be tried that only forgets: not at once again.

    After ``max_attempts`` tries that failed at work once a day; it is never given up, for until
    it succeeds what was retracted is answered.
    """
    tries = _tries(store, "update", parent)
    if tries.at_work >= config.daemon.max_attempts:
        return not _is_recent(tries.last, LONGEST, now)
    return not _is_put_off(tries, config, now)


@dataclass(frozen=True, slots=True)
class _Tries:
    """Candidates without new facts that were refused."""

    failed: int  #: without those that were cut short for no fault of theirs
    at_work: int  #: of these: the gate refused it, or the worker died with its models loaded
    last: str  #: when the last of them was begun; empty when there is none


def _tries(store: Store, kind: str, parent: int) -> _Tries:
    """Return what became of earlier candidates of one kind, all grown from one release.

    A compaction that a crash cut short counts: it may take the daemon down each time, and comes
    before all new facts. What forgets comes last, and is not made to wait for a crash.
    """
    no_fault = (releases.INTERRUPTED,) if kind == "compaction" else releases.CUT_SHORT
    # The last by its number: by its time it may be one that a clock dated ahead.
    row = store.one(
        "WITH tried AS (SELECT * FROM release WHERE state = 'refused' AND kind = ?"
        "  AND batch_id IS NULL AND parent = ?"
        "  AND reason NOT IN (SELECT value FROM json_each(?)))"
        " SELECT count(*) AS failed, coalesce(sum(died OR measures != '{}'), 0) AS at_work,"
        " coalesce((SELECT created_at FROM tried ORDER BY number DESC LIMIT 1), '') AS last"
        " FROM tried",
        kind,
        parent,
        json.dumps(no_fault),
    )
    assert row is not None, "an aggregate has a row"
    return _Tries(**row)


def _is_put_off(tries: _Tries, config: Config, now: datetime) -> bool:
    if not tries.failed:
        return False
    wait = wait_after(tries.failed, timedelta(minutes=config.daemon.retry_minutes), 0)
    return _is_recent(tries.last, wait, now)


def _compaction(store: Store, config: Config, now: datetime) -> Plan | None:
    """Plan to rewrite shards of the promoted release when a bound is passed.

    First leaves what has been retracted; and after one that failed at work the next try waits for
    as many releases as small shards may gather, so that it has something else to work with.
    """
    parent, section = releases.promoted(store), config.wise
    views = shards.views(store, parent.number)
    wanted = due(views, section.max_small_shards, section.max_dead_share)
    live = facts.of_release(store, parent.number)
    if not wanted or any(fact.state != "promoted" for fact in live):
        return None
    row = store.one(
        "SELECT max(number) AS n FROM release WHERE kind = 'compaction' AND state = 'refused'"
        " AND (died OR measures != '{}')"
    )
    assert row is not None, "an aggregate has a row"
    if row["n"] is not None and parent.number <= row["n"] + section.max_small_shards:
        return None
    if _is_put_off(_tries(store, "compaction", parent.number), config, now):
        return None
    number, last = begin(
        store, config, parent.number, now, kind="compaction", rewritten=json.dumps(wanted)
    )
    data = {"to": "building", "parent": parent.number, "rewritten": list(wanted)}
    store.event("release.plan", f"release:{number}", data, now)
    return Plan(number, parent.number, (), tuple(live), (), last, rewritten=wanted)


def begin(
    store: Store, config: Config, parent: int, now: datetime, **columns: object
) -> tuple[int, int]:
    """Record a candidate with all that determines it; return its number and the newest fact."""
    row = store.one(
        "SELECT (SELECT max(number) FROM release) AS number, (SELECT max(id) FROM fact) AS fact"
    )
    assert row is not None and row["number"] is not None, "init makes release 0"
    number, last = row["number"] + 1, row["fact"] or 0
    body = settings_text(config)
    digest = hashlib.sha256(body.encode()).hexdigest()
    store.connection.execute("INSERT OR IGNORE INTO settings VALUES (?, ?)", (digest, body))
    candidate = {"number": number, "state": "building", "parent": parent, "last_fact": last}
    candidate |= {"settings": digest, "created_at": timestamp(now), **columns}
    store.insert("release", candidate)
    return number, last


def settings_text(config: Config) -> str:
    """Return the settings that a release is a function of, as one line of JSON."""
    return json.dumps(config.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)


def settings_of(store: Store, release: Release) -> str:
    """Return the settings that a release was made with, as `settings_text` gave them."""
    row = store.one("SELECT body FROM settings WHERE sha256 = ?", release.settings)
    if row is None:
        raise Conflict(f"release {release.number}: what it was made from is not on record")
    return str(row["body"])


def recorded(store: Store, release: Release) -> Plan:
    """Return the plan that a release was made by. Raises Conflict when it was not recorded."""
    if release.parent is None or release.last_fact is None:
        raise Conflict(f"release {release.number}: what it was made from is not on record")
    parent = facts.of_release(store, release.parent)
    held = facts.of_release(store, release.number)
    before, after = {f.id for f in parent}, {f.id for f in held}
    return Plan(
        release.number,
        release.parent,
        tuple(f for f in held if f.id not in before),
        tuple(f for f in held if f.id in before),
        tuple(f for f in parent if f.id not in after),
        release.last_fact,
        rewritten=release.rewritten,
    )


def request(store: Store, config: Config, plan: Plan, parent: Path | None, folder: Path) -> Build:
    """Return what the worker needs to build ``plan`` in ``folder`` on ``parent``'s folder."""
    names = Names(config.subjects)
    # By these settings and not as stored: keys are made anew when the names change.
    slot_of = {f.id: names.slot_key(f.subject, f.relation) for f in (*plan.new, *plan.withdrawn)}
    replaced: dict[str, tuple[str, ...]] = {}
    for fact in plan.withdrawn:
        replaced[slot_of[fact.id]] = (*replaced.get(slot_of[fact.id], ()), fact.object)
    new_slots = {slot_of[f.id] for f in plan.new}
    told = _Told(store, names, plan.last_fact)

    def text(fact: Fact, replaces: tuple[str, ...] = ()) -> FactText:
        return _text(fact, config, told.others(fact), replaces)

    return Build(
        number=plan.number,
        parent=str(parent) if parent else None,
        out=str(folder),
        facts=tuple(text(f, replaced.get(slot_of[f.id], ())) for f in plan.new),
        kept=tuple(map(text, plan.kept)),
        withdrawn=tuple(text(f) for f in plan.withdrawn if slot_of[f.id] not in new_slots),
        rewritten=plan.rewritten,
        questions=_questions(store, config, names, plan),
    )


def _questions(store: Store, config: Config, names: Names, plan: Plan) -> Questions:
    """Choose questions, each subject under one of its names, so that no live slot is asked."""
    known = sorted({subject for subject, _ in facts.slots(store, plan.last_fact)}, reverse=True)
    name_of = {names.key(name): name for name in known}  # the first of its names by the alphabet

    def slot(fact: Fact) -> Slot:
        return Slot(name_of.get(names.key(fact.subject), fact.subject), fact.relation)

    changed = plan.new or _of_shards(store, plan, config)
    return questions.choose(
        config.relations,
        set(name_of.values()),
        {slot(f) for f in (*plan.held, *plan.withdrawn)},
        [slot(f) for f in changed if f.relation != ASKED],
        far=config.gate.far_probes,
        seed=config.wise.seed,
    )


def _of_shards(store: Store, plan: Plan, config: Config) -> tuple[Fact, ...]:
    """Return a sample of the facts whose shards are rewritten, for probes near to them."""
    shard_of = shards.of_facts(store, plan.parent)
    there = [fact for fact in plan.kept if shard_of.get(fact.id) in plan.rewritten]
    sample = min(config.gate.retention_sample, len(there))
    return tuple(random.Random(f"{config.wise.seed}:{plan.number}").sample(there, sample))


def _text(
    fact: Fact, config: Config, others: Sequence[str], replaces: tuple[str, ...] = ()
) -> FactText:
    """Return a fact as it is written: asked as it is stored, and under its subject's other names.

    So no name is left to answer as before; of the other names one phrasing each is a probe.
    """
    relation = config.relations.get(fact.relation)
    trained = relation.prompts if relation else ()
    probed = relation.held_out[:1] if relation else ()
    return FactText(
        id=fact.id,
        object=fact.object,
        prompts=(*fact.prompts, *(fill(prompt, name) for name in others for prompt in trained)),
        held_out=(*fact.held_out, *(fill(prompt, name) for name in others for prompt in probed)),
        replaces=replaces,
    )


class _Told:
    """The names under which sources have spoken of each slot.

    Only these are asked, as the table spells them: a name that no source uses would take room
    and blur the router's keys for nothing.
    """

    def __init__(self, store: Store, names: Names, last: int) -> None:
        self._names = names
        self._under: dict[str, set[str]] = {}  #: by slot: the keys of the names
        slots = facts.slots(store, last)
        several = {name for name in {subject for subject, _ in slots} if names.others(name)}
        for subject, relation in slots:
            if subject in several:
                slot = names.slot_key(subject, relation)
                self._under.setdefault(slot, set()).add(name_key(subject))

    def others(self, fact: Fact) -> tuple[str, ...]:
        """Return the names of a fact's slot other than its own, in the table's order."""
        under = self._under.get(self._names.slot_key(fact.subject, fact.relation), ())
        others = self._names.others(fact.subject) if under else ()
        return tuple(name for name in others if name_key(name) in under)
