import json

import pytest
from cli_world import (
    EDITED,
    NOW,
    add_fact,
    add_release,
    add_source,
    new_state,
    refuse,
    wised,
)

from daemon import releases, status


@pytest.fixture
def state(tmp_path):
    return new_state(tmp_path)


def read(state):
    with state.store(read_only=True) as store:
        return status.read(state, store)


def test_a_new_state_is_healthy_and_answers_with_the_bare_model(state):
    seen = read(state)
    assert seen.problems == ()
    assert seen.daemon is None
    assert (seen.release.number, seen.held, seen.gate) == (0, 0, None)
    assert seen.oldest_waiting is None


def test_a_source_is_unhealthy_from_its_third_failure_on(state):
    source = add_source(state, failures=2, last_error="fetch.timeout: slow")
    assert read(state).problems == ()
    with state.store() as store:
        store.db["source"].update(source, {"failures": 3})
    assert read(state).problems == ("source world failed 3 times in a row",)
    assert wised(state, "status", "--check").code == 6


def test_a_paused_source_is_not_a_problem(state):
    add_source(state, failures=9, state="paused")
    assert read(state).problems == ()


def test_a_hold_is_a_problem(state):
    with state.store() as store, store.write():
        releases.hold(store, "edit", "new disk", NOW)
    assert read(state).problems == ("edit is on hold: new disk",)


def test_a_refused_candidate_is_a_problem_until_a_newer_one_passes(state):
    refuse(state, 1, "reliability 0.5", '{"reliability": {"right": 1, "asked": 2}}')
    seen = read(state)
    assert seen.problems == ("release 1 was refused: reliability 0.5",)
    assert seen.gate is not None
    assert seen.gate.number == 1
    add_release(state, 2)
    assert read(state).problems == ()


def test_the_daemon_is_seen_running_and_the_lock_is_not_taken(state):
    with state.lock():
        ran = wised(state, "status", "--json")
    assert ran.json["daemon"]["running"] is True
    assert ran.json["daemon"]["holder"].startswith("pid ")


def test_the_screen_names_queue_release_gate_and_oldest_waiting(state):
    one = add_fact(state, events=EDITED)
    add_fact(state, "Mali", "Bamako")
    add_fact(state, "Peru", "Lima", events=())
    measures = json.dumps({"reliability": {"right": 158, "asked": 160}})
    add_release(state, 1, (one,), measures=measures)
    add_source(state, failures=1, last_error="fetch.timeout: slow")
    add_source(state, "calm")
    ran = wised(state, "status")
    lines = [tuple(row) for row in ran.rows]
    assert ("health", "ok") in lines
    assert ("daemon", "not running") in lines
    assert ("facts", "1 pending, 1 promoted, 1 received") in lines
    assert ("sources", "1 failing, 1 ok") in lines
    assert ("  failing", "world, 1 times in a row: fetch.timeout: slow") in lines
    assert ("  reliability", "0.9875 (158 of 160)") in lines
    assert any(n == "release" and t.startswith("1: 1 facts, promoted") for n, t in lines)
    assert any(n == "oldest waiting" and t.startswith("fact 2, pending") for n, t in lines)


def test_the_json_has_rates_ages_and_counts(state):
    refuse(state, 1, "too few right", '{"reliability": {"right": 1, "asked": 2}}')
    found = wised(state, "status", "--json").json
    assert found["schema_version"] == 1
    assert found["healthy"] is False
    assert found["gate"]["measures"] == {"reliability": {"right": 1, "asked": 2, "rate": 0.5}}
    assert found["gate"]["reason"] == "too few right"
    assert found["release"]["age_seconds"] > 0
    assert found["dead_letters"] == 0


def test_check_without_problems_exits_0_and_without_check_problems_do_not_matter(state):
    assert wised(state, "status", "--check").code == 0
    refuse(state, 1, "no")
    assert wised(state, "status").code == 0
    assert wised(state, "status", "--check").code == 6
