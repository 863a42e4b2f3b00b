"""The cycle: what is batched, what is promoted, what is refused, what survives a crash."""

from __future__ import annotations

import contextlib
import os
from datetime import timedelta
from pathlib import Path

import pytest
from world import Builder, Clock, add_fact, config, states

from daemon import releases
from daemon.child import WorkerError
from daemon.cycle import cycle
from daemon.errors import Conflict, IntegrityError, Refused
from daemon.measured import Measured
from daemon.messages import Build, Built, ShardMade
from daemon.state import State
from daemon.store import Store, facts


def turn(state: State, store: Store, builder: Builder, **wise: object) -> str | None:
    """Run one cycle; its outcome."""
    done = cycle(state, store, config(state, **wise), builder, Clock())
    return done.outcome if done else None


def held(store: Store) -> list[str]:
    """What the promoted release answers."""
    return [f.object for f in facts.of_release(store, releases.promoted(store).number)]


def test_approved_facts_are_promoted_in_one_release(state: State, store: Store) -> None:
    ids = [add_fact(store, "Italy", "Draghi"), add_fact(store, "Peru", "Sagasti")]
    waiting = add_fact(store, "Chad", "Deby", "pending")
    assert turn(state, store, Builder()) == "promoted"
    assert held(store) == ["Draghi", "Sagasti"]
    assert states(store) == {ids[0]: "promoted", ids[1]: "promoted", waiting: "pending"}
    release = releases.promoted(store)
    assert (release.number, release.parent) == (1, 0)
    assert os.readlink(state.current) == f"releases/{release.folder}"
    releases.check_files(state, release)
    assert turn(state, store, Builder()) is None


class PaperBuilder(Builder):
    """Builds by the paper's method, whose router has no cosine."""

    def __call__(self, request: Build) -> Built:
        return super().__call__(request).model_copy(update={"figures": {"epsilon": 12.5}})


@pytest.mark.parametrize(
    ("builder", "words"),
    [(Builder(), "from a cosine of 0.8000 on"), (PaperBuilder(), "activation exceeds 12.5000")],
    ids=["keyed", "paper"],
)
def test_the_model_card_says_when_the_side_memory_answers(
    state: State, store: Store, builder: Builder, words: str
) -> None:
    add_fact(store, "Italy", "Draghi")
    assert turn(state, store, builder) == "promoted"
    assert words in (state.current / "README.md").read_text()


def test_a_batch_takes_the_oldest_and_no_more_than_its_limit(state: State, store: Store) -> None:
    for name in ("Italy", "Peru", "Chad"):
        add_fact(store, name, "Ada")
    builder = Builder()
    assert turn(state, store, builder, batch_max_facts=2) == "promoted"
    assert turn(state, store, builder, batch_max_facts=2) == "promoted"
    assert [[f.id for f in r.facts] for r in builder.requests] == [[1, 2], [3]]
    assert [f.id for f in builder.requests[1].kept] == [1, 2]
    assert releases.promoted(store).number == 2


def test_a_newer_fact_takes_the_place_of_the_older(state: State, store: Store) -> None:
    old = add_fact(store, "Italy", "Draghi")
    turn(state, store, Builder())
    new = add_fact(store, "Italy", "Meloni")
    builder = Builder()
    assert turn(state, store, builder) == "promoted"
    assert builder.requests[0].facts[0].replaces == ("Draghi",)
    assert held(store) == ["Meloni"]
    assert states(store) == {old: "superseded", new: "promoted"}


def test_a_fact_that_fails_its_probes_is_set_aside_and_the_rest_built_again(
    state: State, store: Store
) -> None:
    good, bad = add_fact(store, "Italy", "Draghi"), add_fact(store, "Peru", "Sagasti")
    builder = Builder(wrong={bad})
    assert turn(state, store, builder) == "promoted"
    assert [[f.id for f in r.facts] for r in builder.requests] == [[good, bad], [good]]
    assert states(store) == {good: "promoted", bad: "approved"}
    assert "unreliable" in facts.get(store, bad).reason
    assert held(store) == ["Draghi"]


def test_a_fact_that_was_set_aside_has_three_tries_and_the_second_may_do(
    state: State, store: Store
) -> None:
    lucky, bad = add_fact(store, "Italy", "Draghi"), add_fact(store, "Peru", "Sagasti")
    builder = Builder(wrong={bad, lucky})
    assert turn(state, store, builder) == "refused"
    builder.wrong = {bad}
    assert turn(state, store, builder) == "promoted"
    assert states(store) == {lucky: "promoted", bad: "approved"}
    assert turn(state, store, builder) == "refused"
    assert states(store) == {lucky: "promoted", bad: "failed"}
    assert "unreliable" in facts.get(store, bad).reason
    assert turn(state, store, builder) is None


def test_facts_that_were_set_aside_join_new_ones_or_wait(state: State, store: Store) -> None:
    good, bad = add_fact(store, "Italy", "Draghi"), add_fact(store, "Peru", "Sagasti")
    builder, settings, clock = Builder(wrong={bad}), config(state, retry_minutes=10), Clock()
    assert cycle(state, store, settings, builder, clock) is not None
    assert cycle(state, store, settings, builder, clock) is None
    new = add_fact(store, "Chad", "Kebzabo")
    assert cycle(state, store, settings, builder, clock) is not None
    assert [f.id for f in builder.requests[2].facts] == [bad, new]
    assert states(store) == {good: "promoted", bad: "approved", new: "promoted"}
    assert cycle(state, store, settings, builder, clock) is None
    clock.now += timedelta(minutes=10)
    assert cycle(state, store, settings, builder, clock) is not None
    assert states(store)[bad] == "failed"


def test_what_a_failing_fact_would_have_replaced_stays(state: State, store: Store) -> None:
    old = add_fact(store, "Italy", "Draghi")
    turn(state, store, Builder())
    bad, good = add_fact(store, "Italy", "Meloni"), add_fact(store, "Peru", "Sagasti")
    assert turn(state, store, Builder(wrong={bad})) == "promoted"
    assert held(store) == ["Draghi", "Sagasti"]
    assert states(store) == {old: "promoted", bad: "approved", good: "promoted"}


def test_a_candidate_under_the_gate_is_refused_and_says_why(state: State, store: Store) -> None:
    fact = add_fact(store, "Italy", "Draghi")
    assert turn(state, store, Builder(near=(90, 100))) == "refused"
    refused = releases.get(store, 1)
    assert refused.state == "refused"
    assert "locality_near .900 (90 of 100) is under .99" in refused.reason
    assert "locality_near" in facts.get(store, fact).reason
    assert states(store) == {fact: "approved"}  # two tries are left
    assert [turn(state, store, Builder(near=(90, 100))) for _ in range(3)] == [
        "refused",
        "refused",
        None,
    ]
    assert states(store) == {fact: "failed"}
    assert releases.promoted(store).number == 0
    assert not state.current.is_symlink()
    assert list(state.releases.iterdir()) == []


def test_a_retracted_fact_leaves_with_the_next_release(state: State, store: Store) -> None:
    gone, stays = add_fact(store, "Italy", "Draghi"), add_fact(store, "Peru", "Sagasti")
    turn(state, store, Builder())
    with store.write():
        store.transition("fact", gone, "retract", Clock()(), "wrong")
    builder = Builder()
    assert turn(state, store, builder) == "promoted"
    assert held(store) == ["Sagasti"]
    assert [f.id for f in builder.requests[0].withdrawn] == [gone]
    assert states(store) == {gone: "retracted", stays: "promoted"}
    with pytest.raises(Refused, match=f"fact {gone}"):
        releases.rollback(state, store, None, Clock()(), "back")


def test_rollback_brings_the_older_release_and_its_facts_back(state: State, store: Store) -> None:
    old = add_fact(store, "Italy", "Draghi")
    turn(state, store, Builder())
    new, other = add_fact(store, "Italy", "Meloni"), add_fact(store, "Peru", "Sagasti")
    turn(state, store, Builder())
    assert releases.rollback(state, store, None, Clock()(), "looks wrong") == 1
    assert states(store) == {old: "promoted", new: "verified", other: "verified"}
    assert "000001" in os.readlink(state.current)
    assert "promote" in releases.holds(store)
    assert turn(state, store, Builder()) is None  # rolled back facts are not queued again
    releases.promote(state, store, 2, Clock()(), "it was right")
    assert states(store) == {old: "superseded", new: "promoted", other: "promoted"}
    assert [r.state for r in releases.all_releases(store)] == ["retained", "previous", "promoted"]


def test_rollback_to_the_bare_model(state: State, store: Store) -> None:
    fact = add_fact(store, "Italy", "Draghi")
    turn(state, store, Builder())
    assert releases.rollback(state, store, 0, Clock()(), "stop all") == 0
    assert states(store) == {fact: "verified"}
    assert not state.current.is_symlink()


def test_a_hold_keeps_a_verified_candidate_back_until_it_is_lifted(
    state: State, store: Store
) -> None:
    add_fact(store, "Italy", "Draghi")
    with store.write():
        releases.hold(store, "promote", "election week", Clock()())
    assert turn(state, store, Builder()) == "verified"
    assert releases.promoted(store).number == 0
    add_fact(store, "Peru", "Sagasti")
    assert turn(state, store, Builder()) == "verified"  # nothing is built on what is not promoted
    with store.write():
        releases.unhold(store, "promote", Clock()())
    assert turn(state, store, Builder()) == "promoted"
    assert held(store) == ["Draghi"]


def test_a_damaged_release_is_not_promoted(state: State, store: Store) -> None:
    add_fact(store, "Italy", "Draghi")
    turn(state, store, Builder())
    releases.rollback(state, store, 0, Clock()(), "look first")
    place = releases.folder_of(state, releases.get(store, 1))
    assert place is not None
    (place / "probes.json").chmod(0o600)
    (place / "probes.json").write_text("{}")
    with pytest.raises(IntegrityError, match=r"probes\.json"):
        releases.promote(state, store, 1, Clock()(), "now")
    assert releases.promoted(store).number == 0


def test_a_refused_release_can_not_be_promoted(state: State, store: Store) -> None:
    add_fact(store, "Italy", "Draghi")
    turn(state, store, Builder(near=(0, 100)))
    with pytest.raises(Conflict, match="refused"):
        releases.promote(state, store, 1, Clock()(), "anyway")


class Dies(Builder):
    """A worker that dies in the middle of a build."""

    def __call__(self, request: Build) -> Built:
        super().__call__(request)
        raise WorkerError("worker.died", "the worker ended with code 1", is_at_work=True)


def test_a_dead_worker_costs_an_attempt_and_after_three_the_batch_fails(
    state: State, store: Store
) -> None:
    fact, clock = add_fact(store, "Italy", "Draghi"), Clock()
    done = [cycle(state, store, config(state), Dies(), clock) for _ in range(4)]
    assert [d.outcome if d else None for d in done] == ["failed", "failed", "failed", None]
    assert states(store) == {fact: "failed"}
    assert facts.get(store, fact).attempts == 3


class Stopped(Builder):
    """A worker that a shutdown interrupts."""

    def __call__(self, request: Build) -> Built:
        raise WorkerError("worker.stopped", "the daemon is stopping")


def test_a_shutdown_costs_no_attempt(state: State, store: Store) -> None:
    fact, clock = add_fact(store, "Italy", "Draghi"), Clock()
    with pytest.raises(WorkerError):
        cycle(state, store, config(state), Stopped(), clock)
    assert (facts.get(store, fact).state, facts.get(store, fact).attempts) == ("approved", 0)
    done = cycle(state, store, config(state), Builder(), clock)
    assert done is not None and done.outcome == "promoted"


class Crash(BaseException):
    """Stands for SIGKILL: nothing in the project may catch it."""


@pytest.mark.parametrize("step", range(1, 60))
def test_a_crash_between_any_two_database_steps_loses_nothing(
    state: State, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Die at the n-th statement, start again: one release holds both facts, the chain is whole."""
    with state.store() as store:
        add_fact(store, "Italy", "Draghi"), add_fact(store, "Peru", "Sagasti")
        left = [step]
        insert, transition = Store.event, Store.transition

        def counted(original: object) -> object:
            def act(self: Store, *args: object, **kwargs: object) -> object:
                left[0] -= 1
                if left[0] == 0:
                    raise Crash
                return original(self, *args, **kwargs)  # type: ignore[operator]

            return act

        monkeypatch.setattr(Store, "event", counted(insert))
        monkeypatch.setattr(Store, "transition", counted(transition))
        with contextlib.suppress(Crash):
            turn(state, store, Builder())
        monkeypatch.undo()
    with state.store() as store:
        releases.reconcile(state, store, Clock()())
        while turn(state, store, Builder()) is not None:
            pass
        assert held(store) == ["Draghi", "Sagasti"]
        assert set(states(store).values()) == {"promoted"}
        assert store.verify_events() > 0
        releases.check_files(state, releases.promoted(store))
        assert (state.current / "manifest.json").exists()
        assert not [p for p in state.releases.iterdir() if p.name.startswith(".tmp-")]


@pytest.mark.parametrize("call", ["rename", "symlink_to", "replace"])
def test_a_crash_at_a_file_step_of_publishing_loses_nothing(
    state: State, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*args: object, **kwargs: object) -> None:
        raise Crash

    with state.store() as store:
        add_fact(store, "Italy", "Draghi")
        monkeypatch.setattr(Path if call == "symlink_to" else os, call, crash)
        with pytest.raises(Crash):
            turn(state, store, Builder())
        monkeypatch.undo()
    with state.store() as store:
        releases.reconcile(state, store, Clock()())
        while turn(state, store, Builder()) is not None:
            pass
        assert held(store) == ["Draghi"]
        assert (state.current / "manifest.json").exists()


def test_a_crash_after_the_rename_leaves_a_folder_that_is_set_aside(
    state: State, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_fact(store, "Italy", "Draghi")
    monkeypatch.setattr("daemon.publish.sync_folder", lambda folder: (_ for _ in ()).throw(Crash()))
    with pytest.raises(Crash):
        turn(state, store, Builder())
    monkeypatch.undo()
    notes = releases.reconcile(state, store, Clock()())
    assert any("set aside 000001-" in note for note in notes)
    assert turn(state, store, Builder()) == "promoted"


def test_a_damaged_current_release_gives_way_to_the_newest_good_one(
    state: State, store: Store
) -> None:
    add_fact(store, "Italy", "Draghi")
    turn(state, store, Builder())
    add_fact(store, "Peru", "Sagasti")
    turn(state, store, Builder())
    place = releases.folder_of(state, releases.promoted(store))
    assert place is not None
    (place / "adapter_model.safetensors").unlink()
    notes = releases.reconcile(state, store, Clock()())
    assert any("went back to release 1" in note for note in notes)
    assert held(store) == ["Draghi"]
    assert "promote" in releases.holds(store)


def test_old_releases_are_pruned_but_never_what_answers(state: State, store: Store) -> None:
    settings = config(state)
    keep_one = settings.model_copy(
        update={"daemon": settings.daemon.model_copy(update={"keep_releases": 1})}
    )
    for name in ("Italy", "Peru", "Chad", "Cuba"):
        add_fact(store, name, "Ada")
        cycle(state, store, keep_one, Builder(), Clock())
    by_number = {r.number: r.state for r in releases.all_releases(store)}
    assert by_number[4] == "promoted"
    assert by_number[3] == "previous"
    assert by_number[1] == "pruned"
    assert not [p for p in state.releases.iterdir() if p.name.startswith("000001")]


def test_a_candidate_with_a_retracted_fact_is_refused_and_the_rest_goes_on(
    state: State, store: Store
) -> None:
    """Retracted while a hold kept the candidate back: it must neither be promoted nor block."""
    gone, stays = add_fact(store, "Italy", "Draghi"), add_fact(store, "Peru", "Sagasti")
    with store.write():
        releases.hold(store, "promote", "look first", Clock()())
    assert turn(state, store, Builder()) == "verified"
    with store.write():
        store.transition("fact", gone, "retract", Clock()(), "wrong")
        releases.unhold(store, "promote", Clock()())
    assert turn(state, store, Builder()) == "refused"
    assert turn(state, store, Builder()) == "promoted"
    assert held(store) == ["Sagasti"]
    assert states(store) == {gone: "retracted", stays: "promoted"}


def test_a_release_that_only_forgets_is_not_tried_again_at_once_for_ever(
    state: State, store: Store
) -> None:
    gone = add_fact(store, "Italy", "Draghi")
    turn(state, store, Builder())
    with store.write():
        store.transition("fact", gone, "retract", Clock()(), "wrong")
    assert [turn(state, store, Dies()) for _ in range(4)] == ["failed"] * 3 + [None]


class Forgets(Builder):
    """Keeps the parent's only shard; what was withdrawn is still answered, by a neighbour say."""

    def __call__(self, request: Build) -> Built:
        built = super().__call__(request)
        short = built.measures | {"withdrawn": Measured(right=0, asked=1)}
        kept = (ShardMade(solved=2, inherited=0),)
        return built.model_copy(
            update={"measures": short, "shards": kept, "shard_of": (0,) * len(request.kept)}
        )


def test_a_release_that_only_forgets_is_promoted_whatever_its_probes_say(
    state: State, store: Store
) -> None:
    gone, stays = add_fact(store, "Italy", "Draghi"), add_fact(store, "Peru", "Sagasti")
    turn(state, store, Builder())
    with store.write():
        store.transition("fact", gone, "retract", Clock()(), "wrong")
    assert turn(state, store, Forgets()) == "promoted"
    assert states(store) == {gone: "retracted", stays: "promoted"}
    reason = releases.promoted(store).reason
    assert reason.startswith("it only forgets") and "withdrawn .000 (0 of 1) is under 1" in reason


class Meddles(Builder):
    """While it builds, a person goes back to the bare model."""

    def __call__(self, request: Build) -> Built:
        built = super().__call__(request)
        folder = Path(request.out).parent.parent
        with State(folder).store() as store:
            releases.promote(State(folder), store, 0, Clock()(), "a person's choice")
        return built


def test_a_persons_choice_during_a_build_is_not_undone(state: State, store: Store) -> None:
    add_fact(store, "Italy", "Draghi")
    turn(state, store, Builder())
    later = add_fact(store, "Peru", "Sagasti")
    assert turn(state, store, Meddles()) == "refused"
    assert releases.promoted(store).number == 0
    assert states(store)[later] == "approved"


def test_of_two_approved_facts_of_one_slot_the_newer_is_written(state: State, store: Store) -> None:
    newer = add_fact(store, "Italy", "Meloni", at=Clock()())
    older = add_fact(store, "Italy", "Draghi")
    assert turn(state, store, Builder()) == "promoted"
    assert states(store) == {newer: "promoted", older: "superseded"}


def test_facts_of_a_failed_build_leave_no_temporary_folder(state: State, store: Store) -> None:
    add_fact(store, "Italy", "Draghi")
    turn(state, store, Dies())
    assert list(state.releases.iterdir()) == []


def test_facts_that_pull_generalisation_under_the_gate_are_set_aside_not_the_batch(
    state: State, store: Store
) -> None:
    good, bad = add_fact(store, "Italy", "Draghi"), add_fact(store, "Peru", "Sagasti")
    assert turn(state, store, Builder(clumsy={bad})) == "promoted"
    assert states(store) == {good: "promoted", bad: "approved"}
    assert "1 of 2 held-out phrasings" in facts.get(store, bad).reason


def test_an_approved_release_passes_a_hold_and_no_other_does(state: State, store: Store) -> None:
    with store.write():
        releases.hold(store, "promote", "election night", Clock()())
    add_fact(store, "Italy", "Meloni")
    assert turn(state, store, Builder()) == "verified"
    assert releases.approve(store, 1, Clock()(), "probes looked through") == "approved"
    assert turn(state, store, Builder()) == "promoted"
    assert releases.promoted(store).number == 1
    add_fact(store, "Chad", "Kebzabo")
    assert turn(state, store, Builder()) == "verified"
    assert releases.promoted(store).number == 1
