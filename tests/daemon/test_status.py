import json
import os
import time

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
from daemon.config import Metrics
from daemon.observe.notify import Notifier
from daemon.observe.observer import Observer
from daemon.observe.pulse import Pulse
from daemon.signals import Asked


@pytest.fixture
def state(tmp_path):
    return new_state(tmp_path)


def read(state):
    with state.store(read_only=True) as store:
        return status.read(state, store, NOW)


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
    assert wised(state, "status", "--check").code == 7
    with state.lock():
        assert wised(state, "status", "--check").code == 6


def test_a_paused_source_is_not_a_problem(state):
    add_source(state, failures=9, state="paused")
    assert read(state).problems == ()


def test_a_source_that_is_gone_is_a_problem(state):
    add_source(state, state="gone", failures=1, last_error="fetch.gone: gone for good")
    assert read(state).problems == ("source world is gone",)


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


def hold_in_shards(state, number, shards, shard_of):
    """Record a release's shards, (made in, solved, fullness) each, and of each fact its shard."""
    with state.store() as store, store.write():
        for position, (made_in, solved, fullness) in enumerate(shards):
            row = {"release": number, "position": position, "made_in": made_in}
            store.db["shard"].insert({**row, "solved": solved, "fullness": fullness})
        for fact, shard in shard_of.items():
            store.connection.execute(
                "UPDATE release_fact SET shard = ? WHERE release = ? AND fact_id = ?",
                (shard, number, fact),
            )


def memory(state):
    """The line of the screen and the part of the JSON."""
    lines = [text for name, text in wised(state, "status").rows if name == "memory"]
    return lines, wised(state, "status", "--json").json["memory"]


@pytest.fixture
def held(state):
    """Release 1 answers, with four facts in it; their ids."""
    places = ("Chad", "Mali", "Peru", "Oman")
    ids = tuple(add_fact(state, place, place, events=EDITED) for place in places)
    add_release(state, 1, ids)
    return ids


def test_the_memory_is_shown_by_how_full_its_shards_are_and_what_is_dead_in_them(state, held):
    shards = [(1, 10, 0.9361), (1, 4, 0.8972), (1, 1, 0.30504)]
    hold_in_shards(state, 1, shards, dict(zip(held, (0, 0, 1, 2), strict=True)))
    lines, found = memory(state)
    assert lines == ["3 shards, 31 to 94 % full; 11 of 15 facts dead"]
    assert found == [
        {"made_in": 1, "live": 2, "dead": 8, "fullness": 0.9361},
        {"made_in": 1, "live": 1, "dead": 3, "fullness": 0.8972},
        {"made_in": 1, "live": 1, "dead": 0, "fullness": 0.305},
    ]


@pytest.mark.parametrize(
    ("shards", "line"),
    [
        ([(1, 4, 0.07)], "1 shard, 7 % full; 0 of 4 facts dead"),
        ([(1, 4, 1.25), (0, 7, 0.0)], "2 shards, 0 to 125 % full; 7 of 11 facts dead"),
    ],
)
def test_one_shard_and_two_are_listed_as_one_says_it(state, held, shards, line):
    hold_in_shards(state, 1, shards, dict.fromkeys(held, 0))
    assert memory(state)[0] == [line]


def test_a_fact_that_is_retracted_is_dead_in_its_shard_at_once(state, held):
    hold_in_shards(state, 1, [(1, 4, 0.5)], dict.fromkeys(held, 0))
    assert memory(state)[1] == [{"made_in": 1, "live": 4, "dead": 0, "fullness": 0.5}]
    with state.store() as store, store.write():
        store.transition("fact", held[1], "retract", NOW)
    lines, found = memory(state)
    assert found == [{"made_in": 1, "live": 3, "dead": 1, "fullness": 0.5}]
    assert lines[0].startswith("1 shard, 50 % full")


def test_the_memory_is_that_of_the_release_that_answers(state, held):
    hold_in_shards(state, 1, [(1, 4, 0.5)], dict.fromkeys(held, 0))
    more = add_fact(state, "Togo", "Togo", events=EDITED)
    add_release(state, 2, (*held, more), parent=1)
    shard_of = {**dict.fromkeys(held, 0), more: 1}
    hold_in_shards(state, 2, [(1, 4, 0.5), (2, 1, 0.125)], shard_of)
    assert memory(state)[1] == [
        {"made_in": 1, "live": 4, "dead": 0, "fullness": 0.5},
        {"made_in": 2, "live": 1, "dead": 0, "fullness": 0.125},
    ]
    wised(state, "rollback", "--to", "1")
    assert memory(state)[1] == [{"made_in": 1, "live": 4, "dead": 0, "fullness": 0.5}]


def test_without_known_shards_there_is_no_line_of_the_memory(state, held):
    assert memory(state) == ([], [])
    wised(state, "rollback", "--to", "0")
    assert memory(state) == ([], [])


def test_the_last_gate_is_shown_with_the_intervals_of_its_samples(state):
    """2 of 4 of 10 say as much as 4 * 9 / 6 = 6 do: .5 -+ .5 sqrt(1 / (1 + 6 / 3.8415))."""
    refuse(state, 1, "forgets", '{"retention": {"right": 2, "asked": 4, "whole": 10}}')
    text = "0.5000 (2 of 4 drawn from 10; 95 % within 0.1876 to 0.8124)"
    assert ["  retention", text] in wised(state, "status").rows
    found = wised(state, "status", "--json").json["gate"]["measures"]["retention"]
    assert found["interval"] == pytest.approx([0.187616, 0.812384], abs=1e-6)


def test_the_json_has_rates_ages_and_counts(state):
    refuse(state, 1, "too few right", '{"reliability": {"right": 1, "asked": 2}}')
    found = wised(state, "status", "--json").json
    assert found["schema_version"] == 1
    assert found["healthy"] is False
    assert found["gate"]["measures"] == {"reliability": {"right": 1, "asked": 2, "rate": 0.5}}
    assert found["gate"]["reason"] == "too few right"
    assert found["release"]["age_seconds"] > 0
    assert found["dead_letters"] == 0


def test_check_tells_a_daemon_that_is_well_from_one_that_is_not_and_from_none(state):
    assert wised(state, "status").code == 0
    assert wised(state, "status", "--check").code == 7
    with state.lock():
        assert wised(state, "status", "--check").code == 0
        refuse(state, 1, "no")
        assert wised(state, "status").code == 0
        assert wised(state, "status", "--check").code == 6
    assert wised(state, "status", "--check").code == 7


def test_a_daemon_that_has_fallen_silent_is_unhealthy(state):
    hour_ago = time.time() - 3600
    with state.lock():
        os.utime(state.lock_file, (hour_ago, hour_ago))
        ran = wised(state, "status", "--check")
        assert ran.code == 6
        assert "the daemon: it has written nothing for 60 min: it hangs" in ran.out
        os.utime(state.lock_file)  # one that has only just started
        assert wised(state, "status", "--check").code == 0


def test_what_keeps_the_daemon_from_working_is_a_problem(state):
    pulse = Pulse()
    pulse.ready()
    pulse.failed("edit", "no space left on device")
    observer = Observer(state, Metrics(), None, pulse, Asked(30), Notifier("", None))
    with state.lock(), state.store() as store:
        observer.tick(store)
        ran = wised(state, "status", "--check")
        assert ran.code == 6
        assert "the daemon: failing: edit: no space left on device" in ran.out
        pulse.succeeded("edit")
        observer.tick(store)
        assert wised(state, "status", "--check").code == 0
