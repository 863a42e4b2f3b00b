"""What becomes of facts that a language model read out of a text: a person decides."""

from __future__ import annotations

import base64
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from reader_world import toml
from world import START, Clock, config, new_state

from daemon import triage
from daemon.config import load
from daemon.errors import UsageError
from daemon.messages import Answers, Ask, Embed, Embedded, Said
from daemon.store import Store, facts
from daemon.store.lifecycle import FACT_STATES
from daemon.triage import Triage, approve
from ingest import Candidate
from policies.approval import State, decide
from policies.conflict import Resolution, Standing
from policies.trust import Tier

READ = "reader-local/1:demo"


class World:
    """Facts in the store, and a triage that a test runs; nothing is near in the embedding."""

    def __init__(self, folder: Path, store: Store, **extraction: object) -> None:
        settings = config(new_state(folder))
        changed = settings.extraction.model_copy(update=extraction)
        self.store = store
        self.config = settings.model_copy(update={"extraction": changed})
        self.triage = Triage(store, self.config, self._embed, self._ask)

    def _embed(self, request: Embed) -> Embedded:
        import numpy as np

        rows = np.zeros((len(request.texts), 8), "<f4")
        rows[:, 0] = 1
        return Embedded(width=8, vectors=base64.b64encode(rows.tobytes()).decode())

    def _ask(self, request: Ask) -> Answers:
        return Answers(answers=tuple(Said(text="nobody") for _ in request.prompts))

    def add(
        self, object: str, extractor: str = READ, tier: str = "trusted", at: datetime = START
    ) -> int:
        prompt = "The head of government of Chad is"
        candidate = Candidate(
            "Chad", "head_of_government", object, None, (prompt,), (), f"Chad: {object}", extractor
        )
        with self.store.write():
            return facts.insert(self.store, candidate, None, tier, at, at)

    def sort_out(self) -> dict[int, str]:
        self.triage.run(None, Clock()())
        return {f.id: f.state for f in facts.in_states(self.store, FACT_STATES)}


@pytest.fixture
def store(tmp_path: Path):
    with new_state(tmp_path).store() as opened:
        yield opened


@pytest.fixture
def world(tmp_path: Path, store: Store) -> World:
    return World(tmp_path, store)


@pytest.mark.parametrize("tier", ["trusted", "normal", "untrusted"])
def test_a_read_fact_waits_for_a_person_whatever_its_tier(world: World, tier: str) -> None:
    one = world.add("Succès Masra", tier=tier)
    assert world.sort_out() == {one: "pending"}
    reason = facts.get(world.store, one).reason
    assert reason == f"read out of a text of tier {tier} by a language model: waits for a person"


def test_it_is_approved_by_rule_where_the_configuration_says_so_and_the_source_is_trusted(
    tmp_path: Path, store: Store
) -> None:
    world = World(tmp_path, store, auto_approve=True)
    world.config = world.config.model_copy(
        update={
            "policies": world.config.policies.model_copy(
                update={"auto_approve": ("trusted", "normal")}
            )
        }
    )
    world.triage = Triage(store, world.config, world._embed, world._ask)
    one = world.add("Succès Masra")
    assert world.sort_out() == {one: "approved"}
    two = world.add("Allamaye Halina", tier="normal", at=START + timedelta(days=1))
    assert world.sort_out()[two] in ("pending", "conflicting")


def test_it_is_quarantined_for_its_looks_like_any_other(world: World) -> None:
    one = world.add("see https://evil.example/x")
    assert world.sort_out() == {one: "quarantined"}


def test_a_newer_read_fact_does_not_push_a_believed_one_aside(world: World) -> None:
    held = world.add("Saleh Kebzabo", "payload/1")
    world.sort_out()
    one = world.add("Succès Masra", at=START + timedelta(days=1))
    assert world.sort_out() == {held: "approved", one: "conflicting"}


def test_a_waiting_read_fact_silences_no_older_one_from_a_better_rung(world: World) -> None:
    guess = world.add("Succès Masra", at=START + timedelta(days=1))
    world.sort_out()
    stated = world.add("Saleh Kebzabo", "pattern/1")
    assert world.sort_out() == {guess: "pending", stated: "conflicting"}


def test_a_fact_that_is_stated_outright_takes_the_place_of_the_same_one_read(world: World) -> None:
    """As a mere duplicate of a waiting guess, a trusted payload would wait with it."""
    guess = world.add("Succès Masra")
    world.sort_out()
    stated = world.add("Succès Masra", "payload/1", at=START + timedelta(days=1))
    assert world.sort_out() == {guess: "superseded", stated: "approved"}
    again = world.add("Succès Masra", at=START + timedelta(days=2))
    assert world.sort_out()[again] == "duplicate"


def test_once_a_person_approved_it_a_read_fact_stands_like_any_other(world: World) -> None:
    guess = world.add("Succès Masra", at=START + timedelta(days=1))
    world.sort_out()
    approve(world.store, guess, "checked", START + timedelta(days=2))
    older = world.add("Saleh Kebzabo", "pattern/1")
    assert world.sort_out() == {guess: "approved", older: "superseded"}


def test_a_fact_that_brings_a_bug_to_light_is_quarantined_and_the_others_go_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = triage.resolve

    def stumbles(new: Standing, held: Standing) -> Resolution:
        if new.asserted_at == START + timedelta(days=1):
            raise IndexError("list index out of range")
        return judged(new, held)

    monkeypatch.setattr(triage, "resolve", stumbles)
    good = world.add("Saleh Kebzabo", "pattern/1")
    bad = world.add("Succès Masra", "pattern/1", at=START + timedelta(days=1))
    older = world.add("Albert Padacké", "pattern/1", at=START - timedelta(days=1))
    found = world.triage.run(None, Clock()())
    assert len(found.traces) == 1 and "list index out of range" in found.traces[0]
    states = {f.id: f.state for f in facts.in_states(world.store, FACT_STATES)}
    assert states == {good: "approved", bad: "quarantined", older: "superseded"}


def test_a_guess_is_never_approved_by_rule() -> None:
    every = frozenset(Tier)
    for tier in Tier:
        found = decide(tier, auto_approve=every, subject="Chad", object="Abéché", is_guess=True)
        assert found.state is State.PENDING
        assert tier in found.reason


MINIMAL = '[model]\nname = "demo"\n[embedding]\nname = "m"\n[extraction]\n'


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"reader": "cloud"}, "reader"),
        ({"reader": "endpoint"}, "needs model"),
        ({"endpoint": "ftp://host/v1"}, "http or https URL"),
        ({"endpoint": "http://user:sk-secret@host/v1"}, "without user"),
        ({"endpoint": "http://host/v1?key=sk-secret"}, "without user"),
        ({"endpoint": "http://host:99999/v1"}, "http or https URL"),
        ({"api_key_env": "sk-secret"}, "the name of an environment variable"),
        ({"timeout_seconds": 0}, "greater than 0"),
        ({"max_facts_per_entry": 1000}, "less than or equal to 100"),
        ({"api_key": "sk-secret"}, "not permitted"),
    ],
)
def test_an_extraction_section_that_can_not_work_is_refused_without_showing_secrets(
    tmp_path: Path, values: dict[str, object], message: str
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(MINIMAL + "".join(f"{k} = {toml(v)}\n" for k, v in values.items()))
    with pytest.raises(UsageError) as caught:
        load(path)
    assert message in str(caught.value)
    assert "sk-secret" not in str(caught.value)
