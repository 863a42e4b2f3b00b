"""Questions for router and probes: disjoint groups, no live slot, near ones near."""

from __future__ import annotations

from daemon.config import Relation
from daemon.questions import Slot, choose, group

RELATIONS = {
    name: Relation(prompts=(f"{name} of {{subject}}?",), held_out=(f"tell {name}: {{subject}}",))
    for name in ("capital", "leader", "anthem", "code")
}
SUBJECTS = {f"Land{i}" for i in range(60)}
NEW = [Slot("Land1", "leader"), Slot("Land2", "leader")]
LIVE = {*NEW, Slot("Land3", "leader")}


def texts_of(name: str) -> set[str]:
    """Every phrasing of the slots in a group."""
    return {
        text.replace("{subject}", s)
        for s in SUBJECTS
        for r, relation in RELATIONS.items()
        if group(Slot(s, r)) == name
        for text in relation.prompts + relation.held_out
    }


def test_probes_share_no_slot_with_what_is_fitted_or_calibrated() -> None:
    made = choose(RELATIONS, SUBJECTS, LIVE, NEW, far=20, seed=0)
    assert made.fit and made.calibrate and made.near and made.far
    assert {p for q in made.fit for p in q.prompts} <= texts_of("fit")
    assert {p for q in made.calibrate for p in q.prompts} <= texts_of("calibrate")
    assert {*made.near, *made.far} <= texts_of("probe")
    assert not set(made.near) & set(made.far)
    assert len(made.far) == 20


def test_near_probes_are_about_the_same_subject_or_relation() -> None:
    made = choose(RELATIONS, SUBJECTS, LIVE, NEW, far=20, seed=0)
    for prompt in made.near:
        assert (
            "Land1?" in prompt
            or "Land2?" in prompt
            or "leader" in prompt
            or prompt.endswith(("Land1", "Land2"))
        )


def test_a_live_slot_is_never_asked() -> None:
    live = {Slot(f"Land{i}", "leader") for i in range(60)}
    made = choose(RELATIONS, SUBJECTS, live, NEW, far=200, seed=0)
    asked = [*made.near, *made.far, *(p for q in (*made.fit, *made.calibrate) for p in q.prompts)]
    assert asked and not any("leader" in prompt for prompt in asked)


def test_the_same_seed_asks_the_same() -> None:
    one, two = (choose(RELATIONS, SUBJECTS, LIVE, NEW, far=20, seed=3) for _ in "ab")
    assert one == two
