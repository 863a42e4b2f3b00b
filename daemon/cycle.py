"""One cycle: plan a candidate, build it, judge it, publish and promote it, or refuse it.

Each step that must survive a crash is one transaction; `releases.reconcile` undoes what stands
between two of them.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

from daemon import attempts, releases
from daemon import plan as plans
from daemon.child import WorkerError
from daemon.config import Config
from daemon.errors import Conflict, IntegrityError, OnHold, Refused
from daemon.faults import fault
from daemon.messages import Build, Built
from daemon.plan import Plan
from daemon.publish import publish, workplace
from daemon.state import State
from daemon.store import Store, facts, shards, timestamp
from daemon.store.facts import Fact
from daemon.verdict import explained, results, verdict_on
from policies.gate import Outcome as GateOutcome
from policies.gate import blamed_facts, failing_facts

#: hands a build request to the worker
BuildCandidate = Callable[[Build], Built]


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
        plan = plans.next_plan(store, config, clock())
    if plan is None:
        return None
    fault("cycle.planned")
    folder = workplace(state.releases, plan.number)
    try:
        return _run(state, store, config, build, clock, plan, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def promote_waiting(state: State, store: Store, config: Config, now: datetime) -> Done | None:
    """Promote a verified candidate that a crash or a hold kept back, one without a hold first."""
    waiting = [r for r in releases.all_releases(store) if r.state == "verified"]
    waiting.sort(key=lambda release: releases.is_held_back(store, release))
    return _promote(state, store, config, waiting[0].number, 0, now) if waiting else None


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
    parent = releases.folder_of(state, releases.get(store, plan.parent))
    for attempt in range(config.gate.max_rebuilds + 1):
        workplace(state.releases, plan.number)
        try:
            built = build(plans.request(store, config, plan, parent, folder))
        except WorkerError as error:
            return _failed(store, config, plan, error, clock())
        fault("cycle.built")
        verdict = verdict_on(built, config)
        failing = failing_facts(results(built)) or blamed_facts(results(built), verdict)
        if not failing:
            break
        set_aside += len(failing)
        reasons = {one.fact_id: one.reason for one in failing}
        plan = _without(store, config, plan, built, reasons, clock())
        fault("cycle.set_aside")
        if not plan.new and not plan.withdrawn:
            return _refuse(
                store, config, plan, built, ("no fact could be written",), set_aside, clock()
            )
        if attempt == config.gate.max_rebuilds:
            why = f"facts still fail after {attempt + 1} builds"
            return _refuse(store, config, plan, built, (why,), set_aside, clock())
    why = "passed the gate"
    if verdict.outcome is not GateOutcome.PASSED:
        short = explained(verdict, built)
        if not _only_forgets(plan, built):
            return _refuse(store, config, plan, built, short, set_aside, clock())
        why = "; ".join(("it only forgets, and can't be worse than what it replaces", *short))
    _publish(state, store, config, plan, built, folder, why, clock())
    fault("cycle.verified")
    return _promote(state, store, config, plan.number, set_aside, clock())


def _only_forgets(plan: Plan, built: Built) -> bool:
    """Tell whether a candidate is its parent without some keys, and nothing was trained."""
    trained = any(shard.inherited is None for shard in built.shards)
    return not plan.new and not trained and (bool(built.shards) or not plan.held)


def _without(
    store: Store,
    config: Config,
    plan: Plan,
    built: Built,
    reasons: dict[int, str],
    now: datetime,
) -> Plan:
    """Set failing facts aside, for a later batch or for good; what they would replace stays.

    Of a few probes some miss by chance, and facts fit better beside others: so each has as many
    tries as a batch whose worker dies.
    """
    unfit = {o.id: o.unfit for o in built.outcomes if o.unfit}
    with store.write():
        for fact in plan.new:
            if fact.id in reasons:
                why = "; ".join(filter(None, (reasons[fact.id], unfit.get(fact.id, ""))))
                _give_back(store, config, fact, fact.attempts + 1, why, now)
    new = tuple(f for f in plan.new if f.id not in reasons)
    slots = {f.slot_key for f in new}
    parent = facts.of_release(store, plan.parent)
    withdrawn = tuple(f for f in parent if f.state != "promoted" or f.slot_key in slots)
    kept = tuple(f for f in parent if f not in withdrawn)
    return replace(plan, new=new, kept=kept, withdrawn=withdrawn)


def _give_back(
    store: Store, config: Config, fact: Fact, tries: int, why: str, now: datetime
) -> None:
    """Approve a batched fact again for a later batch, or give it up after too many tries."""
    event = "fail" if tries >= config.daemon.max_attempts else "return"
    store.transition("fact", fact.id, event, now, why, attempts=tries)


def _publish(
    state: State,
    store: Store,
    config: Config,
    plan: Plan,
    built: Built,
    folder: Path,
    why: str,
    now: datetime,
) -> None:
    """Complete the folder, then let one transaction make it a verified release."""
    settings = config.wise.model_dump()
    done = publish(store, folder, plan.number, plan.parent, plan.held, built, settings, now)
    with store.write():
        for fact in plan.new:
            store.transition("fact", fact.id, "edit", now)
            store.transition("fact", fact.id, "verify", now, f"release {plan.number}")
        releases.hold_facts(store, plan.number, plan.held, built.shard_of)
        shards.record(store, plan.number, plan.parent, built.shards)
        store.transition(
            "release",
            plan.number,
            "publish",
            now,
            folder=done.folder,
            manifest_sha256=done.manifest_sha256,
            measures=_measures(built),
        )
        store.transition("release", plan.number, "verify", now, why)
        store.connection.execute("UPDATE batch SET state = 'built' WHERE id = ?", (plan.batch,))


def _promote(
    state: State, store: Store, config: Config, number: int, set_aside: int, now: datetime
) -> Done:
    """Promote a verified candidate, keep it waiting for a hold, or refuse it when it can't be."""
    release = releases.get(store, number)
    held = Done("verified", number, ("promotion is on hold",), 0, set_aside)
    if releases.is_held_back(store, release):  # before its files are read, at each cycle
        return held
    try:
        releases.promote(
            state, store, number, now, release.reason, after=release.parent, unless_held=True
        )
    except OnHold:
        return held
    except (Conflict, Refused, IntegrityError) as error:
        return _withdraw(state, store, release, str(error), now)
    releases.prune(state, store, config.daemon.keep_releases, now)
    new = facts.of_batch(store, release.batch_id) if release.batch_id else []
    return Done("promoted", number, (), sum(f.state == "promoted" for f in new), set_aside)


def _withdraw(
    state: State, store: Store, release: releases.Release, why: str, now: datetime
) -> Done:
    """Refuse a verified candidate that events have overtaken; its facts are approved again.

    Nothing goes back to it any more, so its files go.
    """
    with store.write():
        store.transition("release", release.number, "refuse", now, why)
        if release.batch_id is not None:
            for fact in facts.of_batch(store, release.batch_id):
                if fact.state == "verified":
                    store.transition("fact", fact.id, "return", now, why)
    fault("cycle.withdrawn")
    releases.delete_files(state, releases.get(store, release.number))
    return Done("refused", release.number, (why,))


def _refuse(
    store: Store,
    config: Config,
    plan: Plan,
    built: Built,
    reasons: Sequence[str],
    set_aside: int,
    now: datetime,
) -> Done:
    """Record why a candidate was refused; its facts are tried again, then wait for a person."""
    why = "; ".join(reasons)
    with store.write():
        for fact in plan.new:
            said = f"release {plan.number} refused: {why}"
            _give_back(store, config, fact, fact.attempts + 1, said, now)
        store.transition("release", plan.number, "refuse", now, why, measures=_measures(built))
        attempts.close(store, plan.batch, why)
    fault("cycle.refused")
    return Done("refused", plan.number, tuple(reasons), 0, set_aside)


def _failed(store: Store, config: Config, plan: Plan, error: WorkerError, now: datetime) -> Done:
    """Give the facts back for another attempt at their batch. Raises a shutdown again.

    A fact that was alone in its batch is given up after too many.
    """
    why = releases.INTERRUPTED if error.is_stop else str(error)
    died = error.is_at_work and not error.is_stop
    with store.write():
        if plan.batch is not None:
            _end_attempt(store, config, plan, plan.batch, error, now)
        store.transition("release", plan.number, "refuse", now, why, died=int(died))
    fault("cycle.failed")
    if error.is_stop:
        raise error
    return Done("failed", plan.number, (str(error),))


def _end_attempt(
    store: Store, config: Config, plan: Plan, batch: int, error: WorkerError, now: datetime
) -> None:
    if error.is_stop:
        attempts.take_back(store, batch, str(error), now)
        facts.move(store, plan.new, "return", now, str(error))
        return
    due = attempts.failed(
        store,
        config,
        batch,
        str(error),
        now,
        is_death=error.is_at_work,
        is_alone=len(plan.new) <= 1,
        chance=random.random(),
    )
    if due is not None:
        again = f"{error}; batch {batch} is tried again from {timestamp(due)}"
        facts.move(store, plan.new, "return", now, again)
        return
    for fact in plan.new:
        tries = max(fact.attempts, config.daemon.max_attempts)
        store.transition("fact", fact.id, "fail", now, f"alone: {error}", attempts=tries)


def _measures(built: Built) -> str:
    return json.dumps({name: asdict(m) for name, m in built.measures.items()})
