import json
import os
import pwd
from datetime import timedelta

import pytest
from cli_world import (
    EDITED,
    NOW,
    add_entry,
    add_fact,
    add_release,
    add_source,
    dump,
    events,
    new_state,
    state_of,
    wised,
)


@pytest.fixture
def state(tmp_path):
    return new_state(tmp_path)


def listed(state, *arguments):
    found = wised(state, "fact", "list", *arguments, "--json").json
    return [f["id"] for f in found["facts"]], found["next_after"]


def test_facts_are_listed_by_state_source_subject_and_page(state):
    source = add_source(state)
    chad = add_fact(state, entry=add_entry(state, source, "x"))
    peru = add_fact(state, "Perú", "Lima", events=())
    mali = add_fact(state, "Mali", "Bamako")
    assert listed(state) == ([chad, peru, mali], None)
    assert listed(state, "--state", "pending") == ([chad, mali], None)
    assert listed(state, "--source", "world") == ([chad], None)
    assert listed(state, "--subject", "PERU") == ([peru], None)
    assert listed(state, "--limit", "2") == ([chad, peru], peru)
    assert listed(state, "--limit", "2", "--after", f"f{peru}") == ([mali], None)


def test_filters_are_values_and_never_sql(state):
    add_fact(state)
    assert listed(state, "--subject", "' OR 1=1 --") == ([], None)
    assert wised(state, "fact", "list", "--source", "x' OR '1'='1").code == 3


def test_a_list_of_an_unknown_state_or_source_is_refused(state):
    assert wised(state, "fact", "list", "--state", "lost").code == 2
    assert wised(state, "fact", "list", "--source", "nobody").code == 3


def test_a_fact_is_shown_with_evidence_history_rivals_and_releases(state):
    source = add_source(state, tier="trusted")
    entry = add_entry(state, source, "Chad: capital is now Abéché", "https://example.org/1")
    old = add_fact(state, events=EDITED)
    add_release(state, 1, (old,))
    fact = add_fact(state, object="Abéché", entry=entry, quote="capital is now Abéché")
    wised(state, "fact", "quarantine", str(fact), "--reason", "two capitals")
    shown = wised(state, "fact", "show", f"f{fact}", "--json").json["fact"]
    assert shown["prompts"] == ["The capital of Chad is"]
    assert shown["object"] == "Abéché"
    assert (shown["state"], shown["reason"]) == ("quarantined", "two capitals")
    assert shown["evidence"][0]["link"] == "https://example.org/1"
    assert shown["evidence"][0]["quote"] == "capital is now Abéché"
    assert shown["evidence"][0]["tier"] == "trusted"
    assert [e["action"] for e in shown["history"]] == [
        "fact.receive",
        "fact.hold",
        "fact.quarantine",
    ]
    assert [(f["id"], f["state"]) for f in shown["slot"]] == [(old, "promoted")]
    assert wised(state, "fact", "show", str(old), "--json").json["fact"]["releases"] == [1]
    text = wised(state, "fact", "show", str(fact)).rows
    assert ["same slot", f"fact {old} promoted: N'Djamena"] in text
    assert ["  quote", "capital is now Abéché"] in text


def test_a_fact_by_hand_is_received_with_its_evidence_and_the_operators_name(state, monkeypatch):
    monkeypatch.setenv("LOGNAME", "someone-else")
    add = ("fact", "add", "Chad", "capital", "Abéché")
    ran = wised(state, *add, "--reason", "state radio")
    assert ran.rows[0] == ["fact 1", "received"]
    shown = wised(state, "fact", "show", "1", "--json").json["fact"]
    assert (shown["state"], shown["tier"], shown["extractor"]) == ("received", "trusted", "row/1")
    assert shown["prompts"][1] == "The capital of Chad is"
    raw = json.loads(shown["evidence"][0]["raw"])
    assert (raw["object"], raw["reason"]) == ("Abéché", "state radio")
    assert raw["actor"] == f"operator:{pwd.getpwuid(os.getuid()).pw_name}"
    source = wised(state, "source", "show", "operator", "--json").json["source"]
    assert (source["kind"], source["state"], source["tier"]) == ("log", "paused", "trusted")
    assert wised(state, *add).rows == [["fact 1", "already_received"]]


def test_a_fact_by_hand_must_have_a_configured_relation(state):
    ran = wised(state, "fact", "add", "Chad", "shoe size", "44")
    assert ran.code == 2
    assert "shoe size" in ran.err
    assert listed(state) == ([], None)


def test_approving_lets_the_older_fact_of_the_slot_give_way(state):
    old = add_fact(state)
    new = add_fact(state, object="Abéché")
    ran = wised(state, "fact", "approve", str(new), "--reason", "checked")
    assert ran.rows[0] == [f"fact {new}", "approved"]
    assert f"fact.supersede fact:{old}: pending -> superseded (fact {new} is newer)" in ran.out
    assert (state_of(state, new), state_of(state, old)) == ("approved", "superseded")


def test_two_facts_of_one_slot_are_not_approved_together(state):
    old, new = add_fact(state), add_fact(state, object="Abéché")
    assert wised(state, "fact", "approve", str(old), str(new)).code == 2
    assert state_of(state, old) == "pending"


def test_all_pending_approves_the_newest_of_each_slot(state):
    newer = add_fact(state, object="Abéché", at=NOW + timedelta(days=1))
    older = add_fact(state)
    mali = add_fact(state, "Mali", "Bamako")
    ran = wised(state, "fact", "approve", "--all-pending")
    assert "2 facts approved." in ran.err
    states = [state_of(state, one) for one in (newer, older, mali)]
    assert states == ["approved", "superseded", "approved"]
    assert "0 facts approved." in wised(state, "fact", "approve", "--all-pending").err


def test_approve_needs_ids_or_all_pending_but_not_both(state):
    add_fact(state)
    assert wised(state, "fact", "approve").code == 2
    assert wised(state, "fact", "approve", "1", "--all-pending").code == 2


@pytest.mark.parametrize(
    ("verb", "start", "becomes"),
    [
        ("approve", ("hold",), "approved"),
        ("reject", ("hold",), "rejected"),
        ("quarantine", ("hold",), "quarantined"),
        ("retract", EDITED, "retracted"),
    ],
)
def test_a_decision_repeated_says_so_and_changes_nothing_more(state, verb, start, becomes):
    fact = add_fact(state, events=start)
    assert wised(state, "fact", verb, str(fact)).rows[0] == [f"fact {fact}", becomes]
    before = dump(state)
    ran = wised(state, "fact", verb, str(fact))
    assert (ran.code, ran.rows) == (0, [[f"fact {fact}", f"already_{becomes}"]])
    assert dump(state) == before


def test_approving_a_promoted_fact_again_says_where_it_is(state):
    fact = add_fact(state, events=EDITED)
    add_release(state, 1, (fact,))
    assert wised(state, "fact", "approve", "1").rows == [["fact 1", "already_promoted"]]


@pytest.mark.parametrize(
    ("verb", "start"),
    [
        ("approve", ("hold",)),
        ("reject", ("hold",)),
        ("quarantine", ("hold",)),
        ("retract", EDITED),
    ],
)
def test_a_dry_run_of_a_decision_changes_nothing(state, verb, start):
    fact = add_fact(state, events=start)
    before = dump(state)
    ran = wised(state, "fact", verb, str(fact), "--dry-run", "--json")
    assert ran.json["dry_run"] is True
    assert ran.json["changes"][0]["action"] == f"fact.{verb}"
    assert dump(state) == before


def test_a_dry_run_of_adding_changes_nothing(state):
    before = dump(state)
    ran = wised(state, "fact", "add", "Chad", "capital", "Abéché", "--dry-run")
    assert ran.rows[0] == ["fact 1", "received"]
    assert dump(state) == before


def test_a_decision_on_several_facts_is_all_or_none(state):
    pending, edited = add_fact(state), add_fact(state, "Mali", "Bamako", events=EDITED)
    for verb in ("reject", "quarantine"):
        assert wised(state, "fact", verb, str(pending), str(edited)).code == 4
        assert state_of(state, pending) == "pending"
    assert wised(state, "fact", "approve", str(pending), "99").code == 3
    assert state_of(state, pending) == "pending"


def test_decisions_bear_the_operators_name_and_reason(state):
    fact = add_fact(state)
    wised(state, "fact", "reject", str(fact), "--reason", "two\nlines")
    with state.store() as store:
        actor, action, _ = events(store)[-1]
    assert actor.startswith("operator:")
    assert action == "fact.reject"
    shown = wised(state, "fact", "show", str(fact), "--json").json["fact"]
    assert shown["reason"] == "two lines"


@pytest.mark.parametrize("bad", ["x", "r1", "f", "1.5", "-1", "١", "9" * 19])
def test_what_is_no_fact_id_is_a_usage_error(state, bad):
    assert wised(state, "fact", "show", "--", bad).code == 2


def test_an_endless_reason_is_refused(state):
    add_fact(state)
    assert wised(state, "fact", "reject", "1", "--reason", "x" * 501).code == 2


def test_an_unknown_fact_is_not_found(state):
    for verb in ("show", "approve", "reject", "quarantine", "retract"):
        assert wised(state, "fact", verb, "7").code == 3
