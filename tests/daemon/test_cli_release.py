import time

import pytest
from cli_world import EDITED, add_fact, add_release, dump, new_state, refuse, state_of, wised

from daemon import releases


@pytest.fixture
def state(tmp_path):
    return new_state(tmp_path)


@pytest.fixture
def three(state):
    """Releases 1 and 2 promoted one after the other, 3 verified; each holds one fact more."""
    ids = [add_fact(state, s, s, events=EDITED) for s in ("Chad", "Mali", "Peru")]
    add_release(state, 1, (ids[0],))
    add_release(state, 2, (ids[0], ids[1]), parent=1)
    add_release(state, 3, tuple(ids), parent=2, promote=False)
    return state


def current(state):
    with state.store() as store:
        return releases.promoted(store).number


def test_releases_are_listed_newest_first_with_the_facts_they_hold(three):
    found = wised(three, "release", "list", "--json").json["releases"]
    assert [(r["number"], r["state"], r["facts"]) for r in found] == [
        (3, "verified", 3),
        (2, "promoted", 2),
        (1, "previous", 1),
        (0, "retained", 0),
    ]
    assert [row[0] for row in wised(three, "release").rows] == ["NUMBER", "3", "2", "1", "0"]


def test_a_release_is_shown_with_measures_facts_and_history(state):
    fact = add_fact(state, events=EDITED)
    add_release(state, 1, (fact,), measures='{"reliability": {"right": 3, "asked": 4}}')
    shown = wised(state, "release", "show", "r1", "--json").json["release"]
    assert shown["measures"] == {"reliability": {"right": 3, "asked": 4, "rate": 0.75}}
    assert [f["id"] for f in shown["holds"]] == [fact]
    assert [e["action"] for e in shown["history"]] == [
        "release.publish",
        "release.verify",
        "release.promote",
    ]
    assert ["reliability", "0.7500 (3 of 4)"] in wised(state, "release", "show", "1").rows


#: Wilson's interval of 97 of 100 drawn from 430 without replacement, which say as much as
#: 100 * 429 / 330 = 130 of many do: (.97 + 3.8415 / 260 -+ 1.96 sqrt(.97 * .03 / 130
#: + 3.8415 / 260^2)) / (1 + 3.8415 / 130)
SAMPLE = '{"retention": {"right": 97, "asked": 100, "whole": 430}}'
WITHIN = (0.924617, 0.988404)


def test_a_sample_is_shown_with_the_whole_and_its_interval(state):
    add_release(state, 1, (add_fact(state, events=EDITED),), measures=SAMPLE)
    rows = wised(state, "release", "show", "1").rows
    text = "0.9700 (97 of 100 drawn from 430; 95 % within 0.9246 to 0.9884)"
    assert ["retention", text] in rows
    shown = wised(state, "release", "show", "1", "--json").json["release"]["measures"]
    sample = shown["retention"]
    assert tuple(sample.pop("interval")) == pytest.approx(WITHIN, abs=1e-6)
    assert sample == {"right": 97, "asked": 100, "rate": 0.97, "whole": 430}


@pytest.mark.parametrize(
    ("measure", "text", "document"),
    [
        # all were asked
        (
            '{"right": 3, "asked": 4, "whole": null}',
            "0.7500 (3 of 4)",
            {"right": 3, "asked": 4, "rate": 0.75},
        ),
        (
            '{"right": 3, "asked": 4, "whole": 4}',
            "0.7500 (3 of 4 drawn from 4; 95 % within 0.7500 to 0.7500)",
            {"right": 3, "asked": 4, "rate": 0.75, "whole": 4, "interval": [0.75, 0.75]},
        ),
        # none was
        ('{"right": 0, "asked": 0}', "not asked", {"right": 0, "asked": 0, "rate": None}),
        (
            '{"right": 0, "asked": 0, "whole": 9}',
            "not asked",
            {"right": 0, "asked": 0, "rate": None, "whole": 9, "interval": [0.0, 1.0]},
        ),
    ],
)
def test_what_leaves_no_doubt_or_says_nothing_is_shown_so(state, measure, text, document):
    measures = f'{{"retention": {measure}}}'
    add_release(state, 1, (add_fact(state, events=EDITED),), measures=measures)
    assert ["retention", text] in wised(state, "release", "show", "1").rows
    shown = wised(state, "release", "show", "1", "--json").json["release"]
    assert shown["measures"] == {"retention": document}


def test_promoting_moves_the_pointer_and_repeats_without_harm(three):
    assert wised(three, "release", "promote", "r3").rows[0] == ["release 3", "promoted"]
    assert current(three) == 3
    assert state_of(three, 3) == "promoted"
    assert wised(three, "release", "promote", "3").rows == [["release 3", "already_promoted"]]


def test_a_refused_release_cannot_be_promoted(state):
    refuse(state, 1, "no")
    assert wised(state, "release", "promote", "1").code == 4


def test_a_release_with_a_retracted_fact_is_refused(three):
    wised(three, "fact", "retract", "1")
    assert wised(three, "release", "promote", "1").code == 5
    assert current(three) == 2


@pytest.mark.parametrize("decision", ["reject", "quarantine"])
def test_a_release_with_a_fact_that_a_person_spoke_against_is_not_gone_back_to(three, decision):
    said = wised(three, "rollback").err
    assert "wised resume promote" in said and "wised fact retract" in said
    fact = "2"  # of Mali, which came with release 2
    assert wised(three, "fact", "requeue", fact).code == 4
    assert wised(three, "fact", "approve", fact).code == 0
    assert wised(three, "fact", decision, fact).code == 0
    for line in (("release", "promote", "2"), ("rollback", "--to", "2")):
        ran = wised(three, *line)
        assert ran.code == 5
        assert f"fact {fact}, which is {decision.removesuffix('e')}ed" in ran.err
    assert current(three) == 1


def test_rollback_goes_to_the_previous_release_and_holds_promotion_within_a_second(three):
    began = time.monotonic()
    ran = wised(three, "rollback", "--reason", "wrong capital")
    assert time.monotonic() - began < 1
    assert ran.rows[0] == ["release 1", "promoted"]
    assert current(three) == 1
    assert three.current.resolve() == three.releases / "000001"
    holds = wised(three, "status", "--json").json["holds"]
    assert holds == {"promote": "rolled back to release 1: wrong capital"}


def test_rollback_to_a_named_release_repeats_without_harm(three):
    assert wised(three, "rollback", "--to", "r0").rows[0] == ["release 0", "promoted"]
    assert wised(three, "rollback", "--to", "0").rows == [["release 0", "already_promoted"]]
    assert not three.current.is_symlink()


def test_rollback_without_a_previous_release_is_not_found(state):
    assert wised(state, "rollback").code == 3
    assert wised(state, "rollback", "--to", "8").code == 3


@pytest.mark.parametrize(
    "arguments",
    [
        ("rollback",),
        ("release", "promote", "2"),
        ("release", "prune", "--keep", "0"),
        ("release", "pin", "1"),
    ],
    ids=" ".join,
)
def test_a_dry_run_changes_neither_rows_nor_files_nor_the_link(three, arguments):
    assert wised(three, "release", "promote", "3").code == 0
    before = dump(three)
    ran = wised(three, *arguments, "--dry-run", "--json")
    assert ran.code == 0
    assert ran.json["changes"]
    assert dump(three) == before


def test_a_dry_run_meets_the_refusal_that_the_change_would_meet(three):
    (three.releases / "000003" / "facts.jsonl").write_text("other", "utf-8")
    assert wised(three, "release", "promote", "3", "--dry-run").code == 9


def test_pruning_deletes_old_files_but_never_what_is_in_use_or_pinned(three):
    wised(three, "release", "promote", "3")
    add_release(three, 4, parent=3)
    wised(three, "release", "pin", "1")
    assert wised(three, "release", "prune", "--keep", "1").rows[0] == ["release 2", "pruned"]
    left = sorted(path.name for path in three.releases.iterdir())
    assert left == ["000001", "000003", "000004"]
    assert wised(three, "release", "prune", "--keep", "1").out == ""
    assert wised(three, "release", "unpin", "1").rows[0] == ["release 1", "unpinned"]
    assert wised(three, "release", "prune", "--keep", "1").rows[0] == ["release 1", "pruned"]


def test_pinning_repeats_without_harm_and_is_recorded(three):
    results = [
        wised(three, "release", verb, "1").rows[0][1] for verb in ("pin", "pin", "unpin", "unpin")
    ]
    assert results == ["pinned", "already_pinned", "unpinned", "already_unpinned"]
    shown = wised(three, "release", "show", "1", "--json").json["release"]
    assert [e["action"] for e in shown["history"]][-2:] == ["release.pin", "release.unpin"]


def test_verifying_tells_intact_from_changed_files(three):
    assert wised(three, "release", "verify", "1").rows == [["release 1", "intact"]]
    assert wised(three, "release", "verify", "0").rows == [["release 0", "no_files"]]
    (three.releases / "000001" / "facts.jsonl").write_text("release 9\n", "utf-8")
    ran = wised(three, "release", "verify", "1")
    assert (ran.code, ran.out) == (9, "")
    assert "checksum" in ran.err


def test_a_pruned_release_cannot_be_verified(three):
    wised(three, "release", "promote", "3")
    wised(three, "release", "prune", "--keep", "0")
    assert wised(three, "release", "verify", "1").code == 4


def test_a_difference_names_facts_added_removed_and_replaced(state):
    chad, mali = (add_fact(state, s, s, events=EDITED) for s in ("Chad", "Mali"))
    add_release(state, 1, (chad, mali))
    peru = add_fact(state, "Peru", "Lima", events=EDITED)
    newer = add_fact(state, "Chad", "Abéché", events=EDITED)
    add_release(state, 2, (newer, peru), parent=1)
    rows = wised(state, "release", "diff", "1", "r2").rows[1:]
    assert rows == [
        ["-", "2", "Mali", "capital", "Mali", "-"],
        ["+", "3", "Peru", "capital", "Lima", "-"],
        ["~", "4", "Chad", "capital", "Abéché", "Chad"],
    ]
    found = wised(state, "release", "diff", "2", "1", "--json").json
    assert [f["id"] for f in found["added"]] == [mali]
    assert [f["id"] for f in found["removed"]] == [peru]
    assert [(p["old"]["id"], p["new"]["id"]) for p in found["replaced"]] == [(newer, chad)]
    assert found["kept"] == 0


def test_an_unknown_release_is_not_found(state):
    for command in (["show"], ["promote"], ["verify"], ["pin"], ["diff", "0"]):
        assert wised(state, "release", *command, "7").code == 3


def test_a_verified_release_is_approved_once(three):
    assert wised(three, "release", "approve", "3").rows[0] == ["release 3", "approved"]
    assert wised(three, "release", "approve", "3").rows == [["release 3", "already_approved"]]
    assert wised(three, "release", "approve", "2").rows == [["release 2", "already_promoted"]]
    assert wised(three, "release", "approve", "1").code == 4
    assert wised(three, "release", "approve", "9").code == 3
    assert wised(three, "audit", "verify").code == 0
