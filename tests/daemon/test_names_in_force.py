"""Subjects with several names, from triage to what is asked, and keys made anew with new names."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from cli_world import wised
from world import START, Builder, Clock, add_fact, config, states

from daemon import plan, releases, status
from daemon.config import Config, default_file
from daemon.cycle import cycle
from daemon.messages import Answers, Ask, Embed, Embedded, Said
from daemon.service import Service
from daemon.state import State, init
from daemon.store import Store, facts, keys
from daemon.triage import Triage
from ingest import slot_key

LATER = START + timedelta(days=1)
BURMA = {"Myanmar": ("Burma",)}


def settings(subjects: dict[str, tuple[str, ...]]) -> str:
    """The default configuration with these names only."""
    text = default_file().read_text("utf-8")
    start, end = text.index("[subjects]"), text.index("[relations.chief_of_state]")
    lines = [f"{json.dumps(name)} = {json.dumps(other)}" for name, other in subjects.items()]
    return text[:start] + "\n".join(["[subjects]", *lines, "\n"]) + text[end:]


@pytest.fixture
def state(tmp_path: Path) -> State:
    return init(tmp_path / "state", START, settings(BURMA))


@pytest.fixture
def store(state: State) -> Iterator[Store]:
    with state.store() as opened:
        yield opened


def far_apart(request: Embed) -> Embedded:
    """No text reads like another, so only slots can bring facts together."""
    rows = np.eye(len(request.texts), 64, dtype="<f4")
    return Embedded(width=64, vectors=base64.b64encode(rows.tobytes()).decode())


def knows_nothing(request: Ask) -> Answers:
    return Answers(answers=tuple(Said(text="nobody") for _ in request.prompts))


def sort_out(state: State, store: Store) -> dict[int, str]:
    Triage(store, config(state), far_apart, knows_nothing).run(None, Clock()())
    return states(store)


def turn(state: State, store: Store, settings: Config | None = None) -> Builder:
    builder = Builder()
    done = cycle(state, store, settings or config(state), builder, Clock(LATER))
    assert done is not None and done.outcome == "promoted"
    return builder


def test_a_newer_fact_under_another_name_takes_the_older_ones_place(
    state: State, store: Store
) -> None:
    old = add_fact(store, "Burma", "Thein Sein", "received")
    assert sort_out(state, store) == {old: "approved"}
    turn(state, store)
    new = add_fact(store, "Myanmar", "Min Aung Hlaing", "received", at=LATER)
    assert sort_out(state, store) == {old: "promoted", new: "approved"}
    request = turn(state, store).requests[0]
    assert [f.id for f in request.facts] == [new] and request.kept == ()
    assert request.facts[0].replaces == ("Thein Sein",)
    assert states(store) == {old: "superseded", new: "promoted"}
    assert [f.object for f in facts.of_release(store, 2)] == ["Min Aung Hlaing"]


def test_the_new_fact_is_asked_under_each_name_that_sources_used(
    state: State, store: Store
) -> None:
    """So the older name does not fall back to what the bare model says."""
    add_fact(store, "Burma", "Thein Sein")
    one = turn(state, store).requests[0].facts[0]
    assert all("Burma" in prompt for prompt in (*one.prompts, *one.held_out))
    add_fact(store, "Myanmar", "Min Aung Hlaing", at=LATER)
    two = turn(state, store).requests[0].facts[0]
    assert two.prompts[0] == "Q: Who is the head of government of Myanmar? A:"
    assert "Q: Who is the head of government of Burma? A:" in two.prompts
    assert "The person who runs the government of Burma is" in two.held_out
    assert not set(two.prompts) & set(two.held_out)


def test_the_same_fact_under_another_name_is_a_duplicate(state: State, store: Store) -> None:
    one = add_fact(store, "Burma", "Thein Sein", "received")
    two = add_fact(store, "MYANMAR", "Thein Sein", "received")
    assert sort_out(state, store) == {one: "approved", two: "duplicate"}
    assert facts.get(store, two).subject == "MYANMAR", "it is shown as written"


def test_no_question_is_asked_of_a_live_slot_under_any_name(state: State, store: Store) -> None:
    add_fact(store, "Burma", "Thein Sein")
    for place in range(30):
        add_fact(store, f"Land{place}", f"capital {place}", "pending", relation="capital")
    add_fact(store, "Myanmar", "Yangon", "pending", relation="largest_city")
    asked = turn(state, store).requests[0].questions
    told = [p for q in (*asked.fit, *asked.calibrate) for p in (*q.prompts, *q.held_out)]
    told += [*asked.near, *asked.far]
    assert any("Burma" in prompt for prompt in told), "its other slots are asked"
    assert not any("Myanmar" in prompt for prompt in told), "one name is enough"
    assert not any("government of Burma" in p and "Who is the head" in p for p in told)


def test_an_object_under_another_name_is_no_change(tmp_path: Path) -> None:
    state = init(tmp_path / "uk", START, settings({"United Kingdom": ("UK",)}))
    with state.store() as store:
        partner = {"relation": "top_export_partner", "at": LATER}
        one = add_fact(store, "Ireland", "UK", "received", relation="top_export_partner")
        two = add_fact(store, "Ireland", "United Kingdom", "received", **partner)  # type: ignore[arg-type]
        assert sort_out(state, store) == {one: "approved", two: "duplicate"}


def test_a_look_alike_of_a_held_subject_waits_for_a_person(state: State, store: Store) -> None:
    """A name wholly in Cyrillic letters mixes none, but would push the real one out."""
    real = add_fact(store, "Cocos", "Ada", "received")
    fake = add_fact(store, "\u0421\u043e\u0441\u043e\u0455", "Eve", "received", at=LATER)
    assert sort_out(state, store) == {real: "approved", fake: "quarantined"}
    assert facts.get(store, fake).reason == (
        f"the subject reads like 'Cocos', but is written in cyrillic letters (fact {real})"
    )


def test_a_disguise_that_came_first_does_not_hold_up_the_real_one(
    state: State, store: Store
) -> None:
    fake = add_fact(store, "\u0421\u043e\u0441\u043e\u0455", "Eve", "received", tier="untrusted")
    assert sort_out(state, store) == {fake: "pending"}
    real = add_fact(store, "Cocos", "Ada", "received", at=LATER)
    assert sort_out(state, store) == {fake: "superseded", real: "approved"}


def test_a_listed_name_in_another_script_is_no_look_alike(tmp_path: Path) -> None:
    moscow = "\u041c\u043e\u0441\u043a\u0432\u0430"
    state = init(tmp_path / "moscow", START, settings({"Moscow": (moscow,)}))
    with state.store() as store:
        one = add_fact(store, "Moscow", "Ada", "received")
        two = add_fact(store, moscow, "Eve", "received", at=LATER)
        assert sort_out(state, store) == {one: "superseded", two: "approved"}


class Quiet:
    """A log that keeps the names of what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def info(self, event: str, **fields: object) -> None:
        self.told.append(event)

    warning = error = info


def start(state: State, store: Store) -> None:
    """Start a daemon on the state as its configuration stands now."""
    service = Service(state, store, state.config(), Quiet())
    service.start()
    service.close()


def test_a_release_can_be_made_again_after_the_names_have_changed(
    state: State, store: Store
) -> None:
    add_fact(store, "Burma", "Thein Sein")
    turn(state, store)
    add_fact(store, "Myanmar", "Min Aung Hlaing", at=LATER)
    made = turn(state, store).requests[0]
    state.config_file.write_text(settings({}), "utf-8")
    start(state, store)
    add_fact(store, "Burma", "Myint Swe", "received", at=LATER)
    release = releases.get(store, 2)
    then = Config.model_validate_json(plan.settings_of(store, release))
    parent = releases.folder_of(state, releases.get(store, 1))
    again = plan.request(store, then, plan.recorded(store, release), parent, Path(made.out))
    assert again == made


def events(store: Store) -> list[dict[str, object]]:
    rows = store.rows("SELECT data FROM event WHERE action = 'fact.rekey' ORDER BY seq")
    return [json.loads(row["data"]) for row in rows]


def test_a_start_with_other_names_makes_all_keys_anew_and_says_so(
    state: State, store: Store
) -> None:
    one, two = add_fact(store, "Swaziland", "Ada"), add_fact(store, "Chad", "Bob")
    start(state, store)
    assert events(store) == [], "the names are those of before"
    state.config_file.write_text(settings({"Eswatini": ("Swaziland",)}), "utf-8")
    start(state, store)
    start(state, store)
    assert [(e["facts"], e["disputed"]) for e in events(store)] == [(1, [])]
    assert facts.get(store, one).slot_key == slot_key("Eswatini", "head_of_government")
    assert facts.get(store, two).slot_key == slot_key("Chad", "head_of_government")
    assert facts.get(store, one).subject == "Swaziland"
    assert store.verify_events() > 0


def test_names_are_not_in_force_before_the_daemon_starts(state: State, store: Store) -> None:
    """A command that runs in between makes keys that compare with those in the store."""
    state.config_file.write_text(settings({"Eswatini": ("Swaziland",)}), "utf-8")
    one = add_fact(store, "Swaziland", "Ada")
    assert facts.get(store, one).slot_key == slot_key("Swaziland", "head_of_government")
    checked = wised(state, "config", "check", "--json").json
    assert checked["rekeys_at_start"] is True and checked["subjects"] == 1


def test_a_database_from_before_names_gets_its_keys_at_the_next_start(
    state: State, store: Store
) -> None:
    one = add_fact(store, "Burma", "Ada")
    with store.write():
        store.connection.execute("DELETE FROM keying")
        store.connection.execute("UPDATE fact SET slot_key = 'old', fact_key = 'old'")
    start(state, store)
    assert facts.get(store, one).slot_key == slot_key("Myanmar", "head_of_government")
    assert [e["before"] for e in events(store)] == [None]


def test_a_crash_on_the_way_leaves_the_old_keys(
    state: State, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = add_fact(store, "Swaziland", "Ada")
    before = facts.get(store, one)

    def dies(*data: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "event", dies)
    with pytest.raises(KeyboardInterrupt):
        keys.renew(store, {"Eswatini": ("Swaziland",)}, START)
    assert facts.get(store, one) == before
    assert keys.in_force(store, BURMA)


@pytest.fixture
def disputed(tmp_path: Path) -> Iterator[tuple[State, Store, int, int]]:
    """Two promoted facts about one country under two names; then the names become one."""
    state = init(tmp_path / "two", START, settings({}))
    with state.store() as store:
        one = add_fact(store, "Burma", "Thein Sein")
        two = add_fact(store, "Myanmar", "Min Aung Hlaing", at=LATER)
        turn(state, store)
        state.config_file.write_text(settings(BURMA), "utf-8")
        start(state, store)
        yield state, store, one, two


def test_facts_whose_names_become_one_are_left_to_a_person(
    disputed: tuple[State, Store, int, int],
) -> None:
    state, store, one, two = disputed
    assert states(store) == {one: "promoted", two: "promoted"}, "nothing is decided by itself"
    assert events(store)[0]["disputed"] == [[one, two]]
    problems = status.read(state, store, START).problems
    assert len(problems) == 1
    assert "'Thein Sein'" in problems[0] and "'Min Aung Hlaing'" in problems[0]
    assert "wised fact retract" in problems[0]
    with state.lock():
        assert wised(state, "status", "--check").code == 6
    with store.write():
        store.transition("fact", one, "retract", LATER, "it was the other one")
    assert status.read(state, store, START).problems == ()


def test_the_next_fact_of_a_disputed_slot_takes_the_place_of_both(
    disputed: tuple[State, Store, int, int],
) -> None:
    state, store, one, two = disputed
    new = add_fact(store, "Burma", "Myint Swe", "received", at=LATER + timedelta(days=1))
    assert sort_out(state, store)[new] == "approved"
    request = turn(state, store).requests[0]
    assert set(request.facts[0].replaces) == {"Thein Sein", "Min Aung Hlaing"}
    assert states(store) == {one: "superseded", two: "superseded", new: "promoted"}
    assert status.read(state, store, START).problems == ()
    changed = wised(state, "release", "diff", "1", "2", "--json").json
    assert len(changed["removed"]) + len(changed["replaced"]) == 2


def test_two_promoted_facts_that_say_the_same_are_no_problem(tmp_path: Path) -> None:
    state = init(tmp_path / "same", START, settings({}))
    with state.store() as store:
        add_fact(store, "Burma", "Prime Minister Thein Sein")
        add_fact(store, "Myanmar", "Thein Sein")
        turn(state, store)
        state.config_file.write_text(settings(BURMA), "utf-8")
        start(state, store)
        assert status.read(state, store, START).problems == ()
        assert releases.promoted(store).number == 1


def test_facts_are_found_under_any_name_of_their_subject(state: State, store: Store) -> None:
    one = add_fact(store, "Burma", "Ada")
    add_fact(store, "Chad", "Bob")
    found = wised(state, "fact", "list", "--subject", "the Myanmar", "--json").json["facts"]
    assert [(f["id"], f["subject"]) for f in found] == [(one, "Burma")]
    found = wised(state, "fact", "list", "--subject", "burm", "--json").json["facts"]
    assert [f["id"] for f in found] == [one]


def test_a_bad_table_is_refused_with_both_names(state: State) -> None:
    state.config_file.write_text(settings({"Congo": ("Zaire",), "Kongo": ("Zaire",)}), "utf-8")
    refused = wised(state, "config", "check")
    assert refused.code == 2
    for part in ("config.toml:", "subjects:", "'Zaire'", "'Congo'", "'Kongo'"):
        assert part in refused.err


def test_config_show_lists_the_names(state: State) -> None:
    rows = wised(state, "config", "show").rows
    assert ["subjects.Myanmar", '["Burma"]', "config.toml"] in rows
