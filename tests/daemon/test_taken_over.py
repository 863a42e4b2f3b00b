"""What a person or another process does between two steps of the work stays done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cli_world import wised
from test_emergency_crash import retract_now, turn, written
from test_link_and_row import Said
from test_probation import GOES_ON, Model, Probed, watching
from world import START, Clock, add_fact, config, states

from daemon import emergency, probation, releases, triage
from daemon.child import WorkerError
from daemon.cli import release_view
from daemon.cycle import cycle
from daemon.errors import Overtaken
from daemon.invariants import violations
from daemon.messages import Answers, Ask, Build, Built
from daemon.service import Service
from daemon.signals import Asked
from daemon.state import State
from daemon.store import Store, facts

DAY = timedelta(days=1)


@pytest.fixture
def other(state: State) -> Iterator[Store]:
    """The store of another process: a person's command."""
    with state.store("operator:ada") as opened:
        yield opened


def promoted(state: State, store: Store, *names: str) -> list[int]:
    """A release after the other, each with one fact more; the facts."""
    numbers = []
    for name in names:
        numbers.append(add_fact(store, name, "Ada"))
        assert turn(state, store) == "promoted"
    return numbers


def while_written(monkeypatch: pytest.MonkeyPatch, *acts: Callable[[], object]) -> None:
    """Let one act after the other happen while an emergency's release is written."""
    waiting = list(acts)

    def write(parent: Path | None, folder: Path, gone: object) -> None:
        written(parent, folder, gone)
        if waiting:
            waiting.pop(0)()

    monkeypatch.setattr(emergency, "_write", write)


def test_a_promotion_amid_a_retraction_stays_and_the_fact_goes_all_the_same(
    state: State, store: Store, other: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, stays = promoted(state, store, "Italy", "Peru")
    new, newer = add_fact(store, "Chad", "Ada"), add_fact(store, "Peru", "Eve", at=START + DAY)

    while_written(monkeypatch, lambda: turn(state, store))
    retract_now(state, other, gone)
    held = facts.of_release(store, releases.promoted(store).number)
    assert {fact.id for fact in held} == {new, newer}
    assert states(store) == {
        gone: "retracted",
        stays: "superseded",
        new: "promoted",
        newer: "promoted",
    }
    releases.reconcile(state, store, Clock()())
    assert turn(state, store) is None
    assert violations(state, store) == []


def test_a_rollback_amid_a_retraction_stays(
    state: State, store: Store, other: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, _, bad = promoted(state, store, "Italy", "Peru", "Chad")
    while_written(
        monkeypatch, lambda: releases.rollback(state, store, 0, Clock()(), "all is wrong")
    )
    retract_now(state, other, gone)
    assert releases.promoted(store).number == 0
    assert states(store)[bad] == "verified"
    assert "all is wrong" in releases.holds(store)["promote"]
    assert [r.state for r in releases.all_releases(store)[-1:]] == ["refused"]
    assert violations(state, store) == []


def test_of_two_retractions_at_once_neither_brings_the_others_fact_back(
    state: State, store: Store, other: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, stays = promoted(state, store, "Italy", "Peru", "Chad")
    while_written(monkeypatch, lambda: retract_now(state, store, two))
    retract_now(state, other, one)
    held = facts.of_release(store, releases.promoted(store).number)
    assert [fact.id for fact in held] == [stays]
    assert violations(state, store) == []


def test_a_retraction_that_is_overtaken_again_and_again_says_so_and_is_made_good(
    state: State, store: Store, other: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = promoted(state, store, *"ABCDEF")
    # Each time somebody goes back by a release; all of them hold the first fact but say so not yet.
    monkeypatch.setattr(releases, "NOT_TO_BE_SAID", ())
    back = [lambda to=to: releases.rollback(state, store, to, Clock()(), "x") for to in (5, 4, 3)]
    while_written(monkeypatch, *back)
    with pytest.raises(Overtaken, match="release 3 answers by now"):
        retract_now(state, other, numbers[0])
    monkeypatch.undo()
    with store.write():
        releases.unhold(store, "promote", Clock()())
    assert turn(state, store) == "promoted"
    assert numbers[0] not in {
        f.id for f in facts.of_release(store, releases.promoted(store).number)
    }


def checked(state: State, store: Store, ask: Callable[[Ask], Answers]) -> probation.Checked | None:
    """Check the release that answers, a minute after its promotion."""
    at = releases.promoted(store).promoted_at
    assert at is not None
    now = at + timedelta(minutes=1)
    return probation.check(state, store, watching(state), ask, GOES_ON, now)


def watched(state: State, store: Store, *names: str) -> None:
    """A release after the other, all with a record of what they answer."""
    clock = Clock()
    for name in names:
        add_fact(store, name, "Ada")
        cycle(state, store, config(state), Probed(), clock)


def test_a_rollback_amid_a_check_on_probation_is_not_followed_by_another(
    state: State, store: Store, other: Store
) -> None:
    watched(state, store, "Italy", "Peru", "Chad")

    def ask(request: Ask) -> Answers:
        if releases.promoted(other).number == 3:
            releases.rollback(state, other, None, Clock()(), "seen by a person too")
        return Model(wrong=20)(request)

    assert checked(state, store, ask) is None
    assert releases.promoted(store).number == 2
    assert "seen by a person too" in releases.holds(store)["promote"]


def test_a_hold_amid_a_check_on_probation_keeps_the_release(
    state: State, store: Store, other: Store
) -> None:
    watched(state, store, "Italy", "Peru")

    def ask(request: Ask) -> Answers:
        if not releases.holds(other):
            with other.write():
                releases.hold(other, "promote", "let me look", Clock()())
        return Model(wrong=20)(request)

    assert checked(state, store, ask) is None
    assert releases.promoted(store).number == 2


def test_an_unreadable_record_of_answers_is_a_failed_check(state: State, store: Store) -> None:
    watched(state, store, "Italy", "Peru")
    place = releases.folder_of(state, releases.promoted(store))
    assert place is not None
    (place / "probes.json").chmod(0o600)
    (place / "probes.json").write_text("{")
    found = checked(state, store, Model())
    assert found is not None and found.failed is not None
    assert found.failed.startswith("its record can't be read: ") and found.back_to == 1


def test_a_hold_at_the_last_moment_keeps_the_candidate_waiting(
    state: State, store: Store, other: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = add_fact(store, "Italy", "Ada")
    check = releases.check_files

    def late(place: State, release: releases.Release) -> None:
        check(place, release)
        with other.write():
            releases.hold(other, "promote", "stop", Clock()())

    with monkeypatch.context() as patch:
        patch.setattr(releases, "check_files", late)
        assert turn(state, store) == "verified"
    assert states(store) == {one: "verified"}
    with store.write():
        releases.unhold(store, "promote", Clock()())
    assert turn(state, store) == "promoted"


def test_an_approved_candidate_is_not_kept_back_by_one_that_is_held(
    state: State, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    (gone,) = promoted(state, store, "Italy")
    with store.write():
        releases.hold(store, "promote", "stop", Clock()())
    waits = add_fact(store, "Peru", "Ada")
    assert turn(state, store) == "verified"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):

        def killed(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(emergency, "_write", written)
        patch.setattr(emergency, "_promote", killed)
        retract_now(state, store, gone)
    assert releases.approve(store, 3, Clock()(), "take it out") == "approved"
    assert turn(state, store) == "promoted"
    assert releases.promoted(store).number == 3
    assert states(store) == {gone: "retracted", waits: "verified"}


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_fact_that_is_approved_again_is_promoted_with_the_release_that_waited_with_it(
    state: State, store: Store, by_hand: bool
) -> None:
    one = add_fact(store, "Italy", "Ada")
    with store.write():
        releases.hold(store, "promote", "stop", Clock()())
    assert turn(state, store) == "verified"
    assert triage.approve(store, one, "again", Clock()()) == "approved"
    if by_hand:
        releases.promote(state, store, 1, Clock()(), "now")
    with store.write():
        releases.unhold(store, "promote", Clock()())
    assert turn(state, store) == (None if by_hand else "promoted")
    assert states(store) == {one: "promoted"}
    assert violations(state, store) == []


def test_the_older_of_two_facts_stays_when_a_person_approved_it_while_the_newer_was_built(
    state: State, store: Store, other: Store
) -> None:
    chosen = add_fact(store, "Italy", "Right", "pending")
    newer = add_fact(store, "Italy", "Wrong", at=START + DAY)

    def build(request: Build) -> Built:
        assert triage.approve(other, chosen, "asked the ministry", Clock()()) == "approved"
        raise WorkerError("worker.killed", "out of memory", is_at_work=True)

    assert cycle(state, store, config(state), build, Clock()) is not None
    assert states(store) == {chosen: "approved", newer: "approved"}
    assert turn(state, store) == "promoted"
    assert states(store) == {chosen: "promoted", newer: "superseded"}
    assert facts.get(store, newer).reason == f"fact {chosen} was approved by hand after it"


def test_a_newer_fact_still_takes_the_place_of_one_that_a_person_approved_before(
    state: State, store: Store, other: Store
) -> None:
    chosen = add_fact(store, "Italy", "Right", "pending")
    triage.approve(other, chosen, "asked the ministry", Clock()())
    newer = add_fact(store, "Italy", "News", at=START + DAY)
    assert turn(state, store) == "promoted"
    assert states(store) == {chosen: "superseded", newer: "promoted"}


def test_a_release_that_is_pinned_while_another_is_pruned_keeps_its_files(
    state: State, store: Store, other: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    promoted(state, store, *"ABCDE")
    delete = releases.delete_files

    def slowly(place: State, release: releases.Release) -> None:
        if release.number == 1:
            release_view.set_pinned(other, 2, True, START, "keep it")
        delete(place, release)

    monkeypatch.setattr(releases, "delete_files", slowly)
    assert releases.prune(state, store, 0, START) == [1, 3]
    two = releases.get(store, 2)
    assert (two.state, two.pinned) == ("retained", True)
    releases.check_files(state, two)


def test_going_back_to_what_answers_already_holds_promotion_too(state: State, store: Store) -> None:
    promoted(state, store, "Italy")
    ran = wised(state, "rollback", "--to", "1", "--reason", "no further")
    assert ran.rows[0] == ["release 1", "already_promoted"]
    assert releases.holds(store) == {"promote": "kept at release 1: no further"}


def test_a_hold_on_edit_does_not_stop_the_watch_over_what_answers(
    state: State, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[object] = []
    monkeypatch.setattr(probation, "check", lambda *given: looked.append(given))
    waits = add_fact(store, "Italy", "Ada")
    with store.write():
        releases.hold(store, "edit", "new disk", Clock()())
    made = Service(state, store, state.config(), Said(), Asked(30))
    assert made.work() is False
    assert len(looked) == 1
    assert states(store) == {waits: "approved"}
