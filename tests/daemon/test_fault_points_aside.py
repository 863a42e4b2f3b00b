"""C1 beside the turn in which all goes well: dying where something failed, or came between.

The real points, in this process: instead of ending it they raise what nothing catches.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from test_emergency_crash import retract_now, written
from test_link_and_row import Said
from test_probation import Model, Probed
from test_taken_over import checked, watched
from test_triage import Mortal, sort_all_out
from world import START, Clock, add_fact, config, states

from daemon import attempts, emergency, faults, inspection, polling, releases, service
from daemon.child import WorkerError
from daemon.cycle import cycle
from daemon.faults import POINTS
from daemon.invariants import violations
from daemon.messages import Build, Built
from daemon.service import Service
from daemon.signals import Asked
from daemon.state import State
from daemon.store import Store, timestamp
from ingest import IngestError


class Killed(BaseException):
    """Stands for SIGKILL."""


def dies_at(point: str, monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Do something, which dies at a point on its way."""

    def end(status: int) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setenv(faults.VARIABLE, point)
        patch.setattr(os, "_exit", end)
        patch.setattr(faults, "_passed", type(faults._passed)())
        with pytest.raises(Killed):
            act()


def starts(state: State, store: Store) -> None:
    """Tidy up as a start does; all is in line after it."""
    attempts.note_interrupted(store, config(state), Clock()())
    releases.reconcile(state, store, Clock()())
    assert violations(state, store) == []


def turn(state: State, store: Store, builder: object = None) -> str | None:
    done = cycle(state, store, config(state), builder or Probed(), Clock())  # type: ignore[arg-type]
    return done.outcome if done else None


def dying(request: Build) -> Built:
    raise WorkerError("worker.killed", "out of memory", is_at_work=True)


def test_dying_after_a_build_failed_leaves_its_facts_for_the_next(
    state: State, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = add_fact(store, "Italy", "Ada")
    dies_at("cycle.failed", monkeypatch, lambda: turn(state, store, dying))
    starts(state, store)
    assert states(store) == {one: "approved"}
    done = cycle(state, store, config(state), Probed(), Clock(START + timedelta(hours=1)))
    assert done is not None and done.promoted == 1


def test_dying_after_a_candidate_was_overtaken_leaves_no_files_of_it(
    state: State, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = add_fact(store, "Italy", "Ada")
    assert turn(state, store) == "promoted"
    two = add_fact(store, "Peru", "Ada")

    def rolls_back(request: Build) -> Built:
        releases.rollback(state, store, 0, Clock()(), "wrong")
        with store.write():
            releases.unhold(store, "promote", Clock()())
        return Probed()(request)

    dies_at("cycle.withdrawn", monkeypatch, lambda: turn(state, store, rolls_back))
    refused = releases.folder_of(state, releases.get(store, 2))
    assert refused is not None and refused.exists()
    starts(state, store)
    assert not refused.exists()
    assert states(store) == {one: "verified", two: "approved"}
    assert turn(state, store) == "promoted"
    assert states(store) == {one: "verified", two: "promoted"}


def test_dying_after_a_retraction_was_overtaken_takes_the_fact_out_all_the_same(
    state: State, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = add_fact(store, "Italy", "Ada")
    assert turn(state, store) == "promoted"
    add_fact(store, "Peru", "Ada")

    def write(parent: Path | None, folder: Path, ids: object) -> None:
        written(parent, folder, ids)
        turn(state, store)

    monkeypatch.setattr(emergency, "_write", write)
    dies_at("emergency.overtaken", monkeypatch, lambda: retract_now(state, store, gone))
    starts(state, store)
    assert states(store) == {gone: "retracted", 2: "promoted"}
    assert turn(state, store) is None


def test_dying_after_a_failed_poll_counts_it_once(
    state: State, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"name": "x", "kind": "log", "location": "/nowhere", "tier": "normal"}
    row |= {"next_poll_at": timestamp(START), "created_at": timestamp(START)}
    store.insert("source", row)
    settings = config(state)

    def look(*_: object) -> object:
        raise IngestError("log.missing", "it is not there", "")

    def poll() -> None:
        for source in polling.due(store, START):
            extract = polling.extractor(settings)
            polling.poll(store, source, settings, extract, START, look)  # type: ignore[arg-type]

    dies_at("poll.failed", monkeypatch, poll)
    poll()
    (source,) = store.rows("SELECT failures FROM source WHERE name = 'x'")
    assert source["failures"] == 1


@pytest.mark.parametrize("point", ["triage.blamed", "triage.given_up"])
def test_dying_after_the_worker_died_of_received_facts_quarantines_only_the_one(
    state: State, store: Store, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    bad, good = (add_fact(store, name, "Ada", "received") for name in ("Italy", "Peru"))
    worker = Mortal(embed="Italy")
    dies_at(point, monkeypatch, lambda: sort_all_out(state, store, worker))
    starts(state, store)
    sort_all_out(state, store, worker)
    assert states(store) == {bad: "quarantined", good: "approved"}
    assert worker.deaths == 1 + 3  # as without dying: both together, then the one alone


def test_dying_after_a_check_on_probation_does_not_roll_back_twice(
    state: State, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched(state, store, "Italy", "Peru")
    dies_at("probation.checked", monkeypatch, lambda: checked(state, store, Model(wrong=20)))
    starts(state, store)
    assert checked(state, store, Model(wrong=20)) is None
    assert releases.promoted(store).number == 1


def test_dying_after_damage_was_recorded_lets_the_release_give_way_at_the_start(
    state: State, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched(state, store, "Italy", "Peru")
    place = releases.folder_of(state, releases.promoted(store))
    assert place is not None
    (place / "facts.jsonl").chmod(0o600)
    (place / "facts.jsonl").write_text("")
    monkeypatch.setattr(service, "now", lambda: START + timedelta(days=8))
    made = Service(state, store, state.config(), Said(), Asked(30))
    dies_at("inspect.recorded", monkeypatch, made.work)
    assert inspection.damage(store)
    Service(state, store, state.config(), Said(), Asked(30)).start()
    assert releases.promoted(store).number == 1


def test_dying_amid_a_reload_starts_with_the_configuration_on_disk(
    state: State, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Service(state, store, state.config(), Said(), Asked(30))
    text = state.config_file.read_text()
    state.config_file.write_text(text.replace("keep_releases = 10", "keep_releases = 7"))
    dies_at("reload.recorded", monkeypatch, made.reload)
    assert json.loads(state.running_file.read_text())["daemon"]["keep_releases"] == 10
    again = Service(state, store, state.config(), Said(), Asked(30))
    again.start()
    assert json.loads(state.running_file.read_text())["daemon"]["keep_releases"] == 7


def test_dying_while_interrupted_batches_are_noted_notes_them_once(
    state: State, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_fact(store, "Italy", "Ada")
    dies_at("cycle.built", monkeypatch, lambda: turn(state, store))
    dies_at("start.noted", monkeypatch, lambda: starts(state, store))
    starts(state, store)
    (batch,) = store.rows("SELECT attempts, deaths FROM batch")
    assert (batch["attempts"], batch["deaths"]) == (1, 1)
    assert turn(state, store) == "promoted"


def test_each_point_beside_the_turn_is_died_at_here() -> None:
    aside = POINTS[POINTS.index("emergency.overtaken") : POINTS.index("reconcile.dropped")]
    text = Path(__file__).read_text("utf-8")
    assert [point for point in aside if f'"{point}"' not in text] == []
