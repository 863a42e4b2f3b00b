"""One cycle: plan a batch, build its candidate, judge it, publish and promote it, or refuse it.

Each step that must survive a crash is one transaction; `releases.reconcile` undoes what stands
between two of them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from daemon import questions, releases
from daemon.child import WorkerError
from daemon.config import Config
from daemon.errors import Conflict, IntegrityError, Refused
from daemon.messages import Build, Built, FactText, Measured
from daemon.publish import publish, workplace
from daemon.questions import Slot
from daemon.state import State
from daemon.store import Store, facts, timestamp
from daemon.store.facts import Fact
from ingest import ASKED
from policies import (
    FactResult,
    GateOutcome,
    Measure,
    Thresholds,
    Verdict,
    blamed_facts,
    failing_facts,
    judge,
)

#: hands a build request to the worker
BuildCandidate = Callable[[Build], Built]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a candidate consists of."""

    batch: int
    number: int  #: of the release to be
    parent: int
    new: tuple[Fact, ...]
    kept: tuple[Fact, ...]  #: of the parent's facts, in its order
    withdrawn: tuple[Fact, ...]  #: of the parent's facts: superseded by new ones, or retracted


@dataclass(frozen=True, slots=True)
class Done:
    """How a cycle ended."""

    outcome: str  #: ``promoted``, ``verified`` (a hold keeps it back), ``refused`` or ``failed``
    release: int | None
    reasons: tuple[str, ...] = ()
    promoted: int = 0  #: new facts in the release
    set_aside: int = 0  #: facts that failed their probes


def cycle(
    state: State, store: Store, config: Config, build: BuildCandidate, clock: Callable[[], datetime]
) -> Done | None:
    """Run one cycle; None when nothing waits. Raises WorkerError only for a shutdown."""
    if (waiting := promote_waiting(state, store, config, clock())) is not None:
        return waiting
    with store.write():
        plan = make_plan(store, config, clock())
    if plan is None:
        return None
    folder = workplace(state.releases, plan.number)
    try:
        return _run(state, store, config, build, clock, plan, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def promote_waiting(state: State, store: Store, config: Config, now: datetime) -> Done | None:
    """Promote a verified candidate that a crash or a hold kept back."""
    for release in releases.all_releases(store):
        if release.state == "verified":
            return _promote(state, store, config, release.number, 0, now)
    return None


def make_plan(store: Store, config: Config, now: datetime) -> Plan | None:
    """Take the approved facts, oldest first and one a slot, into a new batch.

    Inside a transaction. Of two approved facts of one slot the later asserted one counts.
    """
    parent = releases.promoted(store).number
    live = facts.of_release(store, parent)
    new: dict[str, Fact] = {}
    for fact in _one_a_slot(store, now):
        if len(new) < config.wise.batch_max_facts:
            new[fact.slot_key] = fact
    withdrawn = tuple(f for f in live if f.state != "promoted" or f.slot_key in new)
    row = store.one(
        "SELECT coalesce(max(number), 0) AS last,"
        " coalesce(sum(state = 'refused' AND parent = ?), 0) AS refused FROM release",
        parent,
    )
    assert row is not None
    if not new and (not withdrawn or row["refused"] >= config.daemon.max_attempts):
        return None  # a release that only forgets is not tried for ever
    number = row["last"] + 1
    batch_id = store.insert("batch", {"state": "building", "created_at": timestamp(now)})
    for fact in new.values():
        store.transition("fact", fact.id, "batch", now, batch_id=batch_id)
    candidate = {"number": number, "state": "building", "parent": parent}
    candidate |= {"batch_id": batch_id, "created_at": timestamp(now)}
    store.insert("release", candidate)
    data = {"to": "building", "parent": parent, "batch": batch_id, "facts": len(new)}
    store.event("release.plan", f"release:{number}", data, now)
    kept = tuple(f for f in live if f not in withdrawn)
    return Plan(batch_id, number, parent, tuple(new.values()), kept, withdrawn)


def _one_a_slot(store: Store, now: datetime) -> list[Fact]:
    """Return the approved facts, oldest first; of one slot only the latest, the others give way."""
    latest: dict[str, Fact] = {}
    for fact in facts.in_states(store, ("approved",)):
        held = latest.get(fact.slot_key)
        if held is None:
            latest[fact.slot_key] = fact
            continue
        older, newer = sorted((held, fact), key=lambda f: (f.asserted_at, f.id))
        store.transition("fact", older.id, "supersede", now, f"fact {newer.id} is newer")
        latest[fact.slot_key] = newer
    return sorted(latest.values(), key=lambda f: f.id)


def _run(
    state: State,
    store: Store,
    config: Config,
    build: BuildCandidate,
    clock: Callable[[], datetime],
    plan: Plan,
    folder: Path,
) -> Done:
    """Build and judge until the candidate passes, is refused, or nothing is left of it."""
    set_aside = 0
    for attempt in range(config.gate.max_rebuilds + 1):
        workplace(state.releases, plan.number)
        try:
            built = build(request(state, store, config, plan, folder))
        except WorkerError as error:
            return _failed(store, config, plan, error, clock())
        verdict = verdict_on(built, config)
        failing = failing_facts(_results(built)) or blamed_facts(_results(built), verdict)
        if not failing:
            break
        set_aside += len(failing)
        reasons = {one.fact_id: one.reason for one in failing}
        plan = _without(store, plan, built, reasons, clock())
        if not plan.new and not plan.withdrawn:
            return _refuse(store, plan, built, ("no fact could be written",), set_aside, clock())
        if attempt == config.gate.max_rebuilds:
            why = f"facts still fail after {attempt + 1} builds"
            return _refuse(store, plan, built, (why,), set_aside, clock())
    if verdict.outcome is not GateOutcome.PASSED:
        return _refuse(store, plan, built, _explained(verdict, built), set_aside, clock())
    _publish(state, store, config, plan, built, folder, clock())
    return _promote(state, store, config, plan.number, set_aside, clock())


def request(state: State, store: Store, config: Config, plan: Plan, folder: Path) -> Build:
    """Return what the worker needs to build ``plan`` in ``folder``."""
    live = {Slot(f.subject, f.relation) for f in (*plan.kept, *plan.new)}
    withdrawn = {Slot(f.subject, f.relation) for f in plan.withdrawn}
    chosen = questions.choose(
        config.relations,
        set(facts.subjects(store)),
        live | withdrawn,
        [Slot(f.subject, f.relation) for f in plan.new if f.relation != ASKED],
        far=config.gate.far_probes,
        seed=config.wise.seed,
    )
    replaced = {f.slot_key: f.object for f in plan.withdrawn}
    place = releases.folder_of(state, releases.get(store, plan.parent))
    new_slots = {f.slot_key for f in plan.new}
    return Build(
        number=plan.number,
        parent=str(place) if place else None,
        out=str(folder),
        facts=tuple(_text(f, replaced.get(f.slot_key)) for f in plan.new),
        kept=tuple(_text(f) for f in plan.kept),
        withdrawn=tuple(_text(f) for f in plan.withdrawn if f.slot_key not in new_slots),
        questions=chosen,
    )


def _text(fact: Fact, replaces: str | None = None) -> FactText:
    older = () if replaces is None else (replaces,)
    return FactText(
        id=fact.id,
        object=fact.object,
        prompts=fact.prompts,
        held_out=fact.held_out,
        replaces=older,
    )


def verdict_on(built: Built, config: Config) -> Verdict:
    """Judge a candidate's measures by the configured gate."""
    gate = config.gate
    thresholds = Thresholds(
        reliability=gate.min_reliability,
        generalisation=gate.min_generalisation,
        after_text=gate.min_after_text,
        second_turn=gate.min_second_turn,
        locality_near=gate.min_locality_near,
        locality_far=gate.min_locality_far,
        retention=gate.min_retention,
        withdrawn=1.0,
        stale=gate.max_stale,
    )
    measures = {name: _measure(name, m) for name, m in built.measures.items()}
    required = frozenset({"locality_far"} | ({"reliability"} if built.outcomes else set()))
    return judge(measures, thresholds, required)


def _explained(verdict: Verdict, built: Built) -> tuple[str, ...]:
    """Return the gate's reasons, each with an example of what was answered."""
    first = {miss.probe: miss for miss in reversed(built.misses)}
    reasons = []
    for name, reason in zip(verdict.measures, verdict.reasons, strict=True):
        miss = first.get(name)
        if miss:
            said = f"{miss.prompt!r} answered {miss.answer!r}, not {miss.expected!r}"
            reason = f"{reason}, e.g. {said}"
        reasons.append(reason)
    return tuple(reasons)


def _measure(name: str, measured: Measured) -> Measure:
    right = measured.asked - measured.right if name == "stale" else measured.right
    return Measure(name, right, measured.asked)


def _results(built: Built) -> list[FactResult]:
    return [
        FactResult(
            o.id,
            o.reliable,
            o.generalised,
            o.generalised_asked,
            o.in_context,
            o.in_context_asked,
        )
        for o in built.outcomes
    ]


def _without(
    store: Store, plan: Plan, built: Built, reasons: dict[int, str], now: datetime
) -> Plan:
    """Set failing facts aside for good; what they would have replaced stays."""
    unfit = {o.id: o.unfit for o in built.outcomes if o.unfit}
    failed = [f for f in plan.new if f.id in reasons]
    with store.write():
        for fact in failed:
            why = "; ".join(filter(None, (reasons[fact.id], unfit.get(fact.id, ""))))
            store.transition("fact", fact.id, "fail", now, why)
    new = tuple(f for f in plan.new if f.id not in reasons)
    slots = {f.slot_key for f in new}
    parent = facts.of_release(store, plan.parent)
    withdrawn = tuple(f for f in parent if f.state != "promoted" or f.slot_key in slots)
    kept = tuple(f for f in parent if f not in withdrawn)
    return Plan(plan.batch, plan.number, plan.parent, new, kept, withdrawn)


def _publish(
    state: State,
    store: Store,
    config: Config,
    plan: Plan,
    built: Built,
    folder: Path,
    now: datetime,
) -> None:
    """Complete the folder, then let one transaction make it a verified release."""
    held = (*plan.kept, *plan.new)
    settings = config.wise.model_dump()
    done = publish(store, folder, plan.number, plan.parent, held, built, settings, now)
    with store.write():
        for fact in plan.new:
            store.transition("fact", fact.id, "edit", now)
            store.transition("fact", fact.id, "verify", now, f"release {plan.number}")
        rows = [
            {"release": plan.number, "position": i, "fact_id": f.id} for i, f in enumerate(held)
        ]
        store.table("release_fact").insert_all(rows)
        store.transition(
            "release",
            plan.number,
            "publish",
            now,
            folder=done.folder,
            manifest_sha256=done.manifest_sha256,
            measures=_measures(built),
        )
        store.transition("release", plan.number, "verify", now, "passed the gate")
        store.connection.execute("UPDATE batch SET state = 'built' WHERE id = ?", (plan.batch,))


def _promote(
    state: State, store: Store, config: Config, number: int, set_aside: int, now: datetime
) -> Done:
    """Promote a verified candidate, keep it waiting for a hold, or refuse it when it can't be."""
    release = releases.get(store, number)
    if "promote" in releases.holds(store):
        return Done("verified", number, ("promotion is on hold",), 0, set_aside)
    try:
        releases.promote(state, store, number, now, "passed the gate", after=release.parent)
    except (Conflict, Refused, IntegrityError) as error:
        return _withdraw(store, release, str(error), now)
    releases.prune(state, store, config.daemon.keep_releases, now)
    new = facts.of_batch(store, release.batch_id) if release.batch_id else []
    return Done("promoted", number, (), sum(f.state == "promoted" for f in new), set_aside)


def _withdraw(store: Store, release: releases.Release, why: str, now: datetime) -> Done:
    """Refuse a verified candidate that events have overtaken; its facts are approved again."""
    with store.write():
        store.transition("release", release.number, "refuse", now, why)
        if release.batch_id is not None:
            for fact in facts.of_batch(store, release.batch_id):
                if fact.state == "verified":
                    store.transition("fact", fact.id, "return", now, why)
    return Done("refused", release.number, (why,))


def _refuse(
    store: Store,
    plan: Plan,
    built: Built,
    reasons: Sequence[str],
    set_aside: int,
    now: datetime,
) -> Done:
    """Record why a candidate was refused; its facts wait for a person."""
    why = "; ".join(reasons)
    with store.write():
        for fact in plan.new:
            store.transition("fact", fact.id, "fail", now, f"release {plan.number} refused: {why}")
        store.transition("release", plan.number, "refuse", now, why, measures=_measures(built))
        store.connection.execute(
            "UPDATE batch SET state = 'failed', error = ? WHERE id = ?", (why, plan.batch)
        )
    return Done("refused", plan.number, tuple(reasons), 0, set_aside)


def _failed(store: Store, config: Config, plan: Plan, error: WorkerError, now: datetime) -> Done:
    """Give the facts back for another try, or up after too many. Raises a shutdown again."""
    stopped = error.code == "worker.stopped"
    with store.write():
        for fact in plan.new:
            tries = fact.attempts + (0 if stopped else 1)
            event = "fail" if tries >= config.daemon.max_attempts else "return"
            store.transition("fact", fact.id, event, now, str(error), attempts=tries)
        store.transition("release", plan.number, "refuse", now, str(error))
        store.connection.execute(
            "UPDATE batch SET state = 'failed', error = ? WHERE id = ?", (str(error), plan.batch)
        )
    if stopped:
        raise error
    return Done("failed", plan.number, (str(error),))


def _measures(built: Built) -> str:
    return json.dumps({name: m.model_dump() for name, m in built.measures.items()})
