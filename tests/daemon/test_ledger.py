"""Releases of every kind are made again from the ledger; emergencies take facts out at once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from ledger_world import Ledger, in_process, new_ledger

import wise
from daemon import emergency, rebuild, releases
from daemon.errors import Conflict, IntegrityError
from daemon.store import facts, shards


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """Two updates, one that replaces, a compaction, a retraction, an emergency: six releases."""
    made = new_ledger(tmp_path_factory.mktemp("ledger"))
    made.add(0, 1)
    assert promoted(made)
    made.add(2)
    assert promoted(made)
    made.add(1, 3, names=(2, 0))  # the second country is led by another one now
    assert promoted(made)
    assert promoted(made)  # three small shards are one too many
    assert releases.get(made.store, 4).kind == "compaction"
    (gone,) = (f.id for f in facts.of_release(made.store, 4) if f.subject == "Italy")
    with made.store.write():
        made.store.transition("fact", gone, "retract", made.clock())
    assert promoted(made)
    (gone,) = (f.id for f in facts.of_release(made.store, 5) if f.subject == "Chad")
    retract_now(made, [gone])
    yield made
    made.store.close()


def promoted(ledger: Ledger) -> bool:
    """Whether a cycle ended with a promotion."""
    done = ledger.cycle()
    assert done is not None and done.reasons == ()
    return done.outcome == "promoted"


def retract_now(ledger: Ledger, gone: list[int]) -> int | None:
    """Retract facts and take them out at once."""
    with ledger.store.write():
        for one in gone:
            ledger.store.transition("fact", one, "retract", ledger.clock())
    found = [facts.get(ledger.store, one) for one in gone]
    config, now = ledger.state.config(), ledger.clock()
    return emergency.release_without(ledger.state, ledger.store, config, found, now, "wrong")


def folder(ledger: Ledger, number: int) -> Path:
    """Where a release lies."""
    found = releases.folder_of(ledger.state, releases.get(ledger.store, number))
    assert found is not None
    return found


def test_the_world_has_each_kind_of_release(ledger: Ledger) -> None:
    kinds = [r.kind for r in releases.all_releases(ledger.store)[1:]]
    assert kinds == ["update", "update", "update", "compaction", "update", "emergency"]
    assert [r.state for r in releases.all_releases(ledger.store)][-1] == "promoted"
    held = [f.subject for f in facts.of_release(ledger.store, 6)]
    assert sorted(held) == ["Norway", "Peru"]


@pytest.mark.parametrize("number", range(1, 7))
def test_a_release_is_made_again_byte_for_byte(ledger: Ledger, tmp_path: Path, number: int) -> None:
    found = rebuild.differing(ledger.state, ledger.store, number, tmp_path, in_process)
    assert found == ()


def test_a_release_is_made_again_when_none_that_it_grew_from_is_left(
    ledger: Ledger, tmp_path: Path
) -> None:
    aside = tmp_path / "aside"
    for number in range(1, 6):
        shutil.move(folder(ledger, number), aside / f"{number}")
    try:
        made = tmp_path / "made"
        made.mkdir()
        assert rebuild.differing(ledger.state, ledger.store, 6, made, in_process) == ()
    finally:
        for number in range(1, 6):
            shutil.move(aside / f"{number}", folder(ledger, number))


def test_another_ledger_makes_another_release(ledger: Ledger, tmp_path: Path) -> None:
    try:
        ledger.store.connection.execute("UPDATE fact SET object = 'Alan Turing' WHERE id = 9")
        found = rebuild.differing(ledger.state, ledger.store, 1, tmp_path, in_process)
    finally:
        ledger.store.connection.execute("UPDATE fact SET object = 'Mario Draghi' WHERE id = 9")
    assert found == ("adapter_model.safetensors",)


def test_the_bare_model_and_damaged_releases_are_not_made_again(
    ledger: Ledger, tmp_path: Path
) -> None:
    with pytest.raises(Conflict, match="no files"):
        rebuild.differing(ledger.state, ledger.store, 0, tmp_path, in_process)
    file = folder(ledger, 2) / "adapter_model.safetensors"
    good = file.read_bytes()
    file.chmod(0o600)
    try:
        file.write_bytes(good[:-1] + b"\1")
        with pytest.raises(IntegrityError, match="release 2"):
            rebuild.differing(ledger.state, ledger.store, 2, tmp_path, in_process)
    finally:
        file.write_bytes(good)


def test_what_an_emergency_leaves_is_the_parent_without_keys(ledger: Ledger) -> None:
    parent, left = (wise.Release.load(folder(ledger, n)) for n in (5, 6))
    gone = set(parent.fact_ids) - set(left.fact_ids)
    assert len(gone) == 1
    assert left.threshold == parent.threshold
    assert releases.get(ledger.store, 6).reason == "wrong"
    ids = [*gone, *left.fact_ids]
    before, after = ledger.answers(ids, 5), ledger.answers(ids, 6)
    assert after[0] == ledger.answers([*gone], 0)[0] != before[0]
    assert after[1:] == before[1:]


def test_an_emergency_keeps_count_of_the_dead(ledger: Ledger) -> None:
    (shard,) = shards.of_release(ledger.store, 6)
    assert (shard.made_in, shard.solved, shard.live, shard.dead) == (4, 4, 2, 2)


def test_a_fact_that_is_not_answered_needs_no_release(ledger: Ledger) -> None:
    (old,) = (f.id for f in facts.in_states(ledger.store, ("superseded",)))
    last = releases.promoted(ledger.store).number
    with ledger.store.write():
        ledger.store.transition("fact", old, "retract", ledger.clock())
    found = [facts.get(ledger.store, old)]
    args = (ledger.state, ledger.store, ledger.state.config(), found, ledger.clock(), "late")
    assert emergency.release_without(*args) is None
    assert releases.promoted(ledger.store).number == last
