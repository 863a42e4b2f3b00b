import signal

import pytest
from cli_terminal import terminal
from cli_world import (
    EDITED,
    NOW,
    add_entry,
    add_fact,
    add_release,
    add_source,
    dump,
    new_state,
    state_of,
    wised,
)

from daemon.cli.review import Review


@pytest.fixture
def state(tmp_path):
    """The release says N'Djamena; a feed says Abéché, and again, and a lesser one Moundou."""
    made = new_state(tmp_path)
    entry = add_entry(made, add_source(made), "The news", "https://example.org/1")
    held = add_fact(made, events=EDITED)
    add_release(made, 1, (held,))
    new = add_fact(made, object="Abéché", entry=entry, quote="now Abéché", events=("hold",))
    again = add_fact(made, object="Abéché", events=())
    with made.store() as store, store.write():
        store.transition("fact", again, "duplicate", NOW, "says the same", same_as=new)
    add_fact(made, object="Moundou", events=("conflict",), tier="untrusted")
    add_fact(made, "Mali", "Kayes", events=("quarantine",))
    with made.store() as store, store.write():
        store.connection.execute("UPDATE fact SET reason = 'tier normal' WHERE id = ?", (new,))
    return made


def reviewing(state, *arguments):
    return terminal("-C", str(state.folder), "review", *arguments)


def test_a_fact_is_shown_with_all_that_its_approval_needs(state):
    with reviewing(state) as screen:
        for text in ("1 of 3", "2, pending", "The capital of Chad is", "N'Djamena", "Abéché"):
            screen.expect(text)
        for text in ("tier normal", "world (normal)", "The news", "example.org/1", "now Abéché"):
            screen.expect(text)
        screen.expect("fact 3: Chad | capital | Abéché")
        screen.expect("fact 1 promoted (normal): N'Djamena")
        screen.expect("fact 4 conflicting (untrusted): Moundou")
        screen.expect("[a]pprove")
        screen.type("x")
        assert screen.end() == 0
        assert "0 of 3 waiting facts decided" in screen.seen
        assert screen.is_as_before


def test_each_key_decides_and_the_reason_is_recorded(state):
    with reviewing(state) as screen:
        screen.expect("2, pending")
        screen.expect("e[x]it")
        screen.type("?")
        screen.expect("set aside for a closer look")
        screen.type("e")
        screen.expect("held out")
        screen.type("r")
        screen.expect("why reject?")
        screen.type("two papers deny it\n")
        screen.expect("rejected")
        screen.expect("4, conflicting")
        screen.expect("e[x]it")
        screen.type("a")
        screen.expect("why approve?")
        screen.type("\n")
        screen.expect("approved")
        screen.expect("5, quarantined")
        screen.expect("e[x]it")
        screen.type("s")
        assert screen.end() == 0
        assert "2 of 3 waiting facts decided" in screen.seen
    assert [state_of(state, one) for one in (2, 4, 5)] == ["rejected", "approved", "quarantined"]
    with state.store() as store:
        rows = store.rows("SELECT action, data FROM event WHERE actor LIKE 'operator:%'")
    assert [row["action"] for row in rows] == ["fact.reject", "fact.approve"]
    assert "two papers deny it" in rows[0]["data"]
    assert "approved in review" in rows[1]["data"]


def test_one_reason_can_stand_for_all_and_facts_can_be_chosen(state):
    with reviewing(state, "--state", "conflicting", "--reason", "seen") as screen:
        screen.expect("1 of 1")
        screen.expect("e[x]it")
        screen.type("q")
        assert screen.end() == 0
    assert [state_of(state, one) for one in (2, 4)] == ["pending", "quarantined"]


def test_a_dry_run_shows_what_would_be_decided(state):
    before = dump(state)
    with reviewing(state, "--dry-run", "--reason", "seen") as screen:
        screen.expect("e[x]it")
        screen.type("a")
        screen.expect("e[x]it")
        screen.type("x")
        screen.expect("fact.approve fact:2: pending -> approved (seen)")
        assert screen.end() == 0
    assert dump(state) == before


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 128 + signal.SIGTERM)]
)
def test_a_signal_gives_the_terminal_back_as_it_was(state, number, code):
    with reviewing(state) as screen:
        screen.expect("e[x]it")
        screen.type("s")  # so that the next key is waited for in the end
        screen.expect("e[x]it")
        screen.interrupt(number)
        assert screen.end() == code
        assert screen.is_as_before


class Changed:
    """Standard answers to a review during which another process decides first."""

    def __init__(self, state):
        self.state = state
        self.keys = iter("ax")

    def key(self):
        key = next(self.keys)
        if key == "a":
            with self.state.store() as store, store.write():
                store.transition("fact", 2, "quarantine", NOW, "someone else")
        return key


def test_a_decision_on_what_was_changed_since_it_was_shown_is_refused(state, capsys):
    from daemon.cli.rehearsal import changing

    with changing(state, dry_run=False) as change:
        person = Changed(state)
        Review(change, "seen", person.key, input).run([2, 5])
    said = capsys.readouterr()
    assert "fact 2 was changed since it was shown (revision 3, not 2)" in said.err
    assert "5, quarantined" in said.out
    assert state_of(state, 2) == "quarantined"


def test_a_review_needs_a_terminal(state):
    ran = wised(state, "review")
    assert (ran.code, ran.out) == (10, "")
    assert "wised fact approve" in ran.err


def test_a_review_of_nothing_that_waits_is_refused(state):
    assert wised(state, "review", "--state", "promoted").code == 2


@pytest.mark.parametrize("verb", ["approve", "reject", "quarantine"])
def test_a_decision_can_expect_a_revision(state, verb):
    assert wised(state, "fact", verb, "2", "--expect", "1").code == 4
    assert state_of(state, 2) == "pending"
    assert wised(state, "fact", verb, "2", "--expect", "2").code == 0
    assert wised(state, "fact", verb, "2", "5", "--expect", "2").code == 2


def test_the_revision_to_expect_is_shown(state):
    assert wised(state, "fact", "show", "2", "--json").json["fact"]["rev"] == 2
    assert wised(state, "fact", "approve", "--all-pending", "--expect", "2").code == 2
