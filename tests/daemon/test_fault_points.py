"""C1: a real process dies at every named point between two durable steps, and nothing is lost."""

import ast
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from world import START, new_state

from daemon import faults, releases
from daemon.faults import POINTS, STATUS, VARIABLE
from daemon.invariants import violations
from daemon.state import State
from daemon.store import facts, timestamp
from demo import feed
from demo.world import Update

HERE = Path(__file__).parent
DAEMON = Path(faults.__file__).parent


def said(subject, new, old="nobody", day=1):
    return Update(f"2021-01-{day:02}", subject, "head_of_government", old, new)


FIRST = [said("Italy", "Mario Draghi"), said("Peru", "Francisco Sagasti")]
SECOND = [*FIRST, said("Chad", "Albert Padacke")]
#: one new, one that takes another's place, one that fails its probes, one said twice
THIRD = [
    *SECOND,
    said("Kenya", "William Ruto", day=2),
    said("Italy", "Giorgia Meloni", "Mario Draghi", day=2),
    said("Nowhere", "Nobody", day=2),
    said("KENYA", "william ruto", "x", day=3),
]
HELD = {
    "Chad": "Albert Padacke",
    "Italy": "Giorgia Meloni",
    "Kenya": "William Ruto",
    "Peru": "Francisco Sagasti",
}
STATES = {"promoted": 4, "superseded": 1, "failed": 1, "duplicate": 1}
#: after what `mortal.py` does when it is told to retract fact 2, or to look at hopeless facts only
RETRACTED = HELD.keys() - {"Peru"}


def live(state, verb="turn", days=0, fault=None):
    """Let one daemon live as a process; return its exit status."""
    command = [sys.executable, str(HERE / "mortal.py"), str(state.folder), verb, str(days)]
    environment = {**os.environ, VARIABLE: fault} if fault else os.environ
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode in (0, STATUS), done.stderr
    return done.returncode


@pytest.fixture(scope="module")
def site():
    with feed.served(feed.document(FIRST)) as served:
        yield served


@pytest.fixture(scope="module")
def before(tmp_path_factory, site):
    """A state with three releases, and a feed that has news for it."""
    state = new_state(tmp_path_factory.mktemp("before"))
    at = timestamp(START)
    row = {"name": "offices", "kind": "feed", "location": site.url, "tier": "trusted"}
    with state.store() as store:
        store.insert("source", row | {"allow_private": "any", "next_poll_at": at, "created_at": at})
    for days, changes in enumerate((FIRST, SECOND)):
        site.publish(feed.document(changes))
        assert live(state, days=days) == 0
    site.publish(feed.document(THIRD))
    return state


@pytest.fixture
def state(before, tmp_path):
    shutil.copytree(before.folder, tmp_path / "state", symlinks=True)
    return State(tmp_path / "state")


def held(store):
    return {f.subject: f.object for f in facts.of_release(store, releases.promoted(store).number)}


def check(state, expected, states):
    with state.store() as store:
        assert violations(state, store) == []
        assert held(store) == expected
        assert facts.counts(store) == states
        found = Counter(row["title"] for row in store.rows("SELECT title FROM entry"))
        assert set(found.values()) == {1}
        return len(found)


def test_c01_a_turn_that_nothing_disturbs_ends_as_every_other_has_to(state):
    assert live(state, days=2) == 0
    assert check(state, HELD, STATES) == len(THIRD)


TURN = POINTS[: POINTS.index("emergency.retracted")]
REFUSED = ("cycle.refused",)


@pytest.mark.parametrize("point", [p for p in TURN if p not in REFUSED])
def test_c01_dying_at_any_point_of_a_turn_loses_nothing_and_does_nothing_twice(state, point):
    assert live(state, days=2, fault=point) == STATUS, "the point was never reached"
    assert live(state, days=2) == 0
    assert check(state, HELD, STATES) == len(THIRD)


def test_c01_dying_between_two_decisions_of_triage_loses_nothing(state):
    assert live(state, days=2, fault="triage.decided:3") == STATUS
    assert live(state, days=2) == 0
    check(state, HELD, STATES)


@pytest.mark.parametrize(
    ("first", "point"),
    [
        ("cycle.built", "start.noted"),
        ("cycle.built", "reconcile.dropped"),
        ("publish.renamed", "reconcile.tidied"),
        ("promote.moved", "reconcile.checked"),
    ],
)
def test_c01_dying_again_while_tidying_up_after_a_death_loses_nothing(state, first, point):
    assert live(state, days=2, fault=first) == STATUS
    assert live(state, days=2, fault=point) == STATUS
    assert live(state, days=2) == 0
    check(state, HELD, STATES)


@pytest.mark.parametrize("point", REFUSED)
def test_c01_dying_after_a_refusal_keeps_what_answered(state, point, site):
    site.publish(feed.document([*SECOND, said("Nowhere", "Nobody")]))
    try:
        assert live(state, days=2, fault=point) == STATUS
        assert live(state, days=2) == 0
    finally:
        site.publish(feed.document(THIRD))
    stays = {**HELD, "Italy": "Mario Draghi"}
    del stays["Kenya"]
    check(state, stays, {"promoted": 3, "failed": 1})


AMID = [p for p in POINTS if p.startswith("emergency.") and p != "emergency.overtaken"]


@pytest.mark.parametrize("point", AMID)
def test_c01_dying_amid_a_retraction_takes_the_fact_out_all_the_same(state, point):
    assert live(state, days=2) == 0
    assert live(state, "retract", days=3, fault=point) == STATUS
    assert live(state, days=4) == 0
    left = {subject: HELD[subject] for subject in HELD if subject != "Peru"}
    check(state, left, {**STATES, "promoted": 3, "retracted": 1})


def test_every_point_that_is_named_is_passed_and_no_other():
    found = Counter()
    for path in DAEMON.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "fault":
                (name,) = node.args
                found[name.value] += 1
    assert found == Counter(POINTS)


#: transactions that nothing durable follows in their function, and why no point is needed there
LAST_STEPS = {
    "attempts.put_off": "a reconcile follows, with a point of its own before and after",
    "clock.let_all_be_due": "it may be done twice",
    "cycle._publish": "cycle.verified follows in the caller",
    "cycle._without": "cycle.set_aside follows in the caller",
    "database._migrate": "each migration is whole, and the next open goes on with the next",
    "emergency._publish": "emergency.verified follows in the caller",
    "health.vacuum": "a person's command, which is done again",
    "keys.renew": "one transaction; a start does it again",
    "polling._wait": "one transaction; the log is looked at again",
    "reading._failed": "one transaction; the entry is read again",
    "reading._keep": "one transaction; the entry is read again",
    "releases.approve": "a person's command, one transaction",
    "releases.relink": "link.made and link.replaced are in what it calls",
    "releases._drop_unfinished": "reconcile.dropped follows in the caller",
    "releases.rollback": "only a hold, on what answers already",
    "retention._letters": "one transaction; the walk is begun anew",
    "retention._texts": "one transaction; the walk is begun anew",
    "state.init": "one transaction; init is done again",
    "triage.approve": "a person's command, one transaction",
    "vectors.save": "vectors are made again",
    "vitals.beat": "a sign of life",
}


def writes_without_a_point():
    """Functions of the daemon in which no point follows the last transaction."""
    for path in DAEMON.rglob("*.py"):
        if "cli" in path.relative_to(DAEMON).parts:
            continue  # a person's commands; those of several steps are above
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.FunctionDef):
                continue
            calls = [one for one in ast.walk(node) if isinstance(one, ast.Call)]
            writes = [
                c.lineno for c in calls if getattr(c.func, "attr", "") == "write" and not c.args
            ]
            points = [c.lineno for c in calls if getattr(c.func, "id", "") == "fault"]
            if writes and max(writes) > max(points, default=0):
                yield f"{path.stem}.{node.name}"


def test_a_point_follows_every_durable_step_that_another_one_follows():
    assert set(writes_without_a_point()) == set(LAST_STEPS)


def test_an_unknown_point_is_an_error_when_one_is_asked_for(monkeypatch):
    faults.fault("nowhere")
    monkeypatch.setenv(VARIABLE, "poll.stored")
    with pytest.raises(KeyError, match="nowhere"):
        faults.fault("nowhere")


def test_an_invariant_that_is_broken_is_named(state):
    assert live(state, days=2) == 0
    with state.store() as store:
        store.connection.execute("UPDATE fact SET state = 'approved' WHERE subject = 'Chad'")
        store.connection.execute("UPDATE batch SET state = 'building' WHERE id = 1")
        number = releases.promoted(store).number
        folder = releases.folder_of(state, releases.promoted(store))
        (folder / "facts.jsonl").chmod(0o600)
        (folder / "facts.jsonl").write_text("")
        state.current.unlink()
        found = "\n".join(violations(state, store))
    assert f"current points to None, and release {number} lies in" in found
    assert f"release {number}: " in found
    assert "fact 3 is approved, and the promoted release holds it" in found
    assert "fact 3 is approved, and the audit log says promoted" in found
    assert "batch 1 is building, and no cycle runs" in found
