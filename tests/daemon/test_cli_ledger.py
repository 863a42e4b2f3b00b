"""Taking facts back at once and verifying a release, as an operator types it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_world import state_of, wised
from ledger_world import Ledger, new_ledger

from daemon import releases
from wise import manifest


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A state whose release 1 holds two facts, 9 and 10."""
    made = new_ledger(tmp_path)
    made.add(0, 1)
    done = made.cycle()
    assert done is not None and done.outcome == "promoted"
    yield made
    made.store.close()


def test_facts_are_taken_back_at_once(ledger: Ledger) -> None:
    done = wised(ledger.state, "fact", "retract", "9", "--now", "--reason", "libel", "--json")
    assert done.code == 0
    assert done.json["results"] == [
        {"subject": "fact 9", "result": "retracted"},
        {"subject": "release 2", "result": "promoted"},
    ]
    release = releases.promoted(ledger.store)
    assert (release.number, release.kind, release.reason) == (2, "emergency", "libel")
    folder = releases.folder_of(ledger.state, release)
    assert folder is not None and ledger.state.current.resolve() == folder
    assert manifest.verify(folder)["facts"] == 1
    assert [state_of(ledger.state, one) for one in (9, 10)] == ["retracted", "promoted"]
    assert ledger.cycle() is None  # nothing is left to do


def test_taking_back_at_once_is_rehearsed(ledger: Ledger) -> None:
    done = wised(ledger.state, "fact", "retract", "9", "--now", "--dry-run")
    assert done.code == 0
    assert ["release 2", "promoted"] in [row[:2] for row in done.rows]
    assert releases.promoted(ledger.store).number == 1
    assert state_of(ledger.state, 9) == "promoted"
    assert len(list(ledger.state.releases.iterdir())) == 1


def test_taking_back_the_last_fact_leaves_an_empty_release(ledger: Ledger) -> None:
    assert wised(ledger.state, "fact", "retract", "9", "10", "--now").code == 0
    assert ledger.answers([9, 10], 2) == ledger.answers([9, 10], 0)
    ledger.add(2)
    done = ledger.cycle()
    assert done is not None and done.outcome == "promoted"
    assert ledger.answers([11], 3) == ["Grace Hopper"]


def test_a_release_is_verified_by_making_and_asking_it_again(ledger: Ledger) -> None:
    done = wised(ledger.state, "release", "verify", "1", "--rebuild", "--answers", "--json")
    assert done.code == 0, done.err
    assert done.json["result"] == "intact"
    assert done.json["rebuilt"] == "identical"
    (folder,) = ledger.state.releases.iterdir()
    probes = json.loads((folder / "probes.json").read_text("utf-8"))["probes"]
    assert done.json["answers"] == len({(p["prompt"], p["tokens"]) for p in probes}) > 4


def test_a_probe_that_is_answered_otherwise_than_recorded_is_named(ledger: Ledger) -> None:
    (folder,) = ledger.state.releases.iterdir()
    file = folder / "probes.json"
    body = json.loads(file.read_text("utf-8"))
    body["probes"][0]["answer"] = "somebody else"
    folder.chmod(0o700)
    for path in folder.iterdir():
        path.chmod(0o600)
    file.write_text(json.dumps(body), "utf-8")
    digest = manifest.seal(folder, {"release": 1})
    ledger.store.connection.execute("UPDATE release SET manifest_sha256 = ?", (digest,))
    done = wised(ledger.state, "release", "verify", "1", "--answers")
    assert done.code == 9
    assert "'somebody else' as recorded" in done.err


def test_the_bare_model_has_nothing_to_verify(ledger: Ledger) -> None:
    done = wised(ledger.state, "release", "verify", "0", "--rebuild", "--answers", "--json")
    assert (done.code, done.json["result"]) == (0, "no_files")
