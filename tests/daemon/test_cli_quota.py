"""What the operator sees of quotas, and how a dropped fact comes back."""

import json
from datetime import timedelta

import pytest
from cli_world import NOW, add_entry, add_fact, add_source, dump, events, new_state, state_of, wised

from daemon import polling, service, status
from daemon.store import facts, timestamp

SOURCE = "max_undecided_facts_per_source"
DAY = "max_new_facts_per_source_per_day"


@pytest.fixture
def state(tmp_path):
    return new_state(tmp_path)


def configure(state, **keys):
    """Set keys of [ingest]."""
    lines = state.config_file.read_text("utf-8").splitlines()
    kept = [line for line in lines if line.split(" ")[0] not in keys]
    place = kept.index("[ingest]") + 1
    kept[place:place] = [f"{name} = {value}" for name, value in keys.items()]
    state.config_file.write_text("\n".join(kept), "utf-8")


def write(path, *subjects):
    rows = [{"subject": s, "relation": "capital", "object": "X"} for s in subjects]
    with path.open("a") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows))


def poll(state, moment=None):
    """Poll what is due now, as the daemon does."""
    config, moment = state.config(), moment or NOW
    extract = polling.extractor(config)
    with state.store() as store:
        return [polling.poll(store, s, config, extract, moment) for s in polling.due(store, moment)]


@pytest.fixture
def flooded(state, tmp_path):
    """Facts 1 to 3 of five were dropped just now."""
    configure(state, **{SOURCE: 2})
    log = tmp_path / "flood.jsonl"
    write(log, "Chad", "Mali", "Peru", "Oman", "Togo")
    add_source(state, "flood", kind="log", location=str(log), tier="untrusted")
    add_source(state, "calm", next_poll_at=timestamp(NOW + timedelta(days=9)))
    poll(state)
    return state


def test_the_status_has_a_line_only_when_something_was_dropped_in_24_hours(flooded, monkeypatch):
    def shown(hours):
        from daemon.cli import service as commands

        monkeypatch.setattr(commands, "now", lambda: NOW + timedelta(hours=hours))
        ran = wised(flooded, "status")
        found = wised(flooded, "status", "--json").json["dropped_last_24_hours"]
        return [text for name, text in ran.rows if name == "dropped"], found

    lines, found = shown(1)
    assert lines == [f"3 facts of flood in 24 hours, over {SOURCE}"]
    assert found == [{"source": "flood", "quota": SOURCE, "facts": 3}]
    assert shown(25) == ([], [])


def test_a_new_state_has_dropped_nothing(state):
    assert wised(state, "status", "--json").json["dropped_last_24_hours"] == []
    assert "dropped" not in wised(state, "status").out
    with state.store(read_only=True) as store:
        assert status.read(state, store, NOW).dropped == ()


def test_each_source_is_shown_with_all_that_it_lost(flooded):
    shown = wised(flooded, "source", "list", "--json").json["sources"]
    assert {one["name"]: one["dropped"] for one in shown} == {"flood": 3, "calm": 0}
    assert wised(flooded, "source", "show", "flood", "--json").json["source"]["dropped"] == 3
    assert ["dropped", "3"] in wised(flooded, "source", "show", "flood").rows
    listed = wised(flooded, "source", "list").rows
    assert [(row[0], row[4], row[5]) for row in listed] == [
        ("NAME", "FACTS", "DROPPED"),
        ("calm", "0", "0"),
        ("flood", "5", "3"),
    ]


def test_a_dropped_fact_is_shown_with_its_reason_its_evidence_and_its_history(flooded):
    listed = wised(flooded, "fact", "list", "--state", "dropped", "--json").json["facts"]
    assert [one["id"] for one in listed] == [1, 2, 3]
    shown = wised(flooded, "fact", "show", "1", "--json").json["fact"]
    assert (shown["state"], shown["reason"]) == ("dropped", f"over {SOURCE} = 2")
    assert [one["source"] for one in shown["evidence"]] == ["flood"]
    assert [one["action"] for one in shown["history"]] == ["fact.receive", "fact.drop"]


def test_a_dropped_fact_comes_back_as_a_new_one_with_its_evidence(flooded):
    ran = wised(flooded, "fact", "requeue", "1", "--reason", "no flood")
    assert (ran.code, ran.rows[0]) == (0, ["fact 1", "received again as fact 6"])
    old = wised(flooded, "fact", "show", "1", "--json").json["fact"]
    new = wised(flooded, "fact", "show", "6", "--json").json["fact"]
    assert (old["state"], old["same_as"]) == ("duplicate", 6)
    assert old["reason"] == "no flood: received again as fact 6"
    same = ("subject", "relation", "object", "tier", "prompts", "held_out", "asserted_at")
    assert new["state"] == "received"
    assert {key: new[key] for key in same} == {key: old[key] for key in same}
    assert new["evidence"] == old["evidence"]
    assert wised(flooded, "fact", "requeue", "1").rows == [["fact 1", "already_duplicate"]]
    assert wised(flooded, "audit", "verify").code == 0
    with flooded.store() as store:
        assert events(store)[-2][1:] == ("fact.receive", "fact:6")
        assert events(store)[-1][1:] == ("fact.requeue", "fact:1")


def test_what_a_person_brought_back_is_not_dropped_again(flooded, tmp_path):
    wised(flooded, "fact", "requeue", "1")
    write(tmp_path / "flood.jsonl", "Cuba", "Laos", "Fiji")
    (found,) = poll(flooded, NOW + timedelta(hours=1))
    assert [(one.source, one.facts) for one in found.dropped] == [("flood", 3)]
    assert state_of(flooded, 6) == "received"


def test_several_come_back_all_or_none_and_a_dry_run_brings_back_nothing(flooded):
    before = dump(flooded)
    assert wised(flooded, "fact", "requeue", "1", "4").code == 4  # 4 is received
    assert wised(flooded, "fact", "requeue", "1", "99").code == 3
    ran = wised(flooded, "fact", "requeue", "1", "2", "--dry-run")
    assert (ran.code, "fact.requeue fact:1" in ran.out) == (0, True)
    assert dump(flooded) == before
    assert wised(flooded, "fact", "requeue", "1", "2").code == 0
    assert [state_of(flooded, one) for one in (1, 2, 6, 7)] == [
        *["duplicate"] * 2,
        *["received"] * 2,
    ]


def test_a_dropped_fact_is_not_approved_past_triage(flooded):
    pending = add_fact(flooded, "Cuba", "Havana")
    before = dump(flooded)
    ran = wised(flooded, "fact", "approve", str(pending), "1")
    assert ran.code == 4
    assert "fact 1 was dropped" in ran.err
    assert "wised fact requeue first" in ran.err
    assert dump(flooded) == before


def test_a_dropped_fact_can_be_given_by_hand_too(flooded):
    ran = wised(flooded, "fact", "add", "Chad", "capital", "X")
    assert ran.rows[0] == ["fact 6", "received"]
    with flooded.store(read_only=True) as store:
        assert facts.get(store, 6).vouched_by is None


def over(state, where):
    ran = wised(state, "source", "test", where)
    told = [line for line in ran.err.splitlines() if line.startswith("Over ")]
    return told, wised(state, "source", "test", where, "--json").json["over_quota"]


def test_testing_says_what_would_be_dropped(state, tmp_path):
    log = tmp_path / "fixes.jsonl"
    write(log, "Chad", "Mali", "Peru")
    configure(state, **{SOURCE: 3})
    assert over(state, "fixes.jsonl") == ([], [])
    configure(state, **{SOURCE: 2})
    told, found = over(state, "fixes.jsonl")
    assert told == [f"Over {SOURCE}: 1 fact of this source would be dropped, and counted."]
    assert found == [{"source": "this source", "quota": SOURCE, "facts": 1, "waits": False}]


def test_testing_a_log_over_its_day_says_what_would_wait(state, tmp_path):
    write(tmp_path / "fixes.jsonl", "Chad", "Mali", "Peru")
    configure(state, **{DAY: 2})
    told, found = over(state, "fixes.jsonl")
    assert told == [f"Over {DAY}: 1 fact of this source would wait in the log."]
    assert found[0]["waits"] is True


def test_testing_a_source_counts_what_it_has_and_not_what_is_stored_already(flooded, tmp_path):
    assert over(flooded, "flood") == ([], [])
    write(tmp_path / "flood.jsonl", "Cuba")
    told, found = over(flooded, "flood")
    assert told == [f"Over {SOURCE}: 1 fact of flood would be dropped, and counted."]
    assert found == [{"source": "flood", "quota": SOURCE, "facts": 1, "waits": False}]


def test_testing_names_the_other_source_whose_facts_would_go(state, tmp_path):
    flood = add_source(state, "flood", tier="untrusted")
    fact = add_fact(state, entry=add_entry(state, flood, "x"))
    with state.store() as store:
        store.db["fact"].update(fact, {"brought_by": flood, "vouched_by": flood})
    write(tmp_path / "fixes.jsonl", "Chad", "Mali")
    configure(state, max_undecided_facts=2)
    told, _ = over(state, "fixes.jsonl")
    assert told == ["Over max_undecided_facts: 1 fact of flood would be dropped, and counted."]


class Log:
    """Takes down what the daemon says."""

    def __init__(self):
        self.said = []

    def _say(self, event, **fields):
        self.said.append((event, fields))

    info = warning = error = _say


@pytest.fixture
def daemon(state, monkeypatch):
    monkeypatch.setattr(service, "now", lambda: NOW)

    def start(store):
        return service.Service(state, store, state.config(), Log())

    return start


def test_the_status_log_says_what_was_dropped(state, tmp_path, daemon):
    configure(state, **{SOURCE: 1})
    write(tmp_path / "flood.jsonl", "Chad", "Mali", "Peru")
    add_source(state, "flood", kind="log", location=str(tmp_path / "flood.jsonl"))
    with state.store() as store:
        one = daemon(store)
        assert one.poll_due() == 1
        assert one.log.said[-1] == (
            "facts.dropped",
            {"source": "flood", "quota": SOURCE, "facts": 2},
        )
        assert [event for event, _ in one.log.said] == ["source.polled", "facts.dropped"]


def test_a_log_that_waits_is_not_work_and_says_so_only_for_its_day(state, tmp_path, daemon):
    """Or `wised run --once` would never end."""
    configure(state, **{DAY: 3}, max_rows_per_poll=2)
    write(tmp_path / "fixes.jsonl", "Chad", "Mali", "Peru", "Oman")
    add_source(state, "fixes", kind="log", location=str(tmp_path / "fixes.jsonl"))
    with state.store() as store:
        one = daemon(store)
        assert [one.poll_due() for _ in range(3)] == [1, 0, 0]
        assert [event for event, _ in one.log.said] == ["source.polled"]
        with store.write():
            facts.move(store, facts.in_states(store, ("received",)), "hold", NOW)
        assert [one.poll_due() for _ in range(3)] == [1, 0, 0]
        waits = ("source.waits", {"source": "fixes", "quota": DAY})
        assert [said for said in one.log.said if said[0] != "source.polled"] == [waits]
        next_poll = store.one("SELECT next_poll_at FROM source")["next_poll_at"]
        assert next_poll == timestamp(NOW + timedelta(minutes=30))
