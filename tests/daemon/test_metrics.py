"""The figures that Prometheus reads: from the tables, so that a restart keeps them."""

import json
import shutil
import time
from datetime import timedelta

import pytest
from cli_world import (
    EDITED,
    NOW,
    add_fact,
    add_release,
    add_source,
    dump,
    new_state,
    refuse,
    wised,
)
from prometheus_client.parser import text_string_to_metric_families
from test_cli_escape import HOSTILE, dangerous

from daemon import polling, releases
from daemon.observe import metrics
from daemon.observe.tallies import EDIT_BUCKETS, Tallies
from daemon.store import timestamp, vitals


@pytest.fixture
def state(tmp_path):
    return new_state(tmp_path)


def samples(text):
    """Every sample as {(name, labels): value}."""
    return {
        (s.name, tuple(sorted(s.labels.items()))): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


def read(state, now=NOW):
    with state.store(read_only=True) as store:
        return samples(metrics.text(metrics.read(state, store, now)))


def test_the_json_has_every_sample_of_the_text(state):
    one = add_fact(state, events=EDITED)
    add_release(state, 1, (one,))
    add_source(state)
    told = wised(state, "metrics", "--json").json
    assert told["schema_version"] == 1
    found = {
        (one["name"], tuple(sorted(one["labels"].items()))): one["value"]
        for family in told["metrics"]
        for one in family["samples"]
    }
    plain = samples(wised(state, "metrics").out)
    assert found.keys() == plain.keys()
    moving = ("age_seconds", "free_bytes", "pending_seconds")
    steady = {k for k in plain if not k[0].endswith(moving)}
    assert {k: found[k] for k in steady} == {k: plain[k] for k in steady}


def value(found, name, **labels):
    return found[name, tuple(sorted(labels.items()))]


def test_a_new_state_has_every_metric_that_needs_no_history(state):
    found = read(state, NOW + timedelta(hours=1))
    assert value(found, "wised_up") == 0
    assert value(found, "wised_active_release") == 0
    assert value(found, "wised_release_age_seconds") == 3600
    assert value(found, "wised_last_promotion_timestamp_seconds") == NOW.timestamp()
    assert value(found, "wised_facts", state="approved") == 0
    assert value(found, "wised_hold", kind="promote") == 0
    assert value(found, "wised_edits_total", outcome="promoted") == 0
    free = shutil.disk_usage(state.folder).free
    assert value(found, "wised_disk_free_bytes") == pytest.approx(free, rel=0.2)


def test_up_while_the_lock_is_held(state):
    with state.lock():
        assert value(read(state), "wised_up") == 1


def test_facts_are_counted_by_state_and_the_oldest_one_is_aged(state):
    add_fact(state, "Chad", at=NOW - timedelta(hours=2))
    add_fact(state, "Mali", events=("approve",), at=NOW - timedelta(hours=1))
    add_fact(state, "Peru", events=EDITED)
    found = read(state)
    assert value(found, "wised_facts", state="pending") == 1
    assert value(found, "wised_facts", state="approved") == 1
    assert value(found, "wised_facts", state="verified") == 1
    assert value(found, "wised_oldest_pending_seconds") == 7200


def test_holds_and_scores_are_shown(state):
    measures = {
        "reliability": {"right": 158, "asked": 160},
        "retention": {"right": 2, "asked": 4, "whole": 10},
        "empty": {"right": 0, "asked": 0},
    }
    refuse(state, 1, "forgets", json.dumps(measures))
    with state.store() as store, store.write():
        releases.hold(store, "edit", "new disk", NOW)
    found = read(state)
    assert value(found, "wised_hold", kind="edit") == 1
    assert value(found, "wised_verify_score", probe_set="reliability", metric="rate") == 158 / 160
    low = value(found, "wised_verify_score", probe_set="retention", metric="low")
    assert low == pytest.approx(0.187616, abs=1e-6)  # worked out in test_status.py
    assert not [key for key in found if ("probe_set", "empty") in key[1]]
    assert value(found, "wised_gate_total", result="refused") == 1


def test_edits_are_counted_by_what_became_of_the_facts(state):
    with_two = [add_fact(state, place, events=EDITED) for place in ("Chad", "Mali")]
    add_release(state, 1, tuple(with_two))
    add_fact(state, "Peru", events=("approve", "batch", "return", "batch", "fail"))
    found = read(state)
    assert value(found, "wised_edits_total", outcome="promoted") == 2
    assert value(found, "wised_edits_total", outcome="returned") == 1
    assert value(found, "wised_edits_total", outcome="failed") == 1
    assert value(found, "wised_gate_total", result="passed") == 1


def plan(state, number, kind="update", at=NOW):
    with state.store() as store, store.write():
        row = {"number": number, "state": "building", "kind": kind, "created_at": timestamp(at)}
        store.db["release"].insert(row)
        store.event("release.plan", f"release:{number}", {}, at)


def step(state, number, event, seconds, reason="", **also):
    with state.store() as store, store.write():
        store.transition("release", number, event, NOW + timedelta(seconds=seconds), reason, **also)


def test_the_histogram_is_of_the_time_from_plan_to_candidate_or_refusal(state):
    plan(state, 1)
    step(state, 1, "publish", 20.0)
    plan(state, 2)
    step(state, 2, "refuse", 61.0, "reliability", measures='{"x": {"right": 0, "asked": 1}}')
    plan(state, 3)
    step(state, 3, "refuse", 9000.0, "worker.timeout")
    plan(state, 4)
    step(state, 4, "refuse", 500.0, "interrupted")  # while the daemon was down
    plan(state, 5, kind="emergency")
    step(state, 5, "publish", 0.1)
    found = read(state)
    assert value(found, "wised_edit_seconds_count") == 3
    assert value(found, "wised_edit_seconds_sum") == pytest.approx(20 + 61 + 9000)
    below = {
        bound: value(found, "wised_edit_seconds_bucket", le=str(bound)) for bound in EDIT_BUCKETS
    }
    assert below[10.0] == 0
    assert below[30.0] == 1
    assert below[60.0] == 1
    assert below[180.0] == 2
    assert below[7200.0] == 2
    results = {
        r: value(found, "wised_gate_total", result=r) for r in ("refused", "failed", "passed")
    }
    assert results == {"refused": 1, "failed": 1, "passed": 0}


def test_rollbacks_are_counted_by_who_caused_them(state):
    for number in (1, 2, 3):
        add_release(state, number, parent=number - 1)
    assert sum(v for k, v in read(state).items() if k[0] == "wised_rollbacks_total") == 0
    assert wised(state, "rollback").code == 0
    found = read(state)
    assert value(found, "wised_rollbacks_total", cause="operator") == 1
    assert value(found, "wised_rollbacks_total", cause="integrity") == 0
    folder = state.releases / "000002"
    (folder / "facts.jsonl").chmod(0o600)
    (folder / "facts.jsonl").write_text("damaged\n")
    with state.store() as store:
        releases.reconcile(state, store, NOW + timedelta(hours=1))
    found = read(state)
    assert value(found, "wised_active_release") == 1
    assert value(found, "wised_rollbacks_total", cause="integrity") == 1


def test_polls_that_fail_are_counted_by_source_and_code(state, tmp_path):
    add_source(state, "missing", kind="log", location=str(tmp_path / "none.jsonl"))
    log = tmp_path / "rows.jsonl"
    log.write_text('{"prompt": "Q", "right": "A"}\n')
    add_source(state, "there", kind="log", location=str(log))
    config = state.config()
    with state.store() as store:
        for _ in range(2):
            for source in polling.due(store, NOW + timedelta(days=3)):
                polling.poll(store, source, config, polling.extractor(config), NOW)
    found = read(state)
    failures = {k: v for k, v in found.items() if k[0] == "wised_source_failures_total"}
    (labels,) = {key[1] for key in failures}
    assert dict(labels) == {"source": "missing", "code": "log.missing"}
    assert list(failures.values()) == [2]
    name = "wised_source_last_success_timestamp_seconds"
    assert value(found, name, source="missing") == 0
    assert value(found, name, source="there") == NOW.timestamp()


def test_bytes_are_added_up_over_polls(state):
    source = add_source(state)
    with state.store() as store, store.write():
        vitals.count_poll(store, source, "", 1000)
        vitals.count_poll(store, source, "", 234)
        vitals.count_poll(store, source, "fetch.timeout")
    assert value(read(state), "wised_fetch_bytes_total") == 1234


def test_a_removed_source_leaves_the_labels(state):
    source = add_source(state, "gone")
    with state.store() as store, store.write():
        vitals.count_poll(store, source, "fetch.timeout")
        store.db["source"].update(source, {"state": "removed"})
    assert not [key for key in read(state) if ("source", "gone") in key[1]]


def test_nothing_that_a_stranger_wrote_becomes_a_label(state):
    add_source(state, "ok", location="https://canary.example/x", last_error=f"canary {HOSTILE}")
    add_fact(state, "canary", f"canary {HOSTILE}", relation="canary", quote="canary")
    refuse(state, 1, HOSTILE, json.dumps({HOSTILE: {"right": 1, "asked": 2}}))
    ran = wised(state, "metrics")
    assert dangerous(ran.out) == set()
    assert "canary" not in ran.out
    labels = {v for key in samples(ran.out) for _, v in key[1]}
    assert all(len(label) <= metrics.MAX_LABEL_CHARS for label in labels)


def test_the_command_prints_them_without_a_daemon_and_changes_nothing(state):
    add_source(state)
    before = dump(state)
    ran = wised(state, "metrics")
    assert ran.code == 0
    assert set(samples(ran.out)) >= {("wised_up", ()), ("wised_active_release", ())}
    assert dump(state) == before


def test_the_command_replaces_a_file_at_once(state, tmp_path):
    path = tmp_path / "out" / "wised.prom"
    path.parent.mkdir()
    assert wised(state, "metrics", "--textfile", str(path), "--dry-run").out == ""
    assert not path.exists()
    assert wised(state, "metrics", "--textfile", str(path)).out == ""
    assert value(samples(path.read_text()), "wised_up") == 0
    assert [one.name for one in path.parent.iterdir()] == ["wised.prom"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_tallies_look_only_at_what_is_new_and_come_to_the_same(state):
    running = Tallies()
    for number in range(1, 6):
        add_fact(state, f"c{number}", events=EDITED if number % 2 else ("approve", "batch", "fail"))
        plan(state, number)
        step(state, number, "publish", number)
        with state.store(read_only=True) as store:
            running.read(store)
            anew = Tallies()
            anew.read(store)
        assert (running.edits, running.gate, running.edit_buckets) == (
            anew.edits,
            anew.gate,
            anew.edit_buckets,
        )


@pytest.mark.slow
def test_a_long_history_is_added_up_in_seconds(state):
    with state.store() as store, store.write():
        row = {"at": "2026-01-01T00:00:00+00:00", "actor": "daemon", "data": "{}"}
        row |= {"action": "fact.promote", "subject": "fact:1", "previous_hash": "", "hash": ""}
        last = store.one("SELECT max(seq) AS n FROM event")["n"]
        store.db["event"].insert_all({**row, "seq": last + n} for n in range(1, 500_001))
    with state.store(read_only=True) as store:
        tallies, begun = Tallies(), time.perf_counter()
        tallies.read(store)
        assert time.perf_counter() - begun < 10
        assert tallies.edits["promoted"] == 500_000
        begun = time.perf_counter()
        tallies.read(store)
        assert time.perf_counter() - begun < 0.5
